"""Whole numbers on the command line: ``--epochs 1.5`` is a mistake, not 2 (cyclopts would round it)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter


def whole(type_: Any, tokens: Sequence[Any]) -> int:
    """Read one token as an integer. Raises ValueError, which cyclopts turns into its one line."""
    text = tokens[0].value
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f'"{text}" is not a whole number') from None
    if abs(number) >= 2**63:
        raise ValueError(f'"{text}" is too large')
    return number


Whole = Annotated[int, Parameter(converter=whole)]
