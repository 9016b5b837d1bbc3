"""What does each term of our recipe do? One term changed at a time, over seeds.

    python benchmarks/recipe_terms.py --development --seeds 0 1 2 3 4 --runs runs/development --out chosen.json
    python benchmarks/recipe_terms.py --seeds 0 1 2 --runs runs/terms --out terms.json

``--development``: on images held out of digits' training set, another draw of the long tail each seed; there the
settings were chosen, so that the test images had no say in them.

Accuracies after the last epoch; none is chosen. Run folders are kept; what is there is not trained again. Terms that
digits cannot show (augmentation for 32 pixels) want ``--data cifar10``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import development
from common import Run, options_of, positive
from finished_runs import FIGURES, cells, finished, spread

from saddlescape.records.files import METRICS, read_rows

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
    parser = options_of(__doc__, timed=False)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=positive, default=300)
    parser.add_argument("--terms", nargs="+", choices=list(TERMS), help="default: all, or the candidates")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--precision", default="float32", help="one for all rows (default %(default)s)")
    parser.add_argument("--development", action="store_true", help="choose without the test images of digits")
    run = Run("recipe_terms", parser, argv)
    given = run.options
    if given.development:
        if given.data != "digits":
            parser.error("--development is a split of digits")
        development.take_the_place_of_digits()
    rows, lines = [], ["| term | method, settings | accuracy | tail |", "| --- | --- | --- | --- |"]
    for term in given.terms or (CANDIDATES if given.development else TERMS):
        method, settings = TERMS[term]
        settings = tuple(each.format(half=given.epochs // 2) for each in settings)
        command = ["train", given.data, "--method", method, "--epochs", str(given.epochs)]
        command += ["--eval-every", str(given.epochs), *(["--set", *settings] if settings else [])]
        command += ["--precision", given.precision]
        scores = []
        for seed in given.seeds:
            draw = development.draw(seed) if given.development else []
            name = "ours" if term == FIRST_STAGE else term.replace(" ", "-")
            folder = given.runs / f"{name}-seed{seed}"
            score = finished(folder, [*command, "--seed", str(seed), *draw])
            scores.append(before_the_last_stage(folder) if term == FIRST_STAGE else score)
        rows.append({"term": term, "method": method, "set": settings, "runs": scores, **spread(scores)})
        shown = " ".join(f"`{each}`" for each in (method, *settings))
        lines.append(f"| {term} | {shown} | {' | '.join(cells(rows[-1]))} |")
    return run.write(rows, lines, seeds=given.seeds, development=given.development)


if __name__ == "__main__":
    sys.exit(main())
