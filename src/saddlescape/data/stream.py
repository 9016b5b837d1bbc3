"""The loader for a split that stays on disk: worker processes read, the device augments."""

from __future__ import annotations

import multiprocessing
import pickle
from collections import deque
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from saddlescape.data.augment import Augment, Compose, ResizedCrop
from saddlescape.data.batching import (
    AUGMENT,
    CROP,
    ORDER,
    Normalizer,
    augmented,
    batch_bounds,
    check_loader,
    check_start,
    checked_labels,
    derived_generator,
    derived_key,
    derived_seed,
    is_fixed,
    stack_views,
)
from saddlescape.data.cores import usable_cores
from saddlescape.data.finish import Finish
from saddlescape.data.parts import part_bounds
from saddlescape.data.paths import PackedPaths
from saddlescape.data.pool import Bad, Piece, Pool, Work, forks
from saddlescape.data.reader import pixels
from saddlescape.data.readers import Decode, Decoded, RandomCrop, Reader, WholePicture
from saddlescape.data.samplers import Sampler
from saddlescape.data.types import Batch, FileSplit, Preprocess
from saddlescape.errors import InputError

__all__ = ["Decode", "StreamLoader"]


class StreamLoader:
    """Batches of a ``FileSplit``: as :class:`ResidentLoader`, but pictures are read when a batch needs them.

    ``workers`` processes (None: one a core, at most 16; 0: this process itself) read ahead by up to ``prefetch``
    batches, started by ``start_method`` (None: Python's default; ``"spawn"`` works too), and live for as long as the
    loader. Where ``augment`` begins with a random resized crop (``resized-crop-flip``), workers cut it out of the
    whole picture, a JPEG being decoded at reduced size where the crop allows it (``reduce``). The rest of the
    augmentation runs on the device, in batches; on a CPU, workers flip and jitter too (``finish_in_workers``), which
    is faster there and gives the same bits.
    Without such a crop they read as evaluation does (``reader.pixels``).

    A ``decode`` of one's own turns a path into uint8 [C, S, S], every picture of the same size; random crops are then
    cut from what it gives, on the device.

    What is in batch b of epoch t is a function of (``seed``, t, b), whatever the number of workers; a crop is a
    function of (``seed``, t, image, how often the image came before in this epoch). ``epoch(t, start_batch=b)`` gives
    the same bits as a whole epoch from batch b on and reads none of the images before. Memory: ``prefetch + 1``
    batches of uint8 pixels, 24 bytes for each image of an epoch and the packed paths; neither epochs nor workers add
    to it.

    ``part``: (rank, size) where processes share each batch: this one's part of it is read and given, to the same bits
    as in the whole batch (``saddlescape.data.parts``).

    ``bad_images``: a picture that cannot be read raises an ``InputError`` that names it (``"error"``), or is left out
    of its batch, which is then smaller, and entered in ``skipped``, path -> reason (``"skip"``). A worker that dies
    raises ``InputError``; the next epoch starts new ones.
    """

    def __init__(
        self,
        split: FileSplit,
        preprocess: Preprocess,
        decode: Decode | None = None,
        *,
        batch_size: int,
        device: str | torch.device = "cpu",
        augment: Augment | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
        views: int = 1,
        memory_format: torch.memory_format = torch.channels_last,
        dtype: torch.dtype = torch.float32,
        workers: int | None = None,
        prefetch: int = 2,
        start_method: str | None = None,
        bad_images: str = "error",
        reduce: bool = True,
        finish_in_workers: bool | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        check_loader(batch_size, seed, views)
        if len(split.paths) != len(split.labels) or len(split.labels) == 0:
            raise InputError(
                f"a split needs as many labels as paths, at least one, got {len(split.paths)} paths and "
                f"{len(split.labels)} labels"
            )
        if bad_images not in ("error", "skip"):
            raise InputError(f"bad_images is {bad_images!r}: choose 'error' or 'skip'")
        self.split = split
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.augment, self.sampler = augment, sampler
        self.seed, self.views = seed, views
        self.workers = min(16, usable_cores()) if workers is None else workers
        if self.workers < 0 or prefetch < 1:
            raise InputError(f"a loader needs workers >= 0 and prefetch >= 1, got {self.workers} and {prefetch}")
        self.bad_images = bad_images
        self.part = part
        self.skipped: dict[str, str] = {}
        self._slots, self._start_method = prefetch + 1, start_method
        if decode is not None and _is_the_house_s(decode):
            preprocess_of_reader: Preprocess = decode.args[0]  # type: ignore[attr-defined]
            decode = None
        else:
            preprocess_of_reader = preprocess
        if self.workers > 0:
            _check_start_method(start_method, decode)
        self._decode = decode
        crop, self._on_device = _divided(augment) if decode is None else (None, augment)
        self._cropped = crop is not None
        if finish_in_workers is None:
            finish_in_workers = self.device.type == "cpu"
        self._finish = Finish.of(self._on_device) if self._cropped and finish_in_workers else None
        if self._finish is not None:
            self._on_device = None
        self._reader: Reader | None = None
        if decode is None:
            whole = WholePicture(preprocess_of_reader)
            self._reader = whole if crop is None else RandomCrop(preprocess_of_reader, crop, reduce)
        self._normalize = Normalizer(preprocess, self.device, memory_format, dtype)
        self._labels = checked_labels(split)
        self._paths = split.paths if isinstance(split.paths, PackedPaths) else PackedPaths.pack(split.paths)
        self._bounds = batch_bounds(self.num_samples, batch_size)
        self._work: Work | None = None
        self._pool: Pool | None = None
        self._pinned: _Pinned | None = None
        self._started = 0  # epochs begun

    @property
    def num_samples(self) -> int:
        """Images shown in an epoch."""
        return len(self.split) if self.sampler is None else len(self.sampler)

    @property
    def fixed(self) -> bool:
        """Whether every epoch gives the same batches: no sampler and no augmentation."""
        return is_fixed(self.sampler, self.augment)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._bounds)

    def order(self, t: int) -> Tensor:
        """int64 [num_samples] on the host: the positions that epoch ``t`` shows, in order."""
        if self.sampler is None:
            return torch.arange(len(self.split))
        return self.sampler.indices(t, derived_generator(self.seed, ORDER, t))

    def epoch(self, t: int = 0, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``t`` (0-based) from number ``start_batch`` on. One epoch at a time per loader."""
        check_start(t, start_batch, len(self))
        return self._batches(t, start_batch)

    def close(self) -> None:
        """End the workers and give the memory of the batches back; the next epoch starts anew."""
        if self._pool is not None:
            self._pool.close()
        self._pool = self._work = self._pinned = None

    def _batches(self, t: int, start_batch: int) -> Iterator[Batch]:
        order = self.order(t)
        if start_batch == len(self):
            return
        self._started += 1
        mine = self._started
        work = self._ready(int(order[self._bounds[start_batch][0]]))
        serial = work.begin(order, derived_key(self.seed, CROP, t))
        free = deque(range(len(work.ring)))
        filling: deque[Piece] = deque()
        ahead = start_batch
        for number in range(start_batch, len(self)):
            if mine != self._started:
                raise InputError("a StreamLoader runs one epoch at a time: an older epoch was asked for more batches")
            ahead = self._submit(serial, t, ahead, free, filling)
            piece = filling.popleft()
            bad = work.fill(piece) if self._pool is None else self._waited(piece)
            indices = order[piece.place : piece.place + piece.images]
            if bad and self.bad_images == "error":
                raise InputError(bad[0][2])
            batch = self._batch(work.ring[piece.slot], piece, indices, t, number)
            free.append(piece.slot)
            # At once, so that workers go on while the network is busy with this batch.
            ahead = self._submit(serial, t, ahead, free, filling)
            if bad:
                batch = self._without([(row - piece.row, path, reason) for row, path, reason in bad], batch, number, t)
            yield batch

    def _submit(self, serial: int, t: int, ahead: int, free: deque[int], filling: deque[Piece]) -> int:
        """Set workers to the next batches as far as there are free slots; the first batch that found none."""
        while free and ahead < len(self):
            begin, end = self._bounds[ahead]
            low, high = part_bounds(end - begin, *self.part)
            seed = derived_seed(self.seed, AUGMENT, t, ahead)
            filling.append(Piece(serial, free.popleft(), low, begin + low, high - low, end - begin, seed))
            if self._pool is not None:
                self._pool.submit(filling[-1])
            ahead += 1
        return ahead

    def _batch(self, slot: Tensor, piece: Piece, indices: Tensor, t: int, number: int) -> Batch:
        """A slot, uint8 [views, rows, H, W, C] in shared memory -> a batch on the device that no longer needs it.

        The device draws for the whole batch, so what it augments is the whole too; of a part the rest is thrown away.
        """
        mine = slice(piece.row, piece.row + piece.images)
        fixed = self._on_device is None
        pictures = slot[:, mine if fixed else slice(piece.rows)]
        on_device = pictures.to(self.device) if self._pinned is None else self._pinned.sent(pictures)
        images = on_device.permute(0, 1, 4, 2, 3)
        generator = derived_generator(self.seed, AUGMENT, t, number)
        if self._cropped:
            rest = self._on_device
            shown = [self._normalize(view if rest is None else rest(view, generator)) for view in images]
            inputs = stack_views(shown, self._normalize)
        else:
            inputs = augmented(images[0], self._on_device, self._normalize, self.views, generator)
        if not fixed and piece.images < piece.rows:
            inputs = inputs.narrow(-4, piece.row, piece.images)
        targets = self._labels[indices].to(self.device, non_blocking=True)
        whole = piece.rows if self.part[1] > 1 else 0
        return Batch(inputs, targets, indices.to(self.device, non_blocking=True), whole=whole)

    def _ready(self, first: int) -> Work:
        """Memory and workers, with nothing left to do of an epoch that was abandoned."""
        if self._work is not None:
            self._work.stop()
            if self._pool is not None:
                self._drained(self._pool)
        if self._work is None or (self.workers > 0 and self._pool is None):
            self.close()
            if self._reader is None:
                assert self._decode is not None
                self._reader = self._probed(self._decode, first)
            method = (self._start_method or multiprocessing.get_start_method()) if self.workers > 0 else None
            work = Work.new(
                self._paths, self._reader, finish=self._finish,
                slots=self._slots if self.workers > 0 else 1, views=self.views if self._cropped else 1,
                rows=max(end - begin for begin, end in self._bounds), places=self.num_samples, start_method=method,
            )  # fmt: skip
            if self.workers > 0:
                self._pool = Pool(work, self.workers, self._start_method)
            if self.device.type == "cuda":
                self._pinned = _Pinned(work.ring[0].numel(), self.device)
            self._work = work
        return self._work

    def _probed(self, decode: Decode, first: int) -> Decoded:
        path = self._paths.text(first)
        try:
            return Decoded.like(decode, path)
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(reason if path in reason else f"cannot read image {path}: {reason}") from error

    def _drained(self, pool: Pool) -> None:
        try:
            pool.drain()
        except InputError:
            self.close()  # a worker died over an epoch that nobody waits for: start again with new ones

    def _waited(self, piece: Piece) -> list[Bad]:
        assert self._pool is not None
        try:
            return self._pool.wait(piece.serial, piece.slot)
        except InputError:
            self.close()
            raise

    def _without(self, bad: list[Bad], batch: Batch, number: int, t: int) -> Batch:
        """The batch without the pictures that could not be read, whose rows hold leftovers."""
        self.skipped.update({path: reason for _, path, reason in bad})
        count = len(batch.targets)
        kept = torch.from_numpy(np.setdiff1d(np.arange(count), [row for row, _, _ in bad])).to(self.device)
        if len(kept) == 0:
            raise InputError(f"no picture of batch {number} of epoch {t + 1} can be read, the first: {bad[0][2]}")
        inputs = batch.inputs.index_select(batch.inputs.ndim - 4, kept)
        if self._normalize.channels_last:
            inputs = inputs.movedim(-3, -1).contiguous().movedim(-1, -3)
        return batch._replace(inputs=inputs, targets=batch.targets[kept], indices=batch.indices[kept])


class _Pinned:
    """Two page-locked buffers of the size of a batch, and a stream of their own, so that copying to the device overlaps
    with computing there.

    The memory that workers write to is not page-locked itself: it was shared before CUDA knew of it, and registering it
    later leaves an error behind where a driver refuses. What that costs is one copy of bytes within the host.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)
        self._buffers = [torch.empty(size, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        self._left = [torch.cuda.Event() for _ in range(2)]  # when the last batch has left each buffer
        self._turn = 0

    def sent(self, pictures: Tensor) -> Tensor:
        """The same on the device; when this returns, the memory of ``pictures`` may be written to again."""
        self._turn = 1 - self._turn
        buffer, left = self._buffers[self._turn], self._left[self._turn]
        left.synchronize()
        held = buffer[: pictures.numel()].view(pictures.shape).copy_(pictures)
        with torch.cuda.stream(self.stream):
            copy = held.to(self.device, non_blocking=True)
            left.record(self.stream)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self.stream)
        copy.record_stream(computing)  # else its memory could be given away while the network still reads it
        return copy


def _is_the_house_s(decode: Decode) -> bool:
    """Whether ``decode`` is ``partial(reader.pixels, preprocess)``, which workers know how to do better."""
    return isinstance(decode, partial) and decode.func is pixels and len(decode.args) == 1 and not decode.keywords


def _divided(augment: Augment | None) -> tuple[ResizedCrop | None, Augment | None]:
    """The crop that workers can do, and what is left for the device."""
    if isinstance(augment, ResizedCrop):
        return augment, None
    if isinstance(augment, Compose) and augment.steps and isinstance(augment.steps[0], ResizedCrop):
        return augment.steps[0], Compose(tuple(augment.steps[1:]))
    return None, augment


def _check_start_method(start_method: str | None, decode: Decode | None) -> None:
    """Raise ``InputError`` where worker processes could not start or could not be given ``decode``."""
    known = multiprocessing.get_all_start_methods()
    if start_method is not None and start_method not in known:
        raise InputError(f"unknown start method {start_method!r} for loader workers: choose one of {', '.join(known)}")
    if decode is None or forks(start_method):
        return
    try:
        pickle.dumps(decode)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"decode cannot be sent to loader workers ({error}): make it a function of a module, or use workers=0"
        ) from error
