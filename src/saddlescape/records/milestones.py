"""When something begins within a stage: class weights, the stage's own loss, SAM. Epochs count from 0."""

from __future__ import annotations

from saddlescape.records.config import Stage


def reweighting_start(stage: Stage) -> int | None:
    """The first epoch with class weights of the stage; None where it has none in any epoch."""
    return {"drw": stage.reweight_start, "always": 0, "power": 0}.get(stage.reweight)


def is_early(stage: Stage, epoch: int) -> bool:
    """Whether ``early_loss`` stands in for the stage's own loss in this epoch."""
    return bool(stage.early_loss) and epoch < stage.loss_start


def beginnings(stage: Stage) -> list[tuple[int, str]]:
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
