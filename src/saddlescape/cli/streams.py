"""Standard output and standard error as they can be: closed, full, a pipe nobody reads, or of a small alphabet."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Any


class OutputError(Exception):
    """Standard output cannot be written; ``cause`` says why. Not an OSError, which others handle as that of a file."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Output:
    """Standard output: an error is raised as ``OutputError``."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return int(self._try(self._stream.write, text) or 0)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, action: Any, *arguments: Any) -> Any:
        try:
            return action(*arguments)
        except OSError as error:
            raise OutputError(error) from error


class Notes(Output):
    """Standard error: what cannot be written is dropped, since no work may end for it."""

    def _try(self, action: Any, *arguments: Any) -> Any:
        with contextlib.suppress(OSError):
            return action(*arguments)


def open_all() -> None:
    """Make standard output and error usable: a closed one leads nowhere; a letter it does not know is escaped."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # else the next file opened would receive what is printed
        pass
    os.close(number)
    for name, kind in (("stdout", Output), ("stderr", Notes)):
        stream = getattr(sys, name) or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  it stays open
        if isinstance(stream, io.TextIOWrapper):  # not a notebook's, nor one that a caller has put there to read
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, stream if isinstance(stream, kind) else kind(stream))


def close() -> None:
    """Write what standard output holds back; where it cannot be, leave nothing for Python to fail at later.

    Raises:
        OutputError: it could not be written.
    """
    try:
        sys.stdout.flush()
    except OutputError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
