"""``curvature.json``: the extremes, trace and parts of the Hessian of each class and group."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from saddlescape.records.record import MeasuredFile, Record


class GaussNewton(Record, frozen=True, kw_only=True):
    """The Gauss-Newton part, good to 1 % or not ``converged`` (None: unknown, in files of former versions)."""

    lambda_max: float | None = None
    residual: float | None = None
    rounding: float | None = None
    converged: bool | None = None


class ResidualPart(Record, frozen=True, kw_only=True):
    """The rest of the Hessian, as ``GaussNewton``."""

    lambda_min: float | None = None
    lambda_max: float | None = None
    residual_min: float | None = None
    residual_max: float | None = None
    rounding: float | None = None
    converged_min: bool | None = None
    converged_max: bool | None = None


class Shares(Record, frozen=True, kw_only=True):
    """How v'Hv divides between the Gauss-Newton part and the rest."""

    gauss_newton: float
    residual_part: float


class Figures(Record, frozen=True, kw_only=True):
    """What is measured of one mean loss. A value is off by its residual + ``rounding`` at most.

    ``nonconvexity`` None: lambda_max is not positive beyond rounding. ``trace`` to ``negative_mass``, ``steps``,
    ``kind``, ``mode`` and ``file``: None where only the extremes were measured; ``gauss_newton`` to
    ``at_lambda_max``: None where the parts of the Hessian were not.
    """

    group: str | None = None
    training_images: int | None = None
    lambda_min: float
    lambda_max: float
    nonconvexity: float | None = None
    residual_min: float | None = None
    residual_max: float | None = None
    rounding: float | None = None
    converged: bool = False
    converged_min: bool = False
    converged_max: bool = False
    negative_curvature_proved: bool = False
    trace: float | None = None
    trace_stderr: float | None = None
    negative_mass: list[float] | None = None
    num_samples: int | None = None
    num_available: int | None = None
    sampling_error: float | None = None
    num_params: int | None = None
    loss: float | None = None
    gradient_norm: float | None = None
    steps: int | None = None
    products: int | None = None
    kind: str | None = None
    mode: str | None = None
    dtype: str = ""
    notes: list[str] = []
    file: str | None = None  # of the spectrum, within the run
    gauss_newton: GaussNewton | None = None
    residual_part: ResidualPart | None = None
    at_lambda_min: Shares | None = None
    at_lambda_max: Shares | None = None
    seconds: float | None = None


class Curvature(Figures, frozen=True, kw_only=True):
    """A class in ``curvature.json``."""

    name: str = msgspec.field(name="class", default="")
    label: int | None = None


class GroupCurvature(Figures, frozen=True, kw_only=True):
    """The mean loss over the images of a group in ``curvature.json``."""

    labels: list[int] = []


class CurvatureFile(MeasuredFile, kw_only=True):
    NAME: ClassVar[str] = "curvature.json"

    format: str = "saddlescape-curvature-1"
    stage: int = 0
    epoch: int = 0
    epochs_of_stage: int | None = None
    classes: list[Curvature] = []
    groups: list[GroupCurvature] = []
