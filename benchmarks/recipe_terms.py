"""What does each term of our recipe do? One term changed at a time, on development images only.

    python benchmarks/recipe_terms.py --budget 20 --model resnet20 --runs runs/terms --out recipe_terms-cifar10.json

Development images are those of ``--val extra``: they take the place of the test set, which no run here opens.
Accuracies after the last epoch, at the same work. Run folders are kept; what is finished is not trained again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import Run, options_of

from saddlescape.report.table import METRICS as FIGURES
from saddlescape.report.table import OURS, number, spread
from saddlescape.runs.config import begun
from saddlescape.runs.execute import execute
from saddlescape.runs.plan import Loaded, plan
from saddlescape.runs.request import Request

TERMS: dict[str, tuple[str, ...]] = {
    "ours": (),
    "batch 128": ("train.batch_size=128",),
    "batch 32": ("train.batch_size=32",),
    "weight decay 2e-4": ("train.weight_decay=2e-4",),
    "weight decay 5e-4": ("train.weight_decay=5e-4",),
    "weight decay 1e-3": ("train.weight_decay=1e-3",),
    "weight decay 2e-3": ("train.weight_decay=2e-3",),
    "without Nesterov": ("train.nesterov=false",),
    "the paper's schedule": ("train.lr_schedule=paper-cifar",),
    "cosine": ("train.lr_schedule=cosine",),
    "cross-entropy, DRW from 80 %": ("train.loss=ce", "train.reweight=drw", "train.reweight_start={late}"),
    "VS": ("train.loss=vs", "train.loss_options.gamma=0.15", "train.loss_options.tau=1.25"),
    "LDAM with DRW": ("train.loss=ldam", "train.head=cosine", "train.loss_options.max_margin=0.5",
                      "train.loss_options.scale=30", "train.reweight=drw", "train.reweight_start={late}"),
    "crop and flip alone": ("train.augment=crop-flip",),
    "Cutout": ("train.augment=crop-flip-cutout",),
    "RandAugment": ("train.augment=randaugment",),
    "AutoAugment and Cutout": ("train.augment=autoaugment-cutout",),
    "mixup": ("train.objective=mixup",),
    "SAM": ("train.optimizer=sam", "train.rho=0.1"),
    "SAM in the second half": ("train.optimizer=sam", "train.rho=0.1", "train.rho_start={third}"),
    "SAM in the last third": ("train.optimizer=sam", "train.rho=0.1", "train.rho_start={half}"),
    "SAM on a quarter of each batch": ("train.optimizer=partial-sam", "train.rho=0.2"),
}  # fmt: skip
"""Name -> settings; ``{late}``, ``{half}`` and ``{third}`` are epochs: at 80 %, a half and a third of the budget."""
SAME = ("weight decay 1e-3", "crop and flip alone")  # what the recipe has itself


def main(argv: Sequence[str] | None = None) -> int:
    parser = options_of(__doc__, timed=False)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--imbalance", type=float, default=100.0)
    parser.add_argument("--budget", type=float, default=20.0)
    parser.add_argument("--model", help="default: the recipe's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--terms", nargs="+", choices=list(TERMS), default=list(TERMS))
    parser.add_argument("--precision", default="auto", help="as of train")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    run = Run("recipe_terms", parser, argv)
    given, loaded, rows = run.options, Loaded(), []
    for term in given.terms:
        found = [trained(given, loaded, term, seed) for seed in given.seeds]
        figures = {metric: spread([one[OURS[metric]] for one in found]) for metric in FIGURES}
        rows.append({"term": term, "set": TERMS[term], "seeds": given.seeds, "development": figures})
    return run.write(rows, table(rows))


def trained(given: Any, loaded: Loaded, term: str, seed: int) -> dict[str, Any]:
    """The result of a run whose test set is the development images."""
    folder = given.runs / f"{term.replace(' ', '-')}-seed{seed}"
    request = Request(
        data=given.data, method="ours", imbalance=given.imbalance, budget=given.budget, model=given.model, seed=seed,
        val="extra", settings=settings_of(term, given.budget), eval_every=1000,
        precision=given.precision, compile=given.compile or None,
    )  # fmt: skip
    config, dataset, _ = plan(request, loaded=loaded, begun=begun(folder))
    assert dataset.val is not None
    return execute(config, replace(dataset, test=dataset.val, val=None), folder)


def settings_of(term: str, budget: float) -> tuple[str, ...]:
    starts = {"late": int(0.8 * budget), "half": int(budget / 2), "third": round(budget / 3)}
    return tuple(each.format(**starts) for each in TERMS[term])


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["| term | " + " | ".join(FIGURES) + " |", "|" + " --- |" * (1 + len(FIGURES))]
    lines += [
        f"| {row['term']} | " + " | ".join(number(row["development"][metric]) for metric in FIGURES) + " |"
        for row in rows
    ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
