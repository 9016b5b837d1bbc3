"""Does the rho at which the tail's negative curvature is amplified agree with the rho that trains best?

    python benchmarks/rho_hint.py --seeds 0 1 2 --runs runs/rho-hint --out benchmarks/results/rho_hint-digits.json

For each seed: one run by SGD, ``curvature --advise-rho`` on it after training and at kept checkpoints, and a run by SAM
at each radius. Test accuracies of every radius are told, none is chosen; the hint comes from training images alone. Run
folders are kept, and what is there already is not trained again.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import Run, options_of, positive
from finished_runs import FIGURES, cells, finished, spread, succeed

from saddlescape.measure.rho import RHOS
from saddlescape.records.files import read_json
from saddlescape.records.rho_advice import AdviceFile

KINDS = ("class_batches", "training_batches")


def main(argv: Sequence[str] | None = None) -> int:
    parser = options_of(__doc__, timed=False)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--method", default="ce+drw", help="a sum without an optimiser")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rhos", type=float, nargs="+", default=list(RHOS))
    parser.add_argument("--epochs", type=positive, default=300)
    parser.add_argument("--at", type=positive, nargs="+", default=[150, 300], help="epochs after which to ask")
    parser.add_argument("--samples", type=positive, default=256, help="images of each larger class for its Hessian")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    run = Run("rho_hint", parser, argv)
    given = run.options
    hints, scores = [], []
    for seed in given.seeds:
        scores.append({"seed": seed, "rho": 0.0, **trained(given, given.method, seed)})
        plain = folder_of(given, given.method, seed)
        hints += [{"seed": seed, "epoch": epoch, **advice(given, plain, epoch)} for epoch in given.at]
        for rho in given.rhos:
            scores.append({"seed": seed, "rho": rho, **trained(given, f"{given.method}+sam", seed, rho)})
    rows = by_radius(scores, hints, given.rhos)
    found = summary(rows, hints)
    return run.write(rows, markdown(rows, found), summary=found, runs=scores, hints=hints)


def trained(arguments: argparse.Namespace, method: str, seed: int, rho: float | None = None) -> dict[str, float]:
    """The figures of a run, trained (further) if need be."""
    command = ["train", arguments.data, "--method", method, "--seed", str(seed), "--epochs", str(arguments.epochs)]
    command += ["--eval-every", str(arguments.epochs)]
    command += ["--keep-every", str(math.gcd(*arguments.at))] if rho is None else ["--rho", f"{rho:g}"]
    return finished(folder_of(arguments, method, seed, rho), command)


def folder_of(arguments: argparse.Namespace, method: str, seed: int, rho: float | None = None) -> Path:
    return arguments.runs / (f"{method}-seed{seed}" if rho is None else f"{method}-{rho:g}-seed{seed}")


def advice(arguments: argparse.Namespace, folder: Path, epoch: int) -> dict[str, Any]:
    """The hint of a checkpoint, and of each tail class with proved negative curvature the radii that amplify it."""
    checkpoint = f"s0-e{epoch:05d}-b000000"
    kept = folder / f"rho-advice-{checkpoint}.json"
    if not kept.exists():
        command = ["curvature", str(folder), "--advise-rho", "--checkpoint", checkpoint]
        command += ["--samples-per-class", str(arguments.samples), "--rho", *[f"{rho:g}" for rho in arguments.rhos]]
        succeed(command)
        shutil.copyfile(folder / AdviceFile.NAME, kept)
    content = read_json(kept)
    tail = [row for row in content["classes"] if row["group"] == "tail"]
    saddles = [row for row in tail if row["negative_curvature_proved"]]
    return {
        "hint": content["hint"],
        "tail_classes": len(tail),
        "saddles": [row["class"] for row in saddles],
        "lambda_min": [row["lambda_min"] for row in saddles],
        **{kind: [(row[kind] or {}).get("amplified_rho", []) for row in saddles] for kind in KINDS},
    }


def by_radius(
    scores: Sequence[dict[str, Any]], hints: Sequence[dict[str, Any]], rhos: Sequence[float]
) -> list[dict[str, Any]]:
    """A row a radius: accuracies over seeds, and the share of tail saddles that it amplifies, by epoch and batches."""
    rows = []
    for rho in (0.0, *rhos):
        mine = [score for score in scores if score["rho"] == rho]
        row: dict[str, Any] = {"rho": rho, "seeds": len(mine), **spread(mine)}
        row["amplified"] = {
            kind: {str(epoch): share(hints, epoch, kind, rho) for epoch in sorted({hint["epoch"] for hint in hints})}
            for kind in KINDS
        }
        rows.append(row)
    return rows


def share(hints: Sequence[dict[str, Any]], epoch: int, kind: str, rho: float) -> float | None:
    """Of the tail saddles at ``epoch``, over all seeds, the share amplified at ``rho``; None without a saddle."""
    radii = [one for hint in hints if hint["epoch"] == epoch for one in hint[kind]]
    return sum(rho in one for one in radii) / len(radii) if radii else None


def summary(rows: Sequence[dict[str, Any]], hints: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The radius with the best mean of each figure, beside the first radius that amplifies most tail saddles."""
    found: dict[str, Any] = {}
    for name in FIGURES:
        best = max(rows, key=lambda row: row[name]["mean"])
        found[f"best_{name}"] = {"rho": best["rho"], **best[name]}
    found["amplifies_most_from"] = {
        kind: {
            epoch: next((row["rho"] for row in rows if (row["amplified"][kind][epoch] or 0) > 0.5), None)
            for epoch in rows[0]["amplified"][kind]
        }
        for kind in KINDS
    }
    found["tail_saddles"] = sum(len(hint["saddles"]) for hint in hints)
    return found


def markdown(rows: Sequence[dict[str, Any]], told: dict[str, Any]) -> list[str]:
    """The table as lines of Markdown."""
    columns = [(kind, epoch) for kind in KINDS for epoch in rows[0]["amplified"][kind]]
    names = [f"amplified, {kind.split('_')[0]} batches, epoch {epoch}" for kind, epoch in columns]
    lines = ["| rho | accuracy | tail | " + " | ".join(names) + " |", "| --- " * (3 + len(columns)) + "|"]
    for row in rows:
        told_here = [f"{row['rho']:g}" if row["rho"] else "SGD", *cells(row)]
        for kind, epoch in columns:
            part = row["amplified"][kind][epoch]
            told_here.append("-" if part is None or not row["rho"] else f"{part:.0%}")
        lines.append("| " + " | ".join(told_here) + " |")
    lines += [
        "",
        f"best accuracy at rho {told['best_accuracy']['rho']:g}, best tail at rho {told['best_tail']['rho']:g}",
    ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
