"""Read every file of a set once, in worker processes: which cannot be decoded, how large pictures are, which are alike.

What is kept of a picture is 16 bytes of its hash and one number, so half a million need 10 MB.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saddlescape.data.cores import usable_cores
from saddlescape.data.reader import collect_remarks, open_image, read_file
from saddlescape.data.sources.found import Progress
from saddlescape.data.types import ArraySplit, EncodedSplit, FileSplit, Images
from saddlescape.errors import InputError

_CHUNK = 32
_FEW = 512  # fewer files are read on threads: starting processes would take longer


@dataclass(frozen=True)
class Inspection:
    """``hashes`` of the encoded bytes, uint8 [N, 16] (zeros for unreadable ones); ``sides``, the shorter side in
    pixels, int32 [N] (0 for unreadable ones); ``unreadable``: position -> reason; ``remarks`` on readable ones."""

    hashes: NDArray[np.uint8]
    sides: NDArray[np.int32]
    unreadable: dict[int, str]
    remarks: list[str]


def inspect(
    pictures: Images,
    *,
    what: str = "checking images",
    workers: int | None = None,
    progress: Progress | None = None,
    white_level: float = 0.0,
) -> Inspection:
    """Decode and hash every picture; ``workers`` None: one a core. Raises ``InputError`` if a worker is killed."""
    count = len(pictures)
    found = Inspection(np.zeros((count, 16), np.uint8), np.zeros(count, np.int32), {}, [])
    for start, rows in _chunks(pictures, workers, white_level):
        for i, (digest, side, reason, remarks) in enumerate(rows, start=start):
            found.remarks.extend(remarks)
            if reason:
                found.unreadable[i] = reason
            else:
                found.hashes[i], found.sides[i] = np.frombuffer(digest, np.uint8), side
        if progress:
            progress(what, start + len(rows), count)
    return found


def same(hashes: NDArray[np.uint8], readable: NDArray[np.bool_]) -> list[list[int]]:
    """Groups of two or more readable pictures with equal hashes, each ascending, ordered by their first member."""
    rows = np.flatnonzero(readable)
    keys = np.ascontiguousarray(hashes[rows]).view("V16").ravel()
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(rows) else np.empty(0, int)
    groups = np.split(rows[order], first[1:]) if len(rows) else []
    return sorted((group.tolist() for group in groups if len(group) > 1), key=lambda group: group[0])


Row = tuple[bytes, int, str, list[str]]
"""Hash, shorter side, why the picture cannot be read ("" where it can), and remarks where it can."""


def _chunks(pictures: Images, workers: int | None, white_level: float) -> Iterator[tuple[int, list[Row]]]:
    starts = range(0, len(pictures), _CHUNK)
    if isinstance(pictures, ArraySplit):
        for start in starts:
            yield start, [_of_array(pictures, i) for i in range(start, min(start + _CHUNK, len(pictures)))]
        return
    number = usable_cores() if workers is None else workers
    if number < 1:
        raise InputError(f"a check needs at least one worker, got {number}")
    of_bytes, of_files = (functools.partial(read, white_level=white_level) for read in (_of_bytes, _of_files))
    if isinstance(pictures, EncodedSplit):
        loaded = pictures.loaded()
        with ThreadPoolExecutor(number) as threads:
            yield from _mapped(threads, starts, number, lambda start: (of_bytes, _encoded(loaded, start)))
        return
    if len(pictures) < _FEW:
        with ThreadPoolExecutor(number) as threads:
            yield from _mapped(threads, starts, number, lambda start: (of_files, _names(pictures, start)))
        return
    with ProcessPoolExecutor(number, initializer=_quiet) as processes:
        try:
            yield from _mapped(processes, starts, number, lambda start: (of_files, _names(pictures, start)))
        except BrokenProcessPool:
            raise InputError(
                "a worker of the check was killed, most often for want of memory: try again with fewer (--workers 1)"
            ) from None
        finally:
            processes.shutdown(wait=False, cancel_futures=True)


def _mapped(
    pool: Executor, starts: Sequence[int], workers: int, job: Callable[[int], tuple[Callable[[Any], list[Row]], Any]]
) -> Iterator[tuple[int, list[Row]]]:
    """Results in order, with no more than a few pieces a worker under way: arguments do not pile up."""
    waiting: deque[tuple[int, Future[list[Row]]]] = deque()
    ahead = iter(starts)

    def submit(pieces: Iterable[int]) -> None:
        for start in pieces:
            function, argument = job(start)
            waiting.append((start, pool.submit(function, argument)))

    submit(itertools.islice(ahead, 4 * workers))
    while waiting:
        start, future = waiting.popleft()
        rows = future.result()
        submit(itertools.islice(ahead, 1))
        yield start, rows


def _quiet() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _names(pictures: FileSplit, start: int) -> list[str]:
    return [pictures.name(i) for i in range(start, min(start + _CHUNK, len(pictures)))]


def _encoded(pictures: EncodedSplit, start: int) -> list[tuple[str, bytes]]:
    return [(pictures.name(i), pictures.content(i)) for i in range(start, min(start + _CHUNK, len(pictures)))]


def _of_files(paths: Sequence[str], white_level: float) -> list[Row]:
    rows = []
    for path in paths:
        try:
            rows.append(_row(read_file(path), path, white_level))
        except InputError as error:
            rows.append((b"", 0, str(error), []))
    return rows


def _of_bytes(entries: Sequence[tuple[str, bytes]], white_level: float) -> list[Row]:
    return [_row(content, name, white_level) for name, content in entries]


def _row(content: bytes, name: str, white_level: float) -> Row:
    with collect_remarks() as remarks:
        try:
            picture = open_image(content, name=name, white_level=white_level)
        except InputError as error:
            return b"", 0, str(error), []
    return hashlib.blake2b(content, digest_size=16).digest(), min(picture.size), "", remarks


def _of_array(pictures: ArraySplit, i: int) -> Row:
    return hashlib.blake2b(pictures.content(i), digest_size=16).digest(), min(pictures.size(i)), "", []
