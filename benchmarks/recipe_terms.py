"""What does each term of our recipe do? One term changed at a time, over seeds.

    python benchmarks/recipe_terms.py --seeds 0 1 2 --runs runs/terms --out benchmarks/results/recipe_terms-digits.json

Accuracies after the last epoch; none is chosen. Run folders are kept; what is there is not trained again. Terms that
digits cannot show (augmentation for 32 pixels) want ``--data cifar10``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from common import SCHEMA, environment, write_result
from finished_runs import cells, finished, spread

CONTRAST = ("train.objective=contrastive", "train.objective_options.kind=proco", "train.head=contrastive")
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
    "with ProCo, SAM from the middle on": ("ours", (*CONTRAST, "train.rho_start={half}")),
}
"""Name -> method and settings; the last one is what the recipe was before it was measured."""


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--terms", nargs="+", choices=list(TERMS), default=list(TERMS))
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    rows = []
    for term in arguments.terms:
        method, settings = TERMS[term]
        settings = tuple(each.format(half=arguments.epochs // 2) for each in settings)
        command = ["train", arguments.data, "--method", method, "--epochs", str(arguments.epochs)]
        command += ["--eval-every", str(arguments.epochs), *(["--set", *settings] if settings else [])]
        scores = [
            finished(arguments.runs / f"{term.replace(' ', '-')}-seed{seed}", [*command, "--seed", str(seed)])
            for seed in arguments.seeds
        ]
        rows.append({"term": term, "method": method, "set": settings, "runs": scores, **spread(scores)})
    content = {
        "benchmark": "recipe_terms",
        "schema": SCHEMA,
        "environment": environment(torch.device("cpu"), argv),
        "seeds": arguments.seeds,
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
