"""What to know before a run is trusted: nothing learned, too few steps, a class lost, bad calibration."""

from __future__ import annotations

import statistics

from saddlescape.errors import counted
from saddlescape.records.result import Result

FEW_STEPS = 2000  # a run of more was not cut short, whatever it has learned
FALLEN = 4  # a class with less than this part of the others' mean accuracy has fallen
CALIBRATION_ERROR = 10.0  # percent
NAMED = 3  # classes at most
# What to do about a run that learned nothing, by what it began with (``RunConfig.start_kind``); "": unknown.
REMEDIES = {
    "": "train longer (--epochs)",
    "scratch": "train longer (--epochs) or start from a pretrained network (--backbone)",
    "features": "train longer (--epochs) or use the features of another network",
    "head": "train longer (--epochs), use another --backbone, or train more of this one (--tune)",
    "norm": "use another rate (--lr), or train the head alone (--tune head)",
    "lora": "use another rate (--lr), or train the head alone (--tune head)",
    "all": "use another rate (--lr), or train the head alone (--tune head)",
}


def result_warnings(
    result: Result, train_accuracy: float | None = None, steps: int = 0, start: str = ""
) -> list[str]:
    """One sentence for each fault, with its remedy.

    Args:
        result: The scores after the last epoch; its ``warnings`` are not read.
        train_accuracy: Percent of the training images, where each has its own label (no mixtures); None: unknown.
        steps: Steps of all trained stages.
        start: What the run began with, a key of ``REMEDIES``.
    """
    scored = {c: value for c, value in enumerate(result.per_class) if value is not None}
    balanced, chance = result.balanced_accuracy, 100 / max(len(scored), 2)
    found = []
    learned = balanced is None or len(scored) < 2 or balanced > chance + min((100 - chance) / 10, chance / 2)
    if not learned:
        found.append(
            f"balanced accuracy {balanced:.1f} %, chance is {chance:.3g} %: nothing was learned; {REMEDIES[start]}"
        )
    elif steps < FEW_STEPS and train_accuracy is not None and train_accuracy < 50 + chance / 2:
        found.append(
            f"training was cut short: after {counted(steps, 'step')} {train_accuracy:.0f} % of the training images are "
            "right; train longer (--epochs)"
        )
    others = {c: statistics.mean([v for k, v in scored.items() if k != c] or [0.0]) for c in scored}
    fallen = [c for c in others if learned and scored[c] < others[c] / FALLEN]
    if fallen:
        named = [
            f"{result.classes[c]!r} ({result.class_counts[c]} training images) {scored[c]:.1f} %"
            for c in sorted(fallen, key=scored.__getitem__)[:NAMED]
        ]
        more = f" and {len(fallen) - NAMED} more" if len(fallen) > NAMED else ""
        what = "classes" if len(fallen) > 1 else "a class"
        found.append(
            f"{what} far below the others ({others[fallen[0]]:.1f} % on average): {', '.join(named)}{more}; "
            "try another --method"
        )
    if result.ece is not None and result.ece > CALIBRATION_ERROR:
        found.append(
            f"calibration error {result.ece:.1f} %: the probabilities are off by that much on average; "
            "trust the order of the classes, not the percentages"
        )
    return found
