"""``rho-advice.json``: from which radius SAM amplifies the negative curvature of a class."""

from __future__ import annotations

from typing import Any

import msgspec

from saddlescape.records.record import Record


class Radius(Record, frozen=True, kw_only=True):
    rho: float
    gain: float | None = None
    sign: int = 1
    factor: float | None = None
    predicted_gain: float | None = None


class Gain(Record, frozen=True, kw_only=True):
    """SAM's gain over one kind of mini-batch."""

    problem: str | None = None
    gradient_norm: float | None = None
    measured_threshold: float | None = None
    predicted_threshold: float | None = None
    amplified_rho: list[float] = []
    rho: list[Radius] = []


class Advice(Record, frozen=True, kw_only=True):
    name: str = msgspec.field(name="class", default="")
    label: int
    group: str | None = None
    lambda_min: float
    converged: bool = False
    negative_curvature_proved: bool = False
    class_batches: Gain | None = None
    training_batches: Gain | None = None


class TrainedWith(Record, frozen=True, kw_only=True):
    optimizer: str = ""
    rho: list[float] = []


class AdviceFile(Record, frozen=True, kw_only=True):
    checkpoint: str = ""
    classes: list[Advice] = []
    trained_with: TrainedWith = TrainedWith()
    hint: dict[str, Any] | None = None
    caveats: list[str] = []
