"""Worker processes that fill batches: one ring of shared memory, one queue of small pieces of work.

Every batch has a slot of the ring and is cut into pieces that whichever worker is free takes up, so the first batch is
there soon, memory is a few batches whatever the number of workers, and nothing is copied on the way: a worker writes
pixels where the loader reads them. A worker is told of a piece by a few integers; which images those are stands in an
array that all share.

Why not torch's ``DataLoader``: there a batch is one worker's work and is allocated anew, every worker holds batches of
its own, and the death of a worker is raised out of whatever line the training loop happens to be at.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import signal
import struct
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from saddlescape.data.finish import Draws, Finish
from saddlescape.data.paths import PackedPaths
from saddlescape.data.readers import Reader, counter_uniform
from saddlescape.errors import InputError

Bad = tuple[int, str, str]
"""Row in the batch, path, reason: a picture that could not be read."""

_TASK = struct.Struct("7q")  # the fields of Piece
_PIECE, _MOST_PIECES = 32, 256
_WATCH = 5.0  # seconds after which a waiting worker looks whether its parent still lives
_REASON = 400


class Piece(NamedTuple):
    """``images`` of one batch, so many: from place ``place`` of epoch ``serial`` into rows of ``slot`` from ``row`` on.
    ``rows`` is the size of the batch and ``seed`` that of the generator of its augmentation."""

    serial: int
    slot: int
    row: int
    place: int
    images: int
    rows: int
    seed: int


@dataclass
class Work:
    """What workers share. ``ring`` uint8 [slots, views, rows, H, W, C]; ``order`` int64 [n]: the position in the split
    of each place of the epoch, ``repeats`` int64 [n]: how often it came before; ``state`` int64 [3]: serial number of
    the epoch and the two words of its key."""

    paths: PackedPaths
    reader: Reader
    finish: Finish | None  # what workers do with a picture after the crop
    ring: Tensor
    order: Tensor
    repeats: Tensor
    state: Tensor

    @classmethod
    def new(
        cls,
        paths: PackedPaths,
        reader: Reader,
        *,
        finish: Finish | None = None,
        slots: int,
        views: int,
        rows: int,
        places: int,
        start_method: str | None,
    ) -> Work:
        """Allocate; ``start_method`` None: for this process alone, else for workers that are started by it."""
        shape = (slots, views, rows, *reader.shape)
        return cls(
            paths, reader, finish, _shared(shape, torch.uint8, start_method),
            *(_shared((length,), torch.int64, start_method) for length in (places, places, 3)),
        )  # fmt: skip

    def begin(self, order: Tensor, key: NDArray[np.uint64]) -> int:
        """Set out on an epoch; whatever is still to be done for an older one is dropped. Its serial number."""
        self.order[:] = order
        self.repeats[:] = torch.from_numpy(repeats(order.numpy()))
        self.state[1:] = torch.from_numpy(key.view(np.int64))
        self.state[0] += 1
        return int(self.state[0])

    def stop(self) -> None:
        """Have workers drop what they are at."""
        self.state[0] += 1

    def fill(self, piece: Piece) -> list[Bad]:
        """Read the images of a piece into their rows; those that cannot be read are returned."""
        state, order, again = self.state.numpy(), self.order.numpy(), self.repeats.numpy()
        out = self.ring[piece.slot].numpy()
        key = state[1:].copy().view(np.uint64)
        draws = self._draws(piece) if self.reader.finishes and self.finish is not None else None
        bad: list[Bad] = []
        for row in range(piece.row, piece.row + piece.images):
            if state[0] != piece.serial:
                break
            place = piece.place + row - piece.row
            index = int(order[place])
            path = self.paths.text(index)
            after = None if draws is None else partial(self._finished, draws, row)
            try:
                self.reader.read(path, counter_uniform(key, index, int(again[place])), out[:, row], after)
            except Exception as error:  # whatever the decoder raised, the loop must name the file and not hang
                bad.append((row, path, _reason(error, path)))
        return bad

    def _draws(self, piece: Piece) -> list[Draws]:
        """For each view in turn, as the batch form would draw them for the whole batch."""
        assert self.finish is not None
        generator = torch.Generator().manual_seed(piece.seed)
        return [self.finish.draw(piece.rows, generator) for _ in range(self.ring.shape[1])]

    def _finished(self, draws: list[Draws], row: int, picture: Image.Image, view: int) -> Image.Image:
        assert self.finish is not None
        return self.finish.apply(picture, draws[view], row)


class Pool:
    """``workers`` processes at ``work``, started by ``start_method``; they end when the pool is closed or forgotten."""

    def __init__(self, work: Work, workers: int, start_method: str | None) -> None:
        self.work, self.workers = work, workers
        context = multiprocessing.get_context(start_method)
        tasks, self._tasks = context.Pipe(duplex=False)
        pipes = [context.Pipe(duplex=False) for _ in range(workers)]
        self._results = [reader for reader, _ in pipes]
        lock = self._lock = context.Lock()  # held here: a spawned worker finds it by name
        self._processes = []
        others: list[Connection] = [self._tasks, *self._results, *(writer for _, writer in pipes)]
        for _, writer in pipes:
            # A forked worker holds all pipes until it closes them; a spawned one is given its own only.
            unwanted = [other for other in others if other is not writer] if _forks(context) else []
            arguments = (work, tasks, lock, writer, unwanted, os.getpid())
            self._processes.append(_start(context, arguments))
        for mine in (tasks, *(writer for _, writer in pipes)):
            mine.close()
        self._pending: dict[tuple[int, int], int] = {}  # (serial, slot) -> pieces that are not done
        self._bad: dict[tuple[int, int], list[Bad]] = {}
        self.close = weakref.finalize(self, _end, self._processes, [self._tasks, *self._results], os.getpid())

    def submit(self, batch: Piece) -> None:
        """Have a batch, or the part of it that ``batch`` says, read into its slot, which must be free."""
        size = max(-(-batch.images // _MOST_PIECES), min(_PIECE, -(-batch.images // self.workers)))
        starts = range(0, batch.images, size)
        self._pending[batch.serial, batch.slot] = len(starts)
        self._bad[batch.serial, batch.slot] = []
        for row in starts:
            count = min(size, batch.images - row)
            first = batch.row + row
            try:
                self._tasks.send_bytes(_TASK.pack(*batch._replace(row=first, place=batch.place + row, images=count)))
            except OSError as error:
                raise self._death() from error

    def wait(self, serial: int, slot: int) -> list[Bad]:
        """Until ``slot`` is filled; the pictures in it that could not be read. Raises ``InputError`` for a death."""
        while self._pending[serial, slot]:
            self._receive()
        del self._pending[serial, slot]
        return sorted(self._bad.pop((serial, slot)))

    def drain(self) -> None:
        """Until no worker is at anything."""
        while any(self._pending.values()):
            self._receive()
        self._pending.clear()
        self._bad.clear()

    def _receive(self) -> None:
        sentinels = [process.sentinel for process in self._processes]
        for ready in connection.wait([*self._results, *sentinels]):
            if not isinstance(ready, Connection):
                raise self._death()
            try:
                serial, slot, bad = ready.recv()
            except (EOFError, OSError) as error:
                raise self._death() from error
            self._pending[serial, slot] -= 1
            self._bad[serial, slot] += bad

    def _death(self) -> InputError:
        """The error that says how a worker ended; the others are ended too."""
        connection.wait([process.sentinel for process in self._processes], timeout=1)
        codes = [process.exitcode for process in self._processes if process.exitcode is not None]
        self.close()
        how = f"exit code {codes[0]}" if codes else "its pipe broke"
        if codes and codes[0] < 0:
            with contextlib.suppress(ValueError):
                how = signal.Signals(-codes[0]).name
        cure = "most often for want of memory: use fewer workers or smaller batches"
        if how == "SIGBUS":
            cure = "its shared memory is full: use smaller batches, or give /dev/shm more room"
        return InputError(f"a loader worker was killed ({how}), {cure}")


def repeats(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often the same value came before, int64 [n]: 0 for first occurrences."""
    by_value = np.argsort(order, kind="stable")
    ordered = order[by_value]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.concatenate([first, [len(order)]]))
    out = np.empty(len(order), dtype=np.int64)
    out[by_value] = np.arange(len(order)) - np.repeat(first, lengths)
    return out


def forks(start_method: str | None) -> bool:
    """Whether workers are copies of this process rather than new ones that are sent what they need."""
    return (start_method or multiprocessing.get_start_method()) == "fork"


def _forks(context: BaseContext) -> bool:
    return context.get_start_method() == "fork"


def _shared(shape: Sequence[int], dtype: torch.dtype, start_method: str | None) -> Tensor:
    """Zeros that workers see and write to."""
    if start_method is None:
        return torch.zeros(*shape, dtype=dtype)
    if start_method != "fork":
        return torch.zeros(*shape, dtype=dtype).share_memory_()
    # Anonymous memory needs no room in /dev/shm, of which containers have little.
    size = int(np.prod(shape)) * dtype.itemsize
    return torch.frombuffer(mmap.mmap(-1, max(size, 1)), dtype=dtype, count=int(np.prod(shape))).view(*shape)


def _start(context: Any, arguments: tuple[Any, ...]) -> Any:
    process = context.Process(target=_work, args=arguments, daemon=True, name="saddlescape-loader")
    process.start()
    return process


def _work(
    work: Work, tasks: Connection, lock: Any, results: Connection, unwanted: Sequence[Connection], parent: int
) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    for other in unwanted:
        other.close()
    with contextlib.suppress(EOFError, OSError):  # the parent closed the pipe or is no more
        while os.getppid() == parent:
            if not lock.acquire(timeout=_WATCH):
                continue
            try:
                task = tasks.recv_bytes() if tasks.poll(_WATCH) else None
            finally:
                lock.release()
            if task is not None:
                piece = Piece(*_TASK.unpack(task))
                results.send((piece.serial, piece.slot, work.fill(piece)))


def _end(processes: Sequence[Any], pipes: Sequence[Connection], owner: int) -> None:
    if os.getpid() != owner:  # a fork of the owner that cleans up must not end the owner's workers
        return
    for pipe in pipes:
        pipe.close()
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(5)
        if process.exitcode is None:
            process.kill()
            process.join()


def _reason(error: Exception, path: str) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, (InputError, OSError)):
        reason = f"{type(error).__name__}: {reason}"
    if len(reason) > _REASON + len(path):
        reason = reason[: _REASON + len(path)] + "..."
    return reason if path in reason else f"cannot read image {path}: {reason}"
