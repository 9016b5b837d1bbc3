"""The loader for a split that stays on disk: torch's ``DataLoader`` reads and crops ahead, the device augments."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from saddlescape.data import reader
from saddlescape.data.augment import Augment, ColorJitter, Compose, CropFlip, ResizedCrop
from saddlescape.data.augment.resized_crop import ATTEMPTS
from saddlescape.data.batching import AUGMENT, CROP, EpochLoader, derived_generator, derived_key
from saddlescape.data.paths import PackedPaths
from saddlescape.data.reader import Box
from saddlescape.data.shards import shard_bounds
from saddlescape.data.types import Batch, FileSplit, Preprocess
from saddlescape.errors import InputError

_PIECE = 32  # images that a worker reads at once: the first batch is there soon, and no worker waits for a long one


class StreamLoader(EpochLoader):
    """Batches of a ``FileSplit``: as :class:`ResidentLoader`, but images are read when a batch needs them.

    ``workers`` read about two batches ahead and live as long as the loader. Where ``augment`` begins with a random
    resized crop, workers cut it out of the whole image, a JPEG being decoded at reduced size where the crop allows it.
    The rest of the augmentation runs on the device, in batches; on a CPU, workers flip and jitter too, by Pillow, which
    is there five times as fast and gives the same bits. Without such a crop they read as evaluation does
    (``reader.pixels``).

    The bits of a batch do not depend on the number of workers; a crop is a function of (``seed``, epoch, image, how
    often the image came before in this epoch). ``epoch(t, start_batch=b)`` reads none of the images before batch b.

    An image that cannot be read and a worker that dies raise ``InputError``; the next epoch starts new workers.
    """

    def _prepare(self, split: FileSplit, preprocess: Preprocess) -> None:
        crop, rest = _divided(self.augment)
        finish: tuple[ImageStep, ...] = ()
        if crop is not None and self.device.type == "cpu" and all(map(_is_image_step, rest)):
            finish, rest = rest, ()
        self._on_device = Compose(rest) if rest else None
        paths = split.paths if isinstance(split.paths, PackedPaths) else PackedPaths.pack(split.paths)
        self._pieces = Pieces(paths, preprocess, crop, finish, self.seed)
        self._wanted: list[Piece] = []  # of the epoch that runs: what the DataLoader samples
        self._loader: DataLoader[Tensor | str] | None = None
        self._stream: Iterator[Tensor | str] = iter(())
        self._epochs = 0  # that were begun

    def close(self) -> None:
        """End the workers; the next epoch starts new ones."""
        self._epochs += 1
        self._loader, self._stream = None, iter(())

    def _batches(self, t: int, start_batch: int) -> Iterator[Batch]:
        order = self.order(t)
        repeats = occurrences(order.numpy())
        batches = [self._shard(order.numpy(), repeats, t, number) for number in range(start_batch, len(self))]
        self._wanted[:] = [piece for pieces in batches for piece in pieces]
        self._epochs += 1
        mine = self._epochs
        self._stream = iter(())
        for pieces in batches:
            if mine != self._epochs:
                raise InputError("a StreamLoader runs one epoch at a time: an older epoch was asked for more batches")
            yield self._batch(pieces, [self._received(first=piece is self._wanted[0]) for piece in pieces])

    def _shard(self, order: NDArray[np.int64], repeats: NDArray[np.int64], t: int, number: int) -> list[Piece]:
        """This rank's shard of a batch."""
        begin, end = self.bounds[number]
        low, high = shard_bounds(end - begin, *self.shard)
        pieces = []
        for row in range(low, high, _PIECE):
            here = slice(begin + row, begin + min(row + _PIECE, high))
            pieces.append(Piece(t, number, end - begin, row, order[here], repeats[here]))
        return pieces

    def _received(self, first: bool) -> Tensor:
        """The next piece, uint8 [n, H, W, C] on the device; the ``first`` of an epoch sets the workers to it."""
        try:
            if first:
                self._stream = self._started()
            found: Tensor | str | None = next(self._stream)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            found = None
        if found is None:  # raised here because the error's traceback would keep the other workers alive
            self.close()
            raise InputError(
                "a loader worker was killed, most often for want of memory: use smaller batches or fewer workers"
            )
        if isinstance(found, str):
            raise InputError(found)
        return found.to(self.device, non_blocking=True)

    def _started(self) -> Iterator[Tensor | str]:
        """The pieces in ``_wanted``, in order; what workers still do for an epoch that was abandoned is dropped."""
        if self._loader is None:
            ahead = 2 * max(end - begin for begin, end in self.bounds)  # images: two batches
            self._loader = DataLoader(
                self._pieces, batch_size=None, sampler=self._wanted, num_workers=self.workers,
                prefetch_factor=max(2, math.ceil(ahead / (_PIECE * self.workers))) if self.workers else None,
                persistent_workers=self.workers > 0, pin_memory=self.device.type == "cuda",
                worker_init_fn=_started_worker,
                generator=torch.Generator(),  # else it draws a number from the global one
            )  # fmt: skip
        with _own_handler_of_dead_children():
            return iter(self._loader)

    def _batch(self, pieces: list[Piece], read: list[Tensor]) -> Batch:
        images = torch.cat(read) if len(read) > 1 else read[0]
        t, number, size, row, *_ = pieces[0]
        if self._on_device is not None:
            # Its draws are those of the whole batch; the rows of the other ranks are blank and thrown away.
            blank = (0, 0, 0, 0, 0, 0, row, size - row - len(images))
            whole = torch.nn.functional.pad(images, blank).permute(0, 3, 1, 2)
            shown = self._on_device(whole, derived_generator(self.seed, AUGMENT, t, number))
            inputs = self._normalize(shown[row : row + len(images)])
        else:
            inputs = self._normalize(images.permute(0, 3, 1, 2))
        indices = torch.from_numpy(np.concatenate([piece.positions for piece in pieces]))
        targets = self.labels[indices].to(self.device, non_blocking=True)
        return Batch(
            inputs, targets, indices.to(self.device, non_blocking=True), whole=size if self.shard[1] > 1 else 0
        )


class Piece(NamedTuple):
    """Some images of batch ``number`` of epoch ``t``, which has ``size`` of them: those from row ``row`` on.

    ``positions`` in the split, int64 [n], and how often each came before in this epoch, int64 [n].
    """

    t: int
    number: int
    size: int
    row: int
    positions: NDArray[np.int64]
    repeats: NDArray[np.int64]


@dataclass(frozen=True)
class Pieces(Dataset[Tensor | str]):
    """What workers do: from a ``Piece`` to its images, uint8 [n, H, W, C], or one line on why it cannot be read.

    ``crop`` None: as evaluation sees images. The steps of ``finish`` follow the crop.
    """

    paths: PackedPaths
    preprocess: Preprocess
    crop: ResizedCrop | None
    finish: tuple[ImageStep, ...]
    seed: int

    def __getitem__(self, piece: Piece) -> Tensor | str:
        size = self.preprocess.image_size if self.crop is None else self.crop.size
        out = torch.empty((len(piece.positions), size, size, self.preprocess.channels), dtype=torch.uint8)
        if get_worker_info() is not None:
            try:
                out.share_memory_()
            except RuntimeError as error:
                return f"loader workers have no shared memory left ({error}): give /dev/shm more room"
        key = derived_key(self.seed, CROP, piece.t)
        generator = derived_generator(self.seed, AUGMENT, piece.t, piece.number)
        draws = [step.draw(piece.size, generator) for step in self.finish]
        for n, (position, repeat) in enumerate(zip(piece.positions.tolist(), piece.repeats.tolist(), strict=True)):
            path = self.paths.text(position)
            try:
                if self.crop is None:
                    out[n] = reader.pixels(self.preprocess, path).permute(1, 2, 0)
                    continue
                image = self._crop(path, self.crop, counter_uniform(key, position, repeat))
                for step, drawn in zip(self.finish, draws, strict=True):
                    image = step.on_image(image, drawn, piece.row + n)
                out[n] = torch.from_numpy(np.array(image)).view(out.shape[1:])
            except InputError as error:
                return str(error)
            except Exception as error:  # must not end the worker, and the message must name the file
                return f"{path}: cannot read image: {type(error).__name__}: {' '.join(str(error).split())}"
        return out

    def _crop(self, path: str, crop: ResizedCrop, uniform: NDArray[np.float64]) -> Image.Image:
        def box(width: int, height: int) -> Box:
            top, left, high, wide = crop.box(uniform.tolist(), height, width)
            return float(left), float(top), float(left + wide), float(top + high)

        return reader.crop(self.preprocess, path, crop.size, box)


def counter_uniform(key: NDArray[np.uint64], index: int, repeat: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), [4, ATTEMPTS], that depend on ``key`` and the counter (``index``, ``repeat``) alone.

    Philox4x64-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011); 53 bits of each output.
    """
    bits = np.random.Philox(key=key, counter=[0, index, repeat, 0]).random_raw(4 * ATTEMPTS)
    return (bits >> np.uint64(11)).astype(np.float64).reshape(4, ATTEMPTS) * 2.0**-53


def occurrences(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often the same value came before, int64 [n]: 0 for first occurrences.

    >>> occurrences(np.array([3, 1, 3, 3, 1, 0])).tolist()
    [0, 0, 1, 2, 1, 0]
    """
    by_value = np.argsort(order, kind="stable")
    ordered = order[by_value]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.concatenate([first, [len(order)]]))
    out = np.empty(len(order), dtype=np.int64)
    out[by_value] = np.arange(len(order)) - np.repeat(first, lengths)
    return out


ImageStep = CropFlip | ColorJitter
"""A step that has ``on_image``, if it does not crop."""


def _is_image_step(step: Augment) -> bool:
    return isinstance(step, ColorJitter) or (isinstance(step, CropFlip) and step.padding == 0)


def _divided(augment: Augment | None) -> tuple[ResizedCrop | None, tuple[Any, ...]]:
    """The crop that workers can do, and the steps that are left."""
    steps = tuple(augment.steps) if isinstance(augment, Compose) else () if augment is None else (augment,)
    return (steps[0], steps[1:]) if steps and isinstance(steps[0], ResizedCrop) else (None, steps)


def _started_worker(worker: int) -> None:
    """Ctrl-C is for the main process to handle; and a worker ends at once with a main process that is killed.

    Torch's own workers end up to 5 s later, and meanwhile hold the lock on the run that they inherited.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@contextlib.contextmanager
def _own_handler_of_dead_children() -> Iterator[None]:
    """Undo torch's handler of SIGCHLD, which raises the death of a worker out of whichever line runs at the moment.

    Without it the death is noticed, within 5 s, where the next piece is awaited, and never in the middle of a step.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
