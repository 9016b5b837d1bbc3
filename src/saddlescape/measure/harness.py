"""How everything is measured: the file under its settings, then for each item measure, add, save and print a line."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch

import saddlescape
from saddlescape.errors import duration
from saddlescape.parallel.ranks import ALONE, Ranks
from saddlescape.records import files
from saddlescape.records.record import MeasuredFile

SPECTRA = "curvature"  # folder of a run: spectra, and the locks of what is being measured
SHARE = 0.05  # of the time may go into writing
Say = Callable[[str], None]
F = TypeVar("F", bound=MeasuredFile)
Item = TypeVar("Item")
Row = TypeVar("Row")


def quiet(line: str) -> None:
    """A ``Say`` that prints nothing."""


class Growing(Generic[F]):
    """A file of measurements that grows, held by one process; use it in ``with``.

    ``content`` is what the file holds where its format and settings are those of ``fresh``; else it is ``fresh``, and
    the former file is renamed. ``beside``: a file that belongs to it and is renamed with it.

    Each write is followed by a pause of 19 times what it took: a file of n rows that was written after each of them
    would cost n^2. A kill loses at most the pause's work, which for a small file is less than a second.

    Raises:
        InputError: another process is writing the file, it is damaged, or the folder cannot be written.
    """

    def __init__(self, path: Path, fresh: F, run: Path, say: Say = quiet, *, beside: Path | None = None) -> None:
        self.path, self.content, self.shown = path, fresh, beside or path
        self._due, self._stale = 0.0, False
        files.make_folder(path.parent)
        # A lock of its own: a run that is being tracked can be measured in other ways meanwhile.
        lock = run / SPECTRA / f".{path.stem}"
        files.make_folder(lock)
        fresh.version, fresh.torch = saddlescape.__version__, str(torch.__version__)
        with ExitStack() as held:
            held.enter_context(files.locked(lock))
            if path.exists():
                self._take(type(fresh).read(path), say)
            self._held = held.pop_all()

    def _take(self, old: F, say: Say) -> None:
        before, now = old.settings | {"format": old.format}, self.content.settings | {"format": self.content.format}
        changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if not changed:
            self.content = old
            return
        moved = [set_aside(each) for each in dict.fromkeys((self.path, self.shown)) if each.exists()]
        say(f"measuring again, because of another {', '.join(changed)}; the former is now {moved[-1]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is left, and let go of the file."""
        try:
            self.flush()
        finally:
            self._held.close()

    def changed(self) -> None:
        """Mark ``content`` as changed; it is written if that is due."""
        self._stale = True
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Write ``content`` if it has changed since it was last written. Raises InputError where it cannot be."""
        if not self._stale:
            return
        began = time.monotonic()
        self.content.save(self.path)
        ended = time.monotonic()
        self._due, self._stale = ended + (1 / SHARE - 1) * (ended - began), False


def measure_each(
    file: Growing[Any] | None,
    items: Sequence[Item],
    measure: Callable[[Item, Clock], Row],
    add: Callable[[Item, Row], str],
    say: Say = quiet,
    *,
    sizes: Sequence[int] | None = None,
    ranks: Ranks = ALONE,
) -> None:
    """Measure the items one after the other; ``add`` enters a row into ``file.content`` and returns its line,
    or "" for none.

    With several ``ranks`` all of them call this, the first with the file and the others with None: each measures some
    of the items, whole, by their ``sizes`` (default: alike), and the first adds all the rows.
    """
    if not items and file is not None:
        say(f"already measured: {file.shown}")
    sizes = [1] * len(items) if sizes is None else sizes
    mine = [number for number, owner in enumerate(spread(sizes, ranks.size)) if owner == ranks.rank]
    clock = Clock([sizes[number] for number in mine])
    missing = set(range(len(items)))

    def enter(number: int, row: Row) -> None:
        assert file is not None
        missing.remove(number)
        line = add(items[number], row)
        file.changed()
        if line:
            left = f", about {duration(clock.left(), 'an unknown time')} left" if missing else ""
            say(f"{line}; {len(items) - len(missing)} of {len(items)}{left}")

    def collect(wait: bool) -> None:
        for number in sorted(missing - set(mine)):
            text = ranks.get(f"row-{number}", wait)
            if text is not None:
                enter(number, pickle.loads(bytes.fromhex(text)))

    for number in mine:
        row = measure(items[number], clock)
        clock.finish()
        if file is None:
            ranks.put(f"row-{number}", pickle.dumps(row).hex())
        else:
            enter(number, row)
            collect(wait=False)
    if file is not None:
        collect(wait=True)


def spread(sizes: Sequence[int], processes: int) -> list[int]:
    """Which process takes each item: the largest first, each to the process that has least to do so far."""
    owners, loads = [0] * len(sizes), [0] * processes
    for number in sorted(range(len(sizes)), key=lambda each: -sizes[each]):
        owners[number] = loads.index(min(loads))
        loads[owners[number]] += sizes[number]
    return owners


class Clock:
    """Time left, from the sizes of what is done; ``part`` of the present item is done, 0 to 1."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes, self.done, self.part = sizes, 0, 0.0
        self._began = time.monotonic()

    def finish(self) -> None:
        self.done, self.part = self.done + 1, 0.0

    def left(self) -> float | None:
        """Seconds; None where nothing is done yet."""
        behind = sum(self.sizes[: self.done]) + (self.part * self.sizes[self.done] if self.part else 0)
        if not behind:
            return None
        return (time.monotonic() - self._began) / behind * (sum(self.sizes) - behind)


def set_aside(path: Path) -> Path:
    """Rename a file to the first free ``name.N.ending``, so that nothing measured is lost."""
    number = 1
    while (moved := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    path.rename(moved)
    return moved
