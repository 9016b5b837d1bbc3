"""What the records of a run folder share: one Struct is what a file holds, for its writer and for its readers.

Wrong types are refused by name; unknown keys are ignored. Figures that are missing or not finite are null.
"""

from __future__ import annotations

import math
import re
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec

from saddlescape.errors import InputError
from saddlescape.records.files import read_json, write_json

LARGEST = sys.float_info.max  # a bound that infinity is beyond


def may_be(description: str, **limits: Any) -> msgspec.Meta:
    """Bounds of a field (``ge``, ``gt``, ``le``, ``lt``) and the words for them, which messages have."""
    return msgspec.Meta(description=description, **limits)


def one_of(*words: str) -> msgspec.Meta:
    """The words that a field may hold; ``extra["words"]`` lists them."""
    pattern = rf"\A(?:{'|'.join(map(re.escape, words))})\Z"
    return msgspec.Meta(
        description=f"one of {', '.join(map(repr, words))}", pattern=pattern, extra={"words": words}
    )


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Figures that may be missing are None."""


class MeasuredFile(msgspec.Struct, kw_only=True):
    """What all files of ``saddlescape.measure`` hold, which grow: what was measured, and where.

    ``settings`` is all that moves a figure.
    """

    NAME: ClassVar[str]  # in a run folder

    format: str
    settings: dict[str, Any] = {}
    method: str = ""
    dataset: str = ""
    model: str = ""
    checkpoint: str = ""
    device: str = ""
    notes: list[str] = []
    class_names: list[str] = []
    group_labels: Any = None
    version: str = ""  # of saddlescape
    torch: str = ""

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all. Raises InputError where the disk refuses."""
        write_json(path, finite(msgspec.to_builtins(self)))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises InputError where the file is missing, not JSON or damaged."""
        return convert(read_json(path), cls, path.name)  # type: ignore[no-any-return]


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
    return [finite(value) for value in raw] if isinstance(raw, (list, tuple)) else raw


def violation(raw: Any, kind: Any) -> tuple[str, str, str] | None:
    """The first value in ``raw`` that the bounds and choices declared in ``kind`` forbid; None where all are allowed.

    Returns:
        Its path ("stages.0.lr"), the value as text, and what is allowed.

    Raises:
        msgspec.ValidationError: a missing key, or a wrong type at a field without bounds.
    """
    try:
        msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        place = re.search(r" - at `\$(.*)`$", str(error))
        if place is None:
            raise
        path = []
        for name, index in re.findall(r"\.(\w+)|\[([\d.]+)\]", place[1]):
            if name:
                key, kind = name, typing.get_type_hints(kind, include_extras=True)[name]
            elif index == "...":
                kind = typing.get_args(kind)[1]
                key = next(key for key, value in raw.items() if not _fits(value, kind))
            else:
                key, kind = int(index), typing.get_args(kind)[0]
            path.append(str(key))
            raw = raw[key]
        allowed = _allowed(kind)
        if not allowed:
            raise
        return ".".join(path), f"{raw:g}" if isinstance(raw, float) else repr(raw), allowed
    return None


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _allowed(kind: Any) -> str:
    """The words for what a field of type ``kind`` may be; "" where any value of the type may stand."""
    is_annotated = typing.get_origin(kind) is typing.Annotated
    each = (kind,) if is_annotated else (kind, *typing.get_args(kind))
    metas = [meta for one in each for meta in getattr(one, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
    if not metas and is_annotated:  # by something else, such as the group of a flag
        return _allowed(typing.get_args(kind)[0])
    return str(metas[0].description) if metas else ""
