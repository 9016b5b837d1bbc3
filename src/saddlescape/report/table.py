"""The table: ours (mean and spread over seeds), the published figures, and the difference."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from saddlescape.errors import counted
from saddlescape.published import results as published_results

METRICS = ("acc", "head", "mid", "tail")
OURS = {"acc": "accuracy", "head": "head", "mid": "mid", "tail": "tail"}
DATASETS = {
    "cifar10": "CIFAR-10-LT",
    "cifar100": "CIFAR-100-LT",
    "imagenet-lt": "ImageNet-LT",
    "inat2018": "iNaturalist 2018",
}
WORDS = {"crt": "cRT", "mislas": "MiSLAS", "disalign": "DisAlign"}  # as the paper writes them; others in capitals


def published_name(method: str) -> str:
    """ "ldam+drw+sam" -> "LDAM + DRW + SAM", the name in the paper's tables."""
    return " + ".join(WORDS.get(word, word.upper()) for word in method.split("+"))


def published(dataset: str, imbalance: float | None, method: str) -> dict[str, dict[str, float | None]]:
    """metric -> {"mean", "std"} as published, empty where the paper has no such row."""
    wanted = (DATASETS.get(dataset, dataset), published_name(method))
    return {
        row["metric"]: {"mean": row["mean"], "std": row["std"]}
        for row in published_results()
        if (row["dataset"], row["method"]) == wanted and row["imbalance"] in (None, imbalance)
    }


def spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean and sample standard deviation (n - 1; None for one value or none)."""
    present = [value for value in values if value is not None]
    if not present:
        return {"mean": None, "std": None}
    mean = math.fsum(present) / len(present)
    if len(present) == 1:
        return {"mean": mean, "std": None}
    return {"mean": mean, "std": math.sqrt(math.fsum((v - mean) ** 2 for v in present) / (len(present) - 1))}


def build(results: Sequence[dict[str, Any]], published_epochs: int | None) -> dict[str, Any]:
    """``table.json``: one row per method, in order of appearance; results on other draws or backbones are marked."""
    rows: list[dict[str, Any]] = []
    alike = comparable(results)
    reference = next((result for result, one in zip(results, alike, strict=True) if one), {})
    for method in dict.fromkeys(result["method"] for result in results):
        mine = [result for result in results if result["method"] == method]
        known = published(mine[0]["dataset"], mine[0]["imbalance"], method)
        row: dict[str, Any] = {
            "method": method,
            "seeds": [result["seed"] for result in mine],
            "epochs": mine[0]["epochs"],
            "work": mine[0].get("work"),  # None: of an older version
        }
        row["last"] = {metric: spread([result.get(OURS[metric]) for result in mine]) for metric in METRICS}
        row["best"] = {"acc": spread([result["best_accuracy"] for result in mine])}
        row["published"] = known
        row["difference"] = {
            metric: _minus(row["last"][metric]["mean"], known.get(metric, {}).get("mean")) for metric in METRICS
        }
        row["comparable"] = all(
            one for result, one in zip(results, alike, strict=True) if result["method"] == method
        )
        row["first_stage"] = sorted({result["first_stage"] for result in mine if result.get("first_stage")})
        row["settings"] = sorted({setting for result in mine for setting in result.get("settings", [])})
        row["precision"] = sorted({result["precision"] for result in mine if "precision" in result})
        rows.append(row)
    letters: dict[tuple[str, ...], str] = {}
    for row in rows:
        if row["first_stage"]:
            row["letter"] = letters.setdefault(tuple(row["first_stage"]), _letter(len(letters)))
    return {
        "dataset": reference.get("dataset"),
        "imbalance": reference.get("imbalance"),
        "model": reference.get("model"),
        "epochs": (reference.get("stage_epochs") or [reference.get("epochs")])[0],  # of a system: its first stage
        "published_epochs": published_epochs,
        "draw_hash": reference.get("draw_hash"),
        "rows": rows,
    }


def comparable(results: Sequence[dict[str, Any]]) -> list[bool]:
    """For each ``result.json``: whether it has the training and test images and the network that most have (of equally
    many, the first), so that it may be ranked."""

    def common(values: Sequence[Any]) -> Any:
        return max(values, key=values.count, default=None)

    kinds = [(result.get("draw_hash"), result.get("model")) for result in results]
    kind = common(kinds)
    held = [result.get("held_hash", "") for result in results]  # older results have none
    test = common([one for one, mine in zip(held, kinds, strict=True) if one and mine == kind])
    return [mine == kind and one in ("", test) for mine, one in zip(kinds, held, strict=True)]


def _letter(number: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def _minus(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs


def number(cell: dict[str, float | None] | None) -> str:
    if not cell or cell["mean"] is None:
        return "n/a" if cell is not None and "mean" in cell else "-"
    return f"{cell['mean']:.1f}" + (f" ± {cell['std']:.1f}" if cell["std"] is not None else "")


def columns() -> list[str]:
    heads = ["method", "seeds", "work", *METRICS, "best epoch acc"]
    return heads + [f"published {metric}" for metric in METRICS] + ["difference acc", "difference tail"]


def mark(row: dict[str, Any]) -> str:
    """What stands behind a row's name: the letter of its first stage; a star: do not compare."""
    letter = f" [{row['letter']}]" if "letter" in row else ""
    return letter + ("" if row["comparable"] else " *")


def cells(row: dict[str, Any]) -> list[str]:
    """One row of the table as text, in the order of :func:`columns`."""
    difference = [row["difference"]["acc"], row["difference"]["tail"]]
    return [
        row["method"] + mark(row),
        str(len(row["seeds"])),
        "-" if row.get("work") is None else f"{row['work']:.4g}",
        *(number(row["last"][metric]) for metric in METRICS),
        number(row["best"]["acc"]),
        *(number(row["published"].get(metric)) for metric in METRICS),
        *("-" if value is None else f"{value:+.1f}" for value in difference),
    ]


def caption(table: dict[str, Any]) -> str:
    """What a reader must know before comparing."""
    imbalance = f", imbalance {table['imbalance']:g}" if table["imbalance"] else ""
    text = (
        f"{DATASETS.get(table['dataset'], table['dataset'])}{imbalance}, {table['model']}, "
        f"{counted(table['epochs'], 'epoch')}. Top-1 percent after the last epoch, mean ± standard "
        "deviation over seeds; work in epochs of SGD (one of SAM is two); head, mid and tail are means of per-class "
        "accuracies. The best epoch is chosen on the test set, as the published scripts do."
    )
    known = any(row["published"] for row in table["rows"])
    if known and table["published_epochs"] and table["epochs"] != table["published_epochs"]:
        text += (
            f" The published figures are such best epochs of {table['published_epochs']} epochs: runs of "
            f"{table['epochs']} check the machinery and are no claim about the methods."
        )
    text += _changes(table["rows"])
    text += _formats(table["rows"])
    if not all(row["comparable"] for row in table["rows"]):
        text += " Rows marked * were trained on other images or another network than the others: do not compare them."
    if any("letter" in row for row in table["rows"]):
        text += (
            " A letter in brackets names the first stage that a system was built on: rows of different letters differ "
            "in more than what follows it."
        )
    return text


def _changes(rows: Sequence[dict[str, Any]]) -> str:
    """What was changed from the published recipes, those first that most rows share; which rows, where not all."""
    methods = [row["method"] for row in rows]
    found: dict[tuple[str, ...], list[str]] = {}  # rows -> what all of them changed
    for setting in sorted({setting for row in rows for setting in row["settings"]}):
        having = tuple(row["method"] for row in rows if setting in row["settings"])
        found.setdefault(having, []).append(setting)
    words = []
    for having in sorted(found, key=lambda names: (-len(names), methods.index(names[0]))):
        others = [method for method in methods if method not in having]
        named = f"all but {', '.join(others)}: " if len(others) < len(having) else f"{', '.join(having)}: "
        words.append((named if others else "") + ", ".join(found[having]))
    return f" Changed from the published recipe: {'; '.join(words)}." if words else ""


def _formats(rows: Sequence[dict[str, Any]]) -> str:
    """The number format of the runs; which rows have which where there are several, since each rounds otherwise."""
    found = {
        name: [row["method"] for row in rows if name in row.get("precision", ())]
        for name in ("float32", "bf16", "fp16")
    }
    present = {name: methods for name, methods in found.items() if methods}
    if len(present) > 1:
        words = "; ".join(f"{name}: {', '.join(methods)}" for name, methods in present.items())
        return f" Number formats differ ({words})."
    return f" Trained in {next(iter(present))}." if present else ""


def escaped(cell: str) -> str:
    """A cell that Markdown shows as it is: no bar ends it, no star or underscore makes it slanted."""
    return re.sub(r"([\\|*_`])", r"\\\1", cell).replace("\n", " ")


def markdown(table: dict[str, Any]) -> str:
    lines = [caption(table), "", "| " + " | ".join(columns()) + " |", "|" + " --- |" * len(columns())]
    lines += ["| " + " | ".join(map(escaped, cells(row))) + " |" for row in table["rows"]]
    return "\n".join(lines) + "\n"
