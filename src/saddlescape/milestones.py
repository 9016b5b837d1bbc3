"""When something begins within a stage: class weights, the stage's own loss, SAM. Plain numbers, so reports use it too.

Epochs count from 0.
"""

from __future__ import annotations

from typing import Protocol


class Timed(Protocol):
    """The fields of a stage that decide when something begins."""

    @property
    def reweight(self) -> str: ...
    @property
    def reweight_start(self) -> int: ...
    @property
    def early_loss(self) -> str: ...
    @property
    def loss_start(self) -> int: ...
    @property
    def rho_start(self) -> int: ...


def reweighting_start(stage: Timed) -> int | None:
    """The first epoch with class weights of the stage; None where it has none in any epoch."""
    return {"drw": stage.reweight_start, "always": 0, "power": 0}.get(stage.reweight)


def is_early(stage: Timed, epoch: int) -> bool:
    """Whether ``early_loss`` stands in for the stage's own loss in this epoch."""
    return bool(stage.early_loss) and epoch < stage.loss_start


def beginnings(stage: Timed) -> list[tuple[int, str]]:
    """(first epoch, what begins there) for whatever does not begin with the stage, in the order of a step's parts."""
    found = []
    start = reweighting_start(stage)
    if start:
        found.append((start, "DRW"))
    if is_early(stage, 0):
        found.append((stage.loss_start, "its loss"))
    if stage.rho_start:
        found.append((stage.rho_start, "SAM"))
    return found
