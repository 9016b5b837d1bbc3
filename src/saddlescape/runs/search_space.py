"""What a tuning searches over: fields of a stage, each with its range."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from saddlescape.errors import InputError
from saddlescape.methods.recipe import Recipe


@dataclass(frozen=True)
class Range:
    """One searched field: ``path`` as --set has it ("train.weight_decay"), between ``low`` and ``high``."""

    path: str
    low: float
    high: float
    log: bool

    def setting(self, value: float) -> str:
        return f"{self.path}={value:.6g}"


# Ranges around the published values. Weight decay and rho: the sweeps of DDC's re-runs (5e-5 .. 5e-4) and of the
# paper's code (0.05 .. 0.8), a factor wider; losses: the ranges of their own papers' searches.
FIELDS = {"weight_decay": (5e-5, 5e-3, True), "rho": (0.02, 1.0, True)}
LOSS_OPTIONS = {
    "vs": {"gamma": (0.0, 0.4, False), "tau": (0.5, 2.0, False)},
    "la": {"tau": (0.5, 2.0, False)},
    "ldam": {"max_margin": (0.1, 0.8, False)},
    "focal": {"gamma": (0.5, 3.0, False)},
}


def default_space(recipe: Recipe) -> list[Range]:
    """Weight decay, rho where there is one, and the loss's own numbers: those of the first stage."""
    stage = recipe.stages[0]
    ranges = [Range(f"{stage.name}.weight_decay", *FIELDS["weight_decay"])]
    if stage.rho:
        factor = max(stage.rho) / 0.5 if stage.optimizer in ("asam", "momentum-sam") else 1.0
        low, high, log = FIELDS["rho"]
        ranges.append(Range(f"{stage.name}.rho", low * factor, high * factor, log))
    for option, (low, high, log) in LOSS_OPTIONS.get(stage.loss, {}).items():
        ranges.append(Range(f"{stage.name}.loss_options.{option}", low, high, log))
    return ranges


def parse_range(text: str) -> Range:
    """ "train.lr=0.01..1:log" -> a range.

    Raises:
        InputError: not of that form, or an empty range.
    """
    match = re.fullmatch(r"\s*([\w\-]+\.[\w.\-]+)\s*=\s*([^.\s][^:\s]*?)\.\.([^:\s]+?)(:log)?\s*", text)
    try:
        if match is None:
            raise ValueError
        low, high = float(match[2]), float(match[3])
    except ValueError:
        raise InputError(f"--search {text}: expected stage.field=low..high, e.g. train.lr=0.02..0.5:log") from None
    log = match[4] is not None
    if not (math.isfinite(low) and math.isfinite(high) and low < high) or (log and low <= 0):
        raise InputError(f"--search {text}: an empty range{' (log needs numbers above 0)' if log else ''}")
    return Range(match[1], low, high, log)


def space(recipe: Recipe, searches: Sequence[str]) -> list[Range]:
    """The ranges asked for, or the default ones. Raises InputError where one field is named twice."""
    ranges = [parse_range(text) for text in searches] or default_space(recipe)
    paths = [one.path for one in ranges]
    for path in paths:
        if paths.count(path) > 1:
            raise InputError(f"--search names {path} twice")
    return ranges
