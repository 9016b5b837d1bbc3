"""The JSON beside a surface: what was measured of each class."""

from __future__ import annotations

import msgspec

from saddlescape.records.record import MeasuredFile, Record


class SurfaceFact(Record, frozen=True, kw_only=True):
    """``center``: the loss at the weights; ``slopes`` and ``curvatures`` along each direction there."""

    label: int
    name: str = msgspec.field(name="class", default="")
    center: float | None = None
    lowest: float | None = None
    highest: float | None = None
    slopes: list[float] = []
    curvatures: list[float] = []


class SurfaceFacts(MeasuredFile, kw_only=True):
    format: str = "saddlescape-surface-facts-1"
    num_samples: int = 0
    num_available: int = 0
    surfaces: list[SurfaceFact] = []
