"""The one kind of error that a person can repair: one line that says what, where and how."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: the message is one line that says what is wrong, where, and how to repair it.

    The command line prints it without a traceback and exits with 2; in a library call it is a ``ValueError``.
    """


class MissingExtraError(InputError, ImportError):
    """A feature needs an optional package that is not installed."""

    def __init__(self, feature: str, extra: str, package: str) -> None:
        super().__init__(
            f"{feature} needs the package {package!r}, which is not installed: pip install 'saddlescape[{extra}]'"
        )
        self.feature, self.extra, self.package = feature, extra, package


def near(word: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown name: ``did you mean ldam?``, or ``known are ce, ldam``."""
    names = list(known)
    close = difflib.get_close_matches(word.lower(), names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(names)}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 file``, ``1,200 files``: a number with its noun, for messages."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float | None, unknown: str = "n/a") -> str:
    """``40 s``, ``7 min``, ``2.5 h``, or ``unknown`` for None."""
    if seconds is None:
        return unknown
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
