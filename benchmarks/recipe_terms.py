"""What does each term of our recipe do? One term changed at a time, over seeds.

    python benchmarks/recipe_terms.py --development --seeds 0 1 2 3 4 --runs runs/development --out chosen.json
    python benchmarks/recipe_terms.py --seeds 0 1 2 --runs runs/terms --out terms.json

``--development``: on images held out of digits' training set, another draw of the long tail each seed; there the
settings were chosen, so that the test images had no say in them.

Accuracies after the last epoch; none is chosen. Run folders are kept; what is there is not trained again. Terms that
digits cannot show (augmentation for 32 pixels) want ``--data cifar10``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import development
import torch
from common import SCHEMA, environment, write_result
from finished_runs import FIGURES, cells, finished, spread

from saddlescape.runs.format import METRICS, read_rows

CONTRAST = ("train.objective=contrastive", "train.objective_options.kind=proco", "train.head=contrastive")
FIRST_STAGE = "the first stage alone"
TERMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ours": ("ours", ()),
    FIRST_STAGE: ("ours", ()),
    "without margins": ("ours", ("train.loss=ce",)),
    "without mixup": ("ours", ("train.objective=classify",)),
    "without SAM": ("ours", ("train.optimizer=sgd",)),
    "without the cosine schedule": ("ours", ("train.lr_schedule=paper-cifar",)),
    "SAM's part drawn from all classes alike": ("ours", ("train.optimizer_options.class_aware=0",)),
    "SAM on the whole batch": ("ours+sam", ()),
    "ImbSAM in its place": ("ours+imbsam", ()),
    "SAM from the middle on": ("ours", ("train.rho_start={half}",)),
    "rho 0.1": ("ours", ("train.rho=0.1",)),
    "rho 0.5": ("ours", ("train.rho=0.5",)),
    "ProCo on the same view in the place of mixup": ("ours", CONTRAST),
    "weight decay 1e-3": ("ours", ("train.weight_decay=1e-3",)),
    "mixup of alpha 0.3": ("ours", ("train.objective_options.alpha=0.3",)),
    "mixup of alpha 2": ("ours", ("train.objective_options.alpha=2",)),
    "shrinkage 0.03": ("ours", ("classifier.head_fit_options.shrinkage=0.03",)),
    "shrinkage 0.3": ("ours", ("classifier.head_fit_options.shrinkage=0.3",)),
    "PLDA on cross-entropy": ("plda", ()),
    "CC-SAM": ("cc-sam", ()),
    "MiSLAS": ("mislas", ()),
}
"""Name -> method and settings. ``FIRST_STAGE`` is what the runs of ``ours`` had reached before their last stage."""

CANDIDATES = (
    "ours", FIRST_STAGE, "without mixup", "without SAM", "mixup of alpha 0.3", "mixup of alpha 2", "shrinkage 0.03",
    "shrinkage 0.3", "CC-SAM", "MiSLAS",
)  # fmt: skip
"""What ``--development`` trains where no terms are named."""


def before_the_last_stage(folder: Path) -> dict[str, float]:
    """The figures after the last epoch of the first stage of a run of several."""
    last = [row for row in read_rows(folder / METRICS) if row["stage"] == 0][-1]["test"]
    return {name: float(last[name]) for name in FIGURES}


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--terms", nargs="+", choices=list(TERMS), help="default: all, or the candidates")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", default="float32", help="one for all rows (default %(default)s)")
    parser.add_argument("--development", action="store_true", help="choose without the test images of digits")
    arguments = parser.parse_args(argv)
    if arguments.development:
        if arguments.data != "digits":
            parser.error("--development is a split of digits")
        development.take_the_place_of_digits()
    rows = []
    for term in arguments.terms or (CANDIDATES if arguments.development else TERMS):
        method, settings = TERMS[term]
        settings = tuple(each.format(half=arguments.epochs // 2) for each in settings)
        command = ["train", arguments.data, "--method", method, "--epochs", str(arguments.epochs)]
        command += ["--eval-every", str(arguments.epochs), *(["--set", *settings] if settings else [])]
        scores = []
        for seed in arguments.seeds:
            draw = (
                ["--draw-seed", str(seed), "--imbalance", str(development.IMBALANCE)] if arguments.development else []
            )
            name = "ours" if term == FIRST_STAGE else term.replace(" ", "-")
            folder = arguments.runs / f"{name}-seed{seed}"
            score = finished(folder, [*command, "--precision", arguments.precision, "--seed", str(seed), *draw])
            scores.append(before_the_last_stage(folder) if term == FIRST_STAGE else score)
        rows.append({"term": term, "method": method, "set": settings, "runs": scores, **spread(scores)})
    names = {str(path): path.name for path in (arguments.runs, arguments.out)}  # no paths of a machine
    content = {
        "benchmark": "recipe_terms",
        "schema": SCHEMA,
        "environment": environment(torch.device("cpu"), [names.get(word, word) for word in argv]),
        "seeds": arguments.seeds,
        "development": arguments.development,
        "rows": rows,
    }
    write_result(arguments.out, content)
    lines = ["| term | method, settings | accuracy | tail |", "| --- | --- | --- | --- |"]
    for row in rows:
        told = " ".join([f"`{row['method']}`", *(f"`{each}`" for each in row["set"])])
        lines.append(f"| {row['term']} | {told} | {' | '.join(cells(row))} |")
    arguments.out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
