"""The rows of a run's files, as far as a report reads them. Wrong types are refused by name; other keys are ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from saddlescape.errors import InputError


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Figures that may be missing are None."""


class Scores(Record, frozen=True, kw_only=True):
    """Percent, on the test images after one epoch."""

    accuracy: float | None = None
    balanced_accuracy: float | None = None
    loss: float | None = None
    ece: float | None = None
    per_class: list[float | None] | None = None
    head: float | None = None
    mid: float | None = None
    tail: float | None = None
    images: int | None = None


class Epoch(Record, frozen=True, kw_only=True):
    """A row of ``metrics.jsonl``; ``epoch`` is 0-based within its stage."""

    stage: int = 0
    epoch: int
    lr: float | None = None
    rho: float | None = None
    train_loss: float | None = None
    train_accuracy: float | None = None
    seconds: float | None = None
    test: Scores | None = None


class Result(Record, frozen=True, kw_only=True):
    """``result.json``."""

    method: str
    dataset: str
    seed: int = 0
    imbalance: float | None = None
    model: str = ""
    epochs: int = 0
    accuracy: float | None = None
    head: float | None = None
    mid: float | None = None
    tail: float | None = None
    balanced_accuracy: float | None = None
    ece: float | None = None
    per_class: list[float | None] = []
    classes: list[str] = []
    class_counts: list[int] = []
    best_accuracy: float | None = None
    best_epoch: int | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    device: str = ""
    precision: str = ""
    compiled: bool = False
    draw_hash: str = ""
    held_hash: str = ""
    skipped_images: int = 0
    version: str = ""
    torch: str = ""
    settings: list[str] = []
    groups: Any = None


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


class Parts(Record, frozen=True, kw_only=True):
    """How v'Hv divides between the Gauss-Newton part and the rest."""

    gauss_newton: float
    residual_part: float


class Largest(Record, frozen=True, kw_only=True):
    lambda_max: float | None = None


class Curvature(Record, frozen=True, kw_only=True):
    """A class or a group in ``curvature.json``. ``nonconvexity`` None: infinite."""

    name: str = msgspec.field(name="class", default="")
    label: int | None = None
    group: str | None = None
    lambda_min: float
    lambda_max: float
    nonconvexity: float | None = None
    residual_min: float | None = None
    residual_max: float | None = None
    converged_min: bool = False
    converged_max: bool = False
    negative_curvature_proved: bool = False
    trace: float | None = None
    trace_stderr: float | None = None
    negative_mass: list[float] | None = None
    num_samples: int | None = None
    num_available: int | None = None
    num_params: int | None = None
    training_images: int | None = None
    sampling_error: float | None = None
    loss: float | None = None
    gradient_norm: float | None = None
    dtype: str = ""
    file: str | None = None
    gauss_newton: Largest | None = None
    at_lambda_min: Parts | None = None
    at_lambda_max: Parts | None = None


class CurvatureFile(Record, frozen=True, kw_only=True):
    checkpoint: str = ""
    stage: int = 0
    epoch: int = 0
    classes: list[Curvature] = []
    groups: list[Curvature] = []
    settings: dict[str, Any] = {}
    group_labels: Any = None
    notes: list[str] = []


class Moment(Record, frozen=True, kw_only=True):
    """A row of ``curvature-course.jsonl``: of a class where it has a ``label``, else a group's mean."""

    stage: int = 0
    epoch: int  # whole epochs done in the stage
    name: str = msgspec.field(name="class", default="")
    label: int | None = None
    group: str | None = None
    lambda_min: float | None = None
    lambda_max: float | None = None
    nonconvexity: float | None = None
    loss: float | None = None
    converged: bool = False
    proved: bool = False
    residual_min: float | None = None
    residual_max: float | None = None
    gauss_newton: float | None = None  # v'Gv at lambda_min, where it was measured
    train_accuracy: float | None = None
    test_accuracy: float | None = None


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


class ArmEpoch(Record, frozen=True, kw_only=True):
    epoch: int
    accuracy: float | None = None
    head: float | None = None
    mid: float | None = None
    tail: float | None = None
    lambda_min: float | None = None
    lambda_max: float | None = None
    nonconvexity: float | None = None
    loss: float | None = None
    converged: bool = False


class Arm(Record, frozen=True, kw_only=True):
    arm: str
    optimizer: str = ""
    rho: float | None = None
    seed: int = 0
    problem: str | None = None
    epochs: list[ArmEpoch] = []


class Verdict(Record, frozen=True, kw_only=True):
    answer: str = ""
    text: str = ""


class EscapeFile(Record, frozen=True, kw_only=True):
    arms: list[Arm] = []
    verdict: Verdict | None = None
    group_labels: Any = None


class SurfaceFact(Record, frozen=True, kw_only=True):
    label: int
    name: str = msgspec.field(name="class", default="")
    slopes: list[float] = []
    curvatures: list[float] = []


class SurfaceFacts(Record, frozen=True, kw_only=True):
    surfaces: list[SurfaceFact] = []
    settings: dict[str, Any] = {}


def convert(raw: Any, kind: type[Any], where: str) -> Any:
    """``raw`` (parsed JSON or TOML) as a record; figures that are not finite count as missing.

    Raises:
        InputError: a wrong type or a missing key, named with its place.
    """
    try:
        return msgspec.convert(finite(raw), kind)
    except msgspec.ValidationError as problem:
        raise InputError(f"{where} is damaged: {problem}; delete it and measure again") from None


def finite(raw: Any) -> Any:
    if isinstance(raw, float):
        return raw if math.isfinite(raw) else None
    if isinstance(raw, Mapping):
        return {str(key): finite(value) for key, value in raw.items()}
    return [finite(value) for value in raw] if isinstance(raw, list) else raw
