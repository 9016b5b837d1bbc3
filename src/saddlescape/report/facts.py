"""How the runs were made: settings beside each other, what differs first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from saddlescape.errors import duration
from saddlescape.report.read import RunData
from saddlescape.report.select import by_method
from saddlescape.report.text import clean, listed, number

# In other rows, or of no matter to the method.
LEFT_OUT = {"method", "seed", "version", "data.root", "start", "start_hash"}


@dataclass(frozen=True)
class RunFacts:
    """``columns``: methods; ``main``, ``differing``, ``same``: (what, a value a method)."""

    columns: list[str]
    main: list[tuple[str, list[str]]]
    differing: list[tuple[str, list[str]]]
    same: list[tuple[str, str]]


def facts(runs: Sequence[RunData]) -> RunFacts:
    """A column a method; where seeds of one differ, all values are listed."""
    methods = by_method(runs)
    rows = [("seeds", [listed([str(run.seed) for run in seeds], 8) for seeds in methods.values()])]
    for what, pick in MAIN:
        rows.append((what, [_joined([pick(run) for run in seeds]) for seeds in methods.values()]))
    flat = [[_flat(run.settings) for run in seeds] for seeds in methods.values()]
    keys = list(dict.fromkeys(key for seeds in flat for one in seeds for key in one if key not in LEFT_OUT))
    settings = [(key, [_joined([one.get(key, "-") for one in seeds]) for seeds in flat]) for key in keys]
    return RunFacts(
        list(methods),
        [row for row in rows if any(value not in ("", "n/a") for value in row[1])],
        [row for row in settings if len(set(row[1])) > 1],
        [(key, values[0]) for key, values in settings if len(set(values)) == 1],
    )


def _of_result(name: str) -> Any:
    def pick(run: RunData) -> str:
        value = getattr(run.result, name, None)
        return "" if value is None else clean(value) if value != "" else ""

    return pick


MAIN: tuple[tuple[str, Any], ...] = (
    ("epochs", _of_result("epochs")),
    ("network", _of_result("model")),
    ("imbalance", lambda run: number(run.result.imbalance) if run.result and run.result.imbalance else ""),
    ("images (hash)", _of_result("draw_hash")),
    ("time", lambda run: duration(run.result.seconds) if run.result else "not finished"),
    ("images a second", lambda run: number(run.result.images_per_second) if run.result else ""),
    ("work (epochs of SGD)", lambda run: number(run.result.work) if run.result and run.result.work else ""),
    ("device", _of_result("device")),
    ("number format", _of_result("precision")),
    ("compiled", lambda run: ("yes" if run.result.compiled else "no") if run.result else ""),
    ("best epoch on the test set", lambda run: f"{run.result.best_of_stage[0]} ({number(run.result.best_accuracy)} %)"
     if run.result and run.result.best_epoch is not None else ""),
    ("saddlescape", _of_result("version")),
    ("commit", _of_result("commit")),
    ("finished", _of_result("finished")),
    ("torch", _of_result("torch")),
    ("folder", lambda run: clean(run.path)),
)  # fmt: skip


def _joined(values: Sequence[str]) -> str:
    return listed(list(dict.fromkeys(value for value in values if value)), 4) if any(values) else ""


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """``{"stages.1.lr": "0.1"}``; with one stage its number is left out."""
    if isinstance(value, dict):
        found: dict[str, str] = {}
        for key, inner in value.items():
            if key == "stages" and isinstance(inner, list) and all(isinstance(each, dict) for each in inner):
                for index, stage in enumerate(inner):
                    found |= _flat(stage, "" if len(inner) == 1 else f"stage {index + 1}: ")
            else:
                found |= _flat(inner, f"{prefix}{clean(key)}." if isinstance(inner, dict) else f"{prefix}{clean(key)}")
        return found
    if isinstance(value, list):
        shown = ", ".join(clean(item) for item in value) or "none"
    elif isinstance(value, bool):
        shown = "yes" if value else "no"
    else:
        shown = clean(value) if value != "" else "none"
    return {prefix: shown}
