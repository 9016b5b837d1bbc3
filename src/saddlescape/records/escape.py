"""``escape.json``: training continued from one checkpoint with several optimisers."""

from __future__ import annotations

from typing import ClassVar

from saddlescape.records.course import ClassPoint
from saddlescape.records.record import MeasuredFile, Record


class ArmEpoch(Record, frozen=True, kw_only=True):
    """``epoch`` 0 is the start. Percent on the test images; curvature is the mean over ``classes``."""

    epoch: int
    train_loss: float | None = None
    accuracy: float | None = None
    head: float | None = None
    mid: float | None = None
    tail: float | None = None
    lambda_min: float | None = None
    lambda_max: float | None = None
    nonconvexity: float | None = None
    loss: float | None = None
    converged: bool = False
    classes: list[ClassPoint] = []


class Arm(Record, frozen=True, kw_only=True):
    """``problem``: how its training failed, else None."""

    arm: str
    optimizer: str = ""
    rho: float | None = None
    seed: int = 0
    problem: str | None = None
    epochs: list[ArmEpoch] = []
    seconds: float | None = None
    curvature_share: float | None = None


class TailGain(Record, frozen=True, kw_only=True):
    """The best arm of an optimiser, and its gain in tail accuracy over SGD."""

    arm: str
    tail_gain: float


class Verdict(Record, frozen=True, kw_only=True):
    answer: str = ""
    text: str = ""
    sam: TailGain | None = None
    momentum_sam: TailGain | None = None
    gains: dict[str, float] = {}
    noise: float | None = None
    noise_from: str = ""
    seeds: list[int] = []
    late_epochs: int | None = None
    late_lambda_min: dict[str, float | None] = {}
    late_loss: dict[str, float | None] = {}


class EscapeFile(MeasuredFile, kw_only=True):
    NAME: ClassVar[str] = "escape.json"

    format: str = "saddlescape-escape-1"
    precision: str = ""
    arms: list[Arm] = []
    verdict: Verdict | None = None
