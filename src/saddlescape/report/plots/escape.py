"""The escape experiment: from one checkpoint on with several optimisers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from saddlescape.records.escape import ArmEpoch, EscapeFile
from saddlescape.report.drawing import Figure, Panel, Panels, Value, over_seeds
from saddlescape.report.palette import RUNS, look
from saddlescape.report.read import RunData
from saddlescape.report.text import clean, number, percent

PANELS: tuple[tuple[str, Callable[[ArmEpoch], Value]], ...] = (
    ("Tail: test accuracy, %", lambda row: row.tail),
    ("Mean λmin of the followed classes", lambda row: row.lambda_min),
    ("Their mean loss", lambda row: row.loss),
    ("Test accuracy, %", lambda row: row.accuracy),
)


def escape(runs: Sequence[RunData]) -> Figure | None:
    """Lines an arm, means over seeds with a band; a run to choose."""
    found = [(run.name, run.escape, _panels(run.escape)) for run in runs if run.escape]
    variants = [(name, Panels(panels, _text(file), columns=2, height=230)) for name, file, panels in found if panels]
    caption = (
        "From one checkpoint of a run every optimiser goes on with the same images in the same order. If amplified "
        "negative curvature is why SAM helps the tail, Momentum-SAM, which amplifies it without changing its sign, "
        "should help as much."
    )
    return Figure("escape", "Escaping from the checkpoint", caption, variants, "run") if variants else None


def _panels(found: EscapeFile) -> list[Panel]:
    arms = list(dict.fromkeys(arm.arm for arm in found.arms))
    panels = []
    for title, pick in PANELS:
        lines = []
        for index, name in enumerate(arms):
            points = [(row.epoch, pick(row)) for arm in found.arms if arm.arm == name for row in arm.epochs]
            lines.append(over_seeds(clean(name), points, **look(index, index // RUNS), markers=True, size=6))
        if any(lines):
            panels.append(Panel(title, [line for line in lines if line], x_title="epochs after the checkpoint"))
    return panels


def _text(found: EscapeFile) -> str:
    words = []
    for arm in found.arms:
        name = f"{clean(arm.arm)}, seed {arm.seed}"
        if arm.problem:
            words.append(f"{name}: {clean(arm.problem)}.")
        elif arm.epochs:
            first, last = arm.epochs[0], arm.epochs[-1]
            words.append(
                f"{name}: tail from {percent(first.tail)} to {percent(last.tail)}, λmin from "
                f"{number(first.lambda_min)} to {number(last.lambda_min)}."
            )
    verdict = [clean(found.verdict.text)] if found.verdict and found.verdict.text else []
    return " ".join(words + verdict)
