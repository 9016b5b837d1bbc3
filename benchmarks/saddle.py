"""Do tail classes sit on saddles, and does SAM leave them? The paper's claim, held against two finished runs.

    python benchmarks/saddle.py runs/ce+drw-seed0 runs/ce+drw+sam-seed0 --out benchmarks/results/saddle-cifar10-lt.json

The first run is by SGD, the second by SAM. Both hold what ``saddlescape curvature RUN`` and ``curvature RUN
--over-training`` write (and ``escape``, ``--advise-rho``, where there). Nothing is trained or measured here. Told at
equal epoch and at equal class loss: the Hessian is the Gauss-Newton part, which has no negative eigenvalue, plus a part
that the residuals weigh, so a class that is fitted better has less negative curvature whatever has fitted it.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import Run, options_of
from scipy.stats import spearmanr

from saddlescape.errors import InputError
from saddlescape.records.files import read_json, read_result
from saddlescape.runs import config as configuration

FINAL = (
    "class", "label", "group", "training_images", "num_samples", "loss", "lambda_min", "lambda_max", "nonconvexity",
    "residual_min", "converged", "negative_curvature_proved", "negative_mass", "gauss_newton", "residual_part",
    "at_lambda_min", "sampling_error",
)  # fmt: skip
COURSE = ("epoch", "class", "label", "group", "loss", "lambda_min", "lambda_max", "nonconvexity", "converged")
NEAR = 0.25  # two class losses are alike when their logarithms differ by no more
PLAIN, SAM = "#0072b2", "#d55e00"  # Okabe-Ito blue and vermilion


def main(argv: Sequence[str] | None = None) -> int:
    parser = options_of(__doc__, timed=False)
    parser.add_argument("plain", type=Path)
    parser.add_argument("sam", type=Path)
    parser.add_argument("--image", type=Path, help="a PNG to draw into")
    parser.add_argument("--command", action="append", default=[], help="command that made the runs, kept in the file")
    run = Run("saddle", parser, argv)
    try:
        runs = {"sgd": read_run(run.options.plain), "sam": read_run(run.options.sam)}
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    found = verdict(runs["sgd"], runs["sam"])
    if run.options.image:
        draw(runs, run.options.image)
    return run.write([], markdown(runs, found), commands=run.options.command, runs=runs, verdict=found)


def read_run(folder: Path) -> dict[str, Any]:
    """What a run folder says of itself and of its classes' curvature. Raises InputError for what is missing."""
    result = read_result(folder)
    if result is None:
        raise InputError(f"{folder} is not a finished run")
    for name in ("curvature.json", "curvature-course.jsonl"):
        if not (folder / name).exists():
            raise InputError(f"{folder} has no {name}: run saddlescape curvature on it, and again with --over-training")
    final = read_json(folder / "curvature.json")
    stage = configuration.load(folder).stages[0]
    lines = [json.loads(line) for line in (folder / "curvature-course.jsonl").read_text(encoding="utf-8").splitlines()]
    course = [{name: row[name] for name in COURSE} for row in lines if "label" in row]
    extra = [name for name in ("escape", "rho-advice") if (folder / f"{name}.json").exists()]
    return {
        "method": result["method"],
        "epochs": result["epochs"],
        "rho": list(stage.rho),
        "reweight_start": stage.reweight_start,
        "accuracy": {name: result[name] for name in ("accuracy", "head", "mid", "tail", "per_class")},
        "checkpoint": final["checkpoint"],
        "settings": final["settings"],
        "final": [{name: row.get(name) for name in FINAL} for row in final["classes"]],
        "course": course,
        **{name: read_json(folder / f"{name}.json") for name in extra},
    }


def verdict(plain: dict[str, Any], sam: dict[str, Any]) -> dict[str, Any]:
    """The claim taken apart; ratios are geometric means over classes or pairs of points, SAM's figure over SGD's."""
    return {
        "at_the_end": {
            group: at_the_end(plain["final"], sam["final"], group) for group in ("head", "mid", "tail")
        },
        "ends": {name: ends(run["final"]) for name, run in (("sgd", plain), ("sam", sam))},
        "equal_epoch": equal_epoch(plain["course"], sam["course"]),
        "equal_loss": equal_loss(plain["course"], sam["course"]),
        "depth_follows_loss": follows(plain["course"] + sam["course"]),
    }  # fmt: skip


def at_the_end(plain: Sequence[dict[str, Any]], sam: Sequence[dict[str, Any]], group: str) -> dict[str, Any]:
    """How each figure of a group's classes has changed from SGD to SAM after training."""
    labels = {row["label"] for row in plain if row["group"] == group} & {row["label"] for row in sam}
    a, b = ({row["label"]: row for row in rows if row["label"] in labels} for rows in (plain, sam))
    return {"classes": len(labels)} | {
        name: ratio([(a[label][name], b[label][name]) for label in sorted(labels)])
        for name in ("loss", "lambda_min", "lambda_max", "nonconvexity")
    }


def ends(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """After training: how many classes of each group have proved negative curvature, and the mean ratio."""
    found = {}
    for group in ("head", "mid", "tail"):
        mine = [row for row in rows if row["group"] == group]
        if mine:
            found[group] = {
                "classes": len(mine),
                "proved_negative": sum(bool(row["negative_curvature_proved"]) for row in mine),
                "mean_nonconvexity": statistics.mean(row["nonconvexity"] for row in mine),
                "lambda_min": [row["lambda_min"] for row in mine],
            }
    return found


def equal_epoch(plain: Sequence[dict[str, Any]], sam: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Group by group, over every epoch and class that both runs were measured at."""
    known = {(row["epoch"], row["label"]): row for row in plain}
    pairs = [(known[key], row) for row in sam if (key := (row["epoch"], row["label"])) in known]
    return _by_group(pairs)


def equal_loss(plain: Sequence[dict[str, Any]], sam: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Each point of SAM's course beside the point of SGD's, same class, that is nearest in the logarithm of loss."""
    pairs = []
    for row in sam:
        others = [other for other in plain if other["label"] == row["label"] and min(other["loss"], row["loss"]) > 0]
        if others:
            best = min(others, key=lambda other: abs(math.log(other["loss"] / row["loss"])))
            if abs(math.log(best["loss"] / row["loss"])) <= NEAR:
                pairs.append((best, row))
    return _by_group(pairs)


def _by_group(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    found = {}
    for group in ("head", "mid", "tail"):
        mine = [(a, b) for a, b in pairs if b["group"] == group]
        if mine:
            found[group] = {"pairs": len(mine)} | {
                name: ratio([(a[name], b[name]) for a, b in mine])
                for name in ("lambda_min", "lambda_max", "nonconvexity")
            }
    return found


def ratio(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Geometric mean of second over first, of pairs of like sign; None where there is none."""
    logs = [math.log(b / a) for a, b in pairs if a and b and (a > 0) == (b > 0)]
    return math.exp(statistics.mean(logs)) if logs else None


def follows(course: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rank correlation of the depth of the most negative curvature with the class's loss, all points of both runs."""
    points = [(row["loss"], -row["lambda_min"]) for row in course if row["lambda_min"] < 0]
    if len(points) < 3:
        return {"points": len(points), "spearman": None}
    return {"points": len(points), "spearman": float(spearmanr(*zip(*points, strict=True)).statistic)}


def markdown(runs: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Classes after training side by side, then the comparison at equal epoch and at equal loss."""
    lines = [
        "| class (images) | group | loss SGD / SAM | lambda_min SGD / SAM | lambda_max SGD / SAM | ratio SGD / SAM | "
        "Gauss-Newton lambda_max SGD / SAM | test accuracy SGD / SAM |",
        "| --- " * 8 + "|",
    ]
    others = {row["label"]: row for row in runs["sam"]["final"]}
    for row in runs["sgd"]["final"]:
        both = (row, others.get(row["label"]))
        accuracies = [runs[name]["accuracy"]["per_class"][row["label"]] for name in ("sgd", "sam")]
        figures = [_two(both, name) for name in ("loss", "lambda_min", "lambda_max", "nonconvexity")]
        newton = " / ".join(_number((one or {}).get("gauss_newton", {}), "lambda_max") for one in both)
        cells = [f"{row['class']} ({row['training_images']})", row["group"], *figures, newton]
        lines.append("| " + " | ".join([*cells, " / ".join(f"{one:.1f}" for one in accuracies)]) + " |")
    lines += ["", "| SAM over SGD, geometric mean | lambda_min | lambda_max | ratio |", "| --- | --- | --- | --- |"]
    for title, part in (("after training", found["at_the_end"]), ("equal epoch", found["equal_epoch"]),
                        ("equal class loss", found["equal_loss"])):  # fmt: skip
        for group, one in part.items():
            counted = f"{one['pairs']} pairs" if "pairs" in one else f"{one['classes']} classes"
            cells = [_number(one, name) for name in ("lambda_min", "lambda_max", "nonconvexity")]
            lines.append(f"| {title}, {group} ({counted}) | " + " | ".join(cells) + " |")
    depth = found["depth_follows_loss"]
    lines += ["", f"Spearman correlation of -lambda_min with class loss: {_number(depth, 'spearman')} "
              f"over {depth['points']} points of both courses."]  # fmt: skip
    return lines


def _two(rows: Sequence[dict[str, Any] | None], name: str) -> str:
    return " / ".join(_number(row or {}, name) for row in rows)


def _number(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    return "-" if value is None else f"{value:.3g}"


def draw(runs: dict[str, Any], path: Path) -> None:
    """lambda_min over the epochs, class by class, and against the class's loss."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    labels = sorted({row["label"] for run in runs.values() for row in run["course"]})
    figure, axes = plt.subplots(1, len(labels) + 1, figsize=(3 * len(labels) + 3.6, 3.4), layout="constrained")
    for axis, label in zip(axes, labels, strict=False):
        for name, colour in (("sgd", PLAIN), ("sam", SAM)):
            mine = [row for row in runs[name]["course"] if row["label"] == label]
            axis.plot([row["epoch"] for row in mine], [-row["lambda_min"] for row in mine], "o-", color=colour, ms=3)
            axis.set_title(f"{mine[0]['class']} ({mine[0]['group']})" if mine else str(label), fontsize=10)
        axis.axvline(runs["sgd"]["reweight_start"], color="grey", ls=":", lw=1)
        axis.set(yscale="log", xlabel="epoch")
    axes[0].set_ylabel("depth of negative curvature, -lambda_min")
    for name, colour in (("sgd", PLAIN), ("sam", SAM)):
        mine = [row for row in runs[name]["course"] if row["lambda_min"] < 0 and row["loss"] > 0]
        xs, ys = [row["loss"] for row in mine], [-row["lambda_min"] for row in mine]
        axes[-1].scatter(xs, ys, s=10, color=colour, label=name.upper())
    axes[-1].set(xscale="log", yscale="log", xlabel="loss of the class")
    axes[-1].set_title("every class and epoch", fontsize=10)
    axes[-1].legend(frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
