"""The loader for a split that stays on disk: worker processes decode, the device augments."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from saddlescape.data.augment import Augment
from saddlescape.data.batching import (
    AUGMENT,
    ORDER,
    Normalizer,
    augmented,
    batch_bounds,
    check_loader,
    check_start,
    checked_labels,
    derived_generator,
    is_fixed,
)
from saddlescape.data.samplers import Sampler
from saddlescape.data.types import Batch, FileSplit, Preprocess
from saddlescape.errors import InputError

Decode = Callable[[Path], Tensor]
"""One file to uint8 [C, S, S]; picklable (a function of a module, a ``functools.partial``, a dataclass instance)."""


class StreamLoader:
    """Batches of a ``FileSplit``: as :class:`ResidentLoader`, but pictures are decoded when a batch needs them.

    ``decode`` turns a path into uint8 [C, S, S], every picture of the same size; ``workers`` processes run it ahead
    of time (0: in this process), started by ``start_method`` (None: Python's default; ``"spawn"`` works too). They
    live for as long as the loader. On CUDA, batches come through pinned memory. Random crops are cut from the
    decoded picture: for ``resized-crop-flip`` decode to more pixels than the network sees, or to as many, at a loss
    of sharpness.

    Which pictures are in batch b of epoch t, and how they are augmented, is a function of (``seed``, t, b) alone,
    whatever the number of workers. A picture that cannot be decoded, and a worker that dies, raise ``InputError``.
    """

    def __init__(
        self,
        split: FileSplit,
        preprocess: Preprocess,
        decode: Decode,
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
    ) -> None:
        check_loader(batch_size, seed, views)
        if len(split.paths) != len(split.labels) or len(split.labels) == 0:
            raise InputError(
                f"a split needs as many labels as paths, at least one, got {len(split.paths)} paths and "
                f"{len(split.labels)} labels"
            )
        self.split = split
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.augment, self.sampler = augment, sampler
        self.seed, self.views = seed, views
        self.workers = min(8, os.cpu_count() or 1) if workers is None else workers
        if self.workers < 0 or prefetch < 1:
            raise InputError(f"a loader needs workers >= 0 and prefetch >= 1, got {self.workers} and {prefetch}")
        self._prefetch, self._start_method = prefetch, start_method
        if self.workers > 0:
            _check_start_method(start_method, decode)
        self._normalize = Normalizer(preprocess, self.device, memory_format, dtype)
        self._labels = checked_labels(split)
        self._pictures = _Pictures(split.paths, decode)
        self._plan: list[list[int]] = []
        self._loader: DataLoader[Any] | None = None
        self._started = 0  # epochs begun
        self._bounds = batch_bounds(self.num_samples, batch_size)

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
        """End the workers; the next epoch starts new ones."""
        self._loader = None

    def _batches(self, t: int, start_batch: int) -> Iterator[Batch]:
        order = self.order(t)
        self._started += 1
        mine = self._started
        self._plan[:] = [order[begin:end].tolist() for begin, end in self._bounds[start_batch:]]
        number = start_batch
        for decoded in self._decoded():
            if isinstance(decoded, _Unreadable):
                self.close()
                raise InputError(decoded.message)
            begin, end = self._bounds[number]
            indices = order[begin:end]
            pixels = decoded.to(self.device, non_blocking=True)
            generator = derived_generator(self.seed, AUGMENT, t, number)
            inputs = augmented(pixels, self.augment, self._normalize, self.views, generator)
            targets = self._labels[indices].to(self.device, non_blocking=True)
            yield Batch(inputs, targets, indices.to(self.device, non_blocking=True))
            number += 1
            if mine != self._started:
                raise InputError("a StreamLoader runs one epoch at a time: an older epoch was asked for more batches")

    def _decoded(self) -> Iterator[Tensor | _Unreadable]:
        if self._loader is None:
            several = self.workers > 0
            self._loader = DataLoader(
                self._pictures,
                batch_sampler=self._plan,  # read anew at the start of each epoch
                num_workers=self.workers,
                collate_fn=_stack,
                pin_memory=self.device.type == "cuda",
                persistent_workers=several,
                prefetch_factor=self._prefetch if several else None,
                multiprocessing_context=self._start_method if several else None,
                generator=torch.Generator(),  # torch seeds its workers from it; the caller's own stays untouched
            )
        try:
            yield from self._loader
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):  # "... exited unexpectedly", "... is killed by signal: ..."
                raise
            self.close()
            raise InputError(
                "a loader worker was killed, most often for want of memory: use fewer workers or smaller batches "
                f"({str(error).splitlines()[0]})"
            ) from error


def _check_start_method(start_method: str | None, decode: Decode) -> None:
    """Raise ``InputError`` where worker processes could not start or could not be given ``decode``."""
    known = multiprocessing.get_all_start_methods()
    if start_method is not None and start_method not in known:
        raise InputError(f"unknown start method {start_method!r} for loader workers: choose one of {', '.join(known)}")
    if (start_method or multiprocessing.get_start_method()) == "fork":
        return
    try:
        pickle.dumps(decode)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"decode cannot be sent to loader workers ({error}): make it a function of a module, or use workers=0"
        ) from error


@dataclass(frozen=True)
class _Unreadable:
    """Sent by a worker in place of a picture: torch would send an exception with its traceback, many lines long."""

    message: str


class _Pictures(Dataset[Tensor]):
    """Runs in the workers: position in the split -> decoded picture, or why there is none."""

    def __init__(self, paths: Sequence[Path], decode: Decode) -> None:
        self.paths, self.decode = [str(path) for path in paths], decode

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor | _Unreadable:  # type: ignore[override]
        path = self.paths[index]
        try:
            picture = self.decode(Path(path))
        except Exception as error:  # whatever the decoder raised, the loop must name the file and not hang
            reason = " ".join(str(error).split()) or type(error).__name__
            if not isinstance(error, (InputError, OSError)):
                reason = f"{type(error).__name__}: {reason}"
            return _Unreadable(reason if path in reason else f"cannot read image {path}: {reason}")
        if not isinstance(picture, Tensor) or picture.dtype != torch.uint8 or picture.ndim != 3:
            return _Unreadable(f"decoding {path} gave {_describe(picture)}, not a uint8 tensor [C, S, S]")
        return picture


def _stack(pictures: list[Tensor | _Unreadable]) -> Tensor | _Unreadable:
    for picture in pictures:
        if isinstance(picture, _Unreadable):
            return picture
    tensors = [picture for picture in pictures if isinstance(picture, Tensor)]
    shapes = sorted({tuple(tensor.shape) for tensor in tensors})
    if len(shapes) > 1:
        return _Unreadable(f"decoded pictures differ in shape, {shapes[0]} and {shapes[1]}: decode all to one size")
    return torch.stack(tensors)


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return type(value).__name__
