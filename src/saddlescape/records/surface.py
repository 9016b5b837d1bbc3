"""The JSON beside a surface: what was measured of each class."""

from __future__ import annotations

from typing import Any

import msgspec

from saddlescape.records.record import Record


class SurfaceFact(Record, frozen=True, kw_only=True):
    label: int
    name: str = msgspec.field(name="class", default="")
    slopes: list[float] = []
    curvatures: list[float] = []


class SurfaceFacts(Record, frozen=True, kw_only=True):
    surfaces: list[SurfaceFact] = []
    settings: dict[str, Any] = {}
