"""The loader that suits a split; and loaders joined: several views of each image, and a second batch beside each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from saddlescape.data.batching import ORDER, derived_generator
from saddlescape.data.resident import ResidentLoader
from saddlescape.data.samplers import Sampler
from saddlescape.data.stream import StreamLoader
from saddlescape.data.types import ArraySplit, Batch, Preprocess, Split
from saddlescape.errors import InputError


def build_loader(split: Split, preprocess: Preprocess, **settings: Any) -> ResidentLoader | StreamLoader:
    """A ``ResidentLoader`` for an ``ArraySplit``, a ``StreamLoader`` for a ``FileSplit``; see ``EpochLoader``.

    Train with an augmentation and a sampler; evaluate with neither.
    """
    return (ResidentLoader if isinstance(split, ArraySplit) else StreamLoader)(split, preprocess, **settings)


class Loader(Protocol):
    """Batches as a pure function of (seed, epoch, batch number)."""

    def __len__(self) -> int: ...

    def epoch(self, t: int, start_batch: int = 0) -> Iterator[Batch]: ...


class SharedOrder:
    """``sampler`` in the order that a loader with ``seed`` would show, whatever generator it is handed.

    So loaders of different seeds, which augment differently, show the same images at the same time.
    """

    def __init__(self, sampler: Sampler, seed: int) -> None:
        self.sampler, self.seed = sampler, seed

    def __len__(self) -> int:
        return len(self.sampler)

    def indices(self, epoch: int, generator: torch.Generator) -> Tensor:
        return self.sampler.indices(epoch, derived_generator(self.seed, ORDER, epoch))


class JoinedLoader:
    """Batches of ``main`` that carry those of ``views`` (the same images) and of ``partner`` (other images).

    Raises:
        InputError: the loaders do not have the same number of batches.
    """

    def __init__(self, main: Loader, views: Sequence[Loader] = (), partner: Loader | None = None) -> None:
        self.main, self.views, self.partner = main, tuple(views), partner
        others = [*self.views, *([partner] if partner is not None else [])]
        if any(len(other) != len(main) for other in others):
            counts = ", ".join(str(len(loader)) for loader in [main, *others])
            raise InputError(f"loaders that are joined need equally many batches an epoch, got {counts}")

    def __len__(self) -> int:
        return len(self.main)

    def epoch(self, t: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``t`` from number ``start_batch`` on."""
        streams = [loader.epoch(t, start_batch) for loader in self.views]
        partners = None if self.partner is None else self.partner.epoch(t, start_batch)
        for batch in self.main.epoch(t, start_batch):
            shown = tuple(next(stream).inputs for stream in streams)
            yield batch._replace(views=shown, partner=None if partners is None else next(partners))
