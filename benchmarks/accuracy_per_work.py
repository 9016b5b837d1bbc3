"""Accuracy over work: finished runs at several budgets, as JSON, a table and an image.

    saddlescape train cifar10 --imbalance 100 --method ours --budget 40 --eval-every 1000 --out runs/ours-40-seed0
    python benchmarks/accuracy_per_work.py runs/*-40-* runs/*-80-* --out accuracy_per_work-cifar10-lt.json

A unit of work is a forward and a backward pass over the training set: an epoch of SGD; one of SAM is two. Accuracies
are those after the last epoch; nothing is chosen here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import Run, options_of

from saddlescape.records.files import METRICS, read_result
from saddlescape.records.metrics import read_metrics
from saddlescape.report.palette import LIGHT, RUNS
from saddlescape.report.table import METRICS as FIGURES
from saddlescape.report.table import OURS, number, published, spread
from saddlescape.runs.config import load
from saddlescape.training.epoch import total_work

KEPT = ("method", "dataset", "imbalance", "model", "seed", "stage_epochs", "accuracy", "head", "mid", "tail",
        "per_class", "precision", "compiled", "seconds", "device", "draw_hash", "version", "torch")  # fmt: skip
PUBLISHED = {"ce+drw": 200, "ce+drw+sam": 400}  # row of the paper -> its work
NOTES = "Trained on one thread beside other work: seconds are no benchmark."


def finished(folder: Path) -> dict[str, Any] | None:
    """What a run reached, its work, and how often it scored the test set; None of a run that is not finished."""
    result = read_result(folder)
    if result is None:
        return None
    openings = sum(row.test is not None for row in read_metrics(folder / METRICS))
    work = total_work(load(folder).stages, sum(result["class_counts"]))
    return {"work": round(work, 2), "test_openings": openings} | {name: result[name] for name in KEPT}


def rows_of(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each method and work (to a unit), mean and spread over seeds, by data, then work, then method."""
    groups: dict[tuple[str, float, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["dataset"], round(run["work"]), run["method"]), []).append(run)
    return [
        {
            "dataset": dataset, "work": work, "method": method, "seeds": [run["seed"] for run in mine],
            "last": {metric: spread([run[OURS[metric]] for run in mine]) for metric in FIGURES},
        }
        for (dataset, work, method), mine in sorted(groups.items(), key=lambda item: item[0])
    ]  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    heads = ["data", "work", "method", "seeds", *FIGURES]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        cells = [row["dataset"], f"{row['work']:g}", f"`{row['method']}`", str(len(row["seeds"]))]
        lines.append("| " + " | ".join([*cells, *(number(row["last"][metric]) for metric in FIGURES)]) + " |")
    return lines


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Four panels, all classes and each group, of the first data set: a line a method; crosses are the paper's."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    dataset = rows[0]["dataset"]
    mine = [row for row in rows if row["dataset"] == dataset]
    methods = sorted({row["method"] for row in mine}, key=lambda name: (name != "ours", name))
    figure, axes = pyplot.subplots(1, len(FIGURES), figsize=(11, 3.2), layout="constrained", sharex=True)
    for axis, metric in zip(axes, FIGURES, strict=True):
        for place, method in enumerate(methods):
            points = [(row["work"], row["last"][metric]) for row in mine if row["method"] == method]
            colour = LIGHT["tail"] if method == "ours" else LIGHT[f"run{place % RUNS}"]
            axis.errorbar(
                [work for work, _ in points], [cell["mean"] for _, cell in points],
                yerr=[cell["std"] or 0.0 for _, cell in points], marker="o", markersize=4, color=colour, label=method,
                linewidth=2.0 if method == "ours" else 1.0, capsize=2,
            )  # fmt: skip
        for (method, work), marker in zip(PUBLISHED.items(), "x+", strict=True):
            known = published(dataset, 100.0, method).get(metric)
            if known:
                axis.plot(work, known["mean"], marker, color=LIGHT["ink"], label=f"{method}, published")
        axis.set_xscale("log", base=2)
        axis.set_xticks([20, 40, 80, 160, 400], ["20", "40", "80", "160", "400"])
        axis.set_title({"acc": "all classes"}.get(metric, metric))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy, %")
    figure.supxlabel("work: forward and backward passes over the training set", fontsize=9)
    axes[-1].legend(fontsize=7)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    parser = options_of(__doc__, timed=False)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--image", type=Path, help="a PNG to draw into")
    parser.add_argument("--note", default="", help="how the runs were made, for the record")
    run = Run("accuracy_per_work", parser, argv)
    found = [finished(folder) for folder in run.options.runs]
    runs = [one for one in found if one is not None]
    rows = rows_of(runs)
    if run.options.image:
        draw(rows, run.options.image)
    return run.write(rows, table(rows), runs=runs, note=f"{NOTES} {run.options.note}".strip())


if __name__ == "__main__":
    sys.exit(main())
