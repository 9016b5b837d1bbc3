"""A row of ``curvature-course.jsonl``: a class or a group at one epoch."""

from __future__ import annotations

import msgspec

from saddlescape.records.record import Record


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
