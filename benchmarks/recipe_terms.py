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
from finished_runs import cells, finished, spread

CONTRAST = ("train.objective=contrastive", "train.objective_options.kind=proco", "train.head=contrastive")
MIXUP = ("train.objective=mixup", "train.objective_options.alpha=0.3")
TERMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ours": ("ours", ()),
    "without margins": ("ours", ("train.loss=ce",)),
    "without SAM": ("ours", ("train.optimizer=sgd",)),
    "without the cosine schedule": ("ours", ("train.lr_schedule=paper-cifar",)),
    "SAM's part drawn from all classes alike": ("ours", ("train.optimizer_options.class_aware=0",)),
    "SAM on the whole batch": ("ours+sam", ()),
    "ImbSAM in its place": ("ours+imbsam", ()),
    "SAM from the middle on": ("ours", ("train.rho_start={half}",)),
    "rho 0.1": ("ours", ("train.rho=0.1",)),
    "rho 0.5": ("ours", ("train.rho=0.5",)),
    "with ProCo on the same view": ("ours", CONTRAST),
    "weight decay 1e-3": ("ours", ("train.weight_decay=1e-3",)),
    "weight decay 5e-3": ("ours", ("train.weight_decay=5e-3",)),
    "mixup of alpha 1": ("ours", ("train.objective=mixup",)),
    "mixup": ("ours", MIXUP),
    "mixup, weight decay 1e-3": ("ours", (*MIXUP, "train.weight_decay=1e-3")),
    "mixup, weight decay 5e-3": ("ours", (*MIXUP, "train.weight_decay=5e-3")),
    "mixup, weight decay 1e-2": ("ours", (*MIXUP, "train.weight_decay=1e-2")),
    "mixup, weight decay 5e-3, without SAM": ("ours", (*MIXUP, "train.weight_decay=5e-3", "train.optimizer=sgd")),
    "mixup, weight decay 5e-3, SAM on the whole batch": ("ours+sam", (*MIXUP, "train.weight_decay=5e-3")),
    "mixup, weight decay 5e-3, rho 0.05": ("ours", (*MIXUP, "train.weight_decay=5e-3", "train.rho=0.05")),
    "mixup, weight decay 5e-3, rho 0.4": ("ours", (*MIXUP, "train.weight_decay=5e-3", "train.rho=0.4")),
    "CC-SAM": ("cc-sam", ()),
    "MiSLAS": ("mislas", ()),
}
"""Name -> method and settings. Mixup has alpha 0.3 where nothing is said."""

CANDIDATES = tuple(term for term in TERMS if term == "ours" or term.startswith(("mixup", "weight", "CC", "Mi")))
"""What ``--development`` trains where no terms are named."""


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
            folder = arguments.runs / f"{term.replace(' ', '-')}-seed{seed}"
            scores.append(finished(folder, [*command, "--precision", arguments.precision, "--seed", str(seed), *draw]))
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
