"""``curvature.json``: the extremes, trace and parts of the Hessian of each class and group."""

from __future__ import annotations

from typing import Any

import msgspec

from saddlescape.records.record import Record


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
