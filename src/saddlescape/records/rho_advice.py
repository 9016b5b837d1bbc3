"""``rho-advice.json``: from which radius SAM amplifies the negative curvature of a class."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from saddlescape.records.record import MeasuredFile, Record


class Radius(Record, frozen=True, kw_only=True):
    rho: float
    gain: float | None = None
    sign: int = 1
    factor: float | None = None
    predicted_gain: float | None = None
    predicted_sign: int | None = None


class Gain(Record, frozen=True, kw_only=True):
    """SAM's gain over one kind of mini-batch; ``problem``: why there is none. A threshold None: none among the rho."""

    problem: str | None = None
    batches: int | None = None
    gradient_norm: float | None = None
    component_rms: float | None = None
    threshold: float | None = None  # 2 ||g|| / |lambda_min|
    predicted_threshold: float | None = None
    measured_threshold: float | None = None
    amplified_rho: list[float] = []
    rho: list[Radius] = []


class Advice(Record, frozen=True, kw_only=True):
    """A class, with mini-batches of the class alone and with those of training."""

    name: str = msgspec.field(name="class", default="")
    label: int
    group: str | None = None
    num_samples: int | None = None
    num_available: int | None = None
    lambda_min: float
    residual: float | None = None
    rounding: float | None = None
    converged: bool = False
    negative_curvature_proved: bool = False
    class_batches: Gain | None = None
    training_batches: Gain | None = None


class From(Record, frozen=True, kw_only=True):
    """The rho from which one, and from which all of some classes are amplified; None: not within the rho tried."""

    some_from: float | None = None
    all_from: float | None = None


class Hint(Record, frozen=True, kw_only=True):
    """``classes``: those of the tail with proved negative curvature."""

    classes: list[str]
    smallest_rho_tried: float | None = None
    largest_rho_tried: float
    class_batches: From
    training_batches: From


class TrainedWith(Record, frozen=True, kw_only=True):
    optimizer: str = ""
    rho: list[float] = []


class AdviceFile(MeasuredFile, kw_only=True):
    NAME: ClassVar[str] = "rho-advice.json"

    format: str = "saddlescape-rho-advice-1"
    trained_with: TrainedWith = TrainedWith()
    classes: list[Advice] = []
    hint: Hint | None = None
    caveats: list[str] = []
