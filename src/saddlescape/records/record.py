"""What the records of a run folder share. Wrong types are refused by name; unknown keys are ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from saddlescape.errors import InputError


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Figures that may be missing are None."""


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
