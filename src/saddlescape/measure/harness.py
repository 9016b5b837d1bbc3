"""A JSON file that grows by one row at a time, thousands of times, without the writing becoming the work."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from saddlescape.records import files

SHARE = 0.05  # of the time may go into writing


class PacedFile:
    """Writes ``value`` whole, now and then: each write is followed by a pause of 19 times what it took.

    A file of n rows that was written after each of them would cost n^2; here a kill loses at most the pause's work,
    which for a small file is less than a second. ``flush`` what is left, in a ``finally``.
    """

    def __init__(self, path: Path, value: Any) -> None:
        self.path, self.value = path, value
        self._due, self._stale = 0.0, False

    def changed(self) -> None:
        """Say that ``value`` has changed; it is written if that is due."""
        self._stale = True
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Write ``value`` if it has changed since it was last written. Raises InputError where it cannot be."""
        if not self._stale:
            return
        began = time.monotonic()
        files.write_json(self.path, self.value)
        ended = time.monotonic()
        self._due, self._stale = ended + (1 / SHARE - 1) * (ended - began), False
