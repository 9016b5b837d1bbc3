"""``config.toml``, as far as a report reads it."""

from __future__ import annotations

from saddlescape.records.record import Record


class StagePlan(Record, frozen=True, kw_only=True):
    """A ``[[stages]]`` table of ``config.toml``: what pictures need of it; ``epochs`` 0 trains nothing."""

    name: str = "train"
    epochs: int = 0
    reweight: str = "none"
    reweight_start: int = 0
    early_loss: str = ""
    loss_start: int = 0
    rho_start: int = 0
    optimizer: str = "sgd"
    rho: list[float] = []


class DataPlan(Record, frozen=True, kw_only=True):
    name: str = ""
    imbalance: float | None = None
    draw_seed: int = 0


class Plan(Record, frozen=True, kw_only=True):
    """``config.toml``."""

    method: str
    model: str = ""
    seed: int = 0
    device: str = ""
    precision: str = ""
    data: DataPlan = DataPlan()
    stages: list[StagePlan] = []
