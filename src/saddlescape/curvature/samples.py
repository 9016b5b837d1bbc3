"""Data for curvature: read once, held still, sorted by class."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from saddlescape.errors import InputError

_TARGET_KEYS = ("labels", "label", "targets", "target", "y")


@dataclass(frozen=True)
class Samples:
    """``inputs``: tensor [N, ...], or tuple or dict of such. ``targets``: tensor [N, ...]. On the host or a device."""

    inputs: Any
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: Tensor | slice) -> Samples:
        return Samples(_map(self.inputs, lambda x: x[indices]), self.targets[indices])

    def of_class(self, label: int) -> Samples:
        """The samples of one class, in the order they came."""
        return self.take(torch.nonzero(self.labels == label).flatten())

    @property
    def labels(self) -> Tensor:
        """Class labels, int64 [N]; raises ``InputError`` where targets are no class labels."""
        if self.targets.dim() != 1 or self.targets.is_floating_point():
            raise InputError(
                f"targets of shape {tuple(self.targets.shape)} and {self.targets.dtype} are no class labels: class-wise"
                " curvature needs integers [N]"
            )
        return self.targets

    def classes(self) -> list[int]:
        return [int(label) for label in torch.unique(self.labels)]

    def spread(self, size: int) -> Samples:
        """At most ``size`` samples from all classes alike, by label (by place, where targets are no labels).

        A loss is looked into on these: data sorted by class would show it one class alone.
        """
        n = len(self)
        if n <= size:
            return self if self.targets.dim() != 1 else self.take(torch.argsort(self.targets, stable=True))
        if self.targets.dim() != 1 or self.targets.is_floating_point():
            return self.take(torch.linspace(0, n - 1, size, dtype=torch.float64).round().long())
        order = torch.argsort(self.targets, stable=True)
        counts = torch.unique_consecutive(self.targets[order], return_counts=True)[1]
        place = torch.arange(n, device=order.device) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        chosen = torch.argsort(place, stable=True)[:size].sort().values  # the first of each class, the second, ...
        return self.take(order[chosen])

    def batches(self, batch_size: int) -> Iterator[Samples]:
        """Cut into ceil(N / batch_size) batches that differ by at most one sample."""
        n = len(self)
        pieces = max(1, -(-n // batch_size))
        edges = [i * n // pieces for i in range(pieces + 1)]
        for start, stop in pairwise(edges):
            yield self.take(slice(start, stop))


def gather(data: Any, *, check: bool = True) -> Samples:
    """Read ``data`` once into memory: ``(inputs, targets)``, ``Samples``, or an iterable of batches.

    A batch is ``(inputs, targets)`` or longer (what follows is ignored), or a dict with the targets under
    ``labels``, ``label``, ``targets``, ``target`` or ``y``. With ``check``, data that can be read again is read again:
    a loader that then gives other images (random augmentation or sampling) is refused, because a Hessian of it would
    be another one at each product; the order may change. Raises ``InputError`` saying what is wrong.
    """
    if isinstance(data, Samples):
        return data
    if _is_pair(data):
        return _tidy(*_split_batch(data))
    if not isinstance(data, Iterable):
        raise InputError(f"data must be (inputs, targets) or an iterable of such batches, not {type(data).__name__}")
    _warn_of_drop_last(data)
    samples = _concatenate([_split_batch(batch) for batch in data])
    # An iterator is its own iterator and is spent now: nothing to compare with.
    if check and iter(data) is not data:
        again = _concatenate([_split_batch(batch) for batch in data])
        if not _same_content(samples, again):
            raise InputError(
                "data gives other images when read again (random augmentation, random sampling, or shuffling with"
                " drop_last): a Hessian needs fixed data; pass un-augmented images or a list of batches"
            )
    return samples


def split_by_class(samples: Samples, classes: Iterable[int] | None) -> dict[int, Samples]:
    """The samples of each class asked for; raises ``InputError`` naming a class that has none."""
    present = samples.classes()
    wanted = present if classes is None else list(dict.fromkeys(int(label) for label in classes))
    for label in wanted:
        if label not in present:
            listed = ", ".join(map(str, present[:12])) + (", ..." if len(present) > 12 else "")
            raise InputError(f"class {label} has no sample in the data; present are {listed}")
    if not wanted:
        raise InputError("classes= names no class")
    return {label: samples.of_class(label) for label in wanted}


def _is_pair(data: Any) -> bool:
    if isinstance(data, Mapping):
        return True
    if not isinstance(data, tuple | list) or len(data) < 2:
        return False
    first, second = data[0], data[1]
    if isinstance(data, list) and isinstance(first, tuple | list | Mapping):
        return False  # a list of batches
    return isinstance(second, Tensor) and (isinstance(first, Tensor | Mapping | tuple | list))


def _split_batch(batch: Any) -> tuple[Any, Tensor]:
    if isinstance(batch, Mapping):
        for key in _TARGET_KEYS:
            if key in batch:
                return {k: v for k, v in batch.items() if k != key}, batch[key]
        raise InputError(
            f"a batch is a dict with keys {sorted(map(str, batch))}, none of which holds targets {_TARGET_KEYS}"
        )
    if isinstance(batch, Sequence) and len(batch) >= 2:
        return batch[0], torch.as_tensor(batch[1])
    raise InputError(f"a batch must be (inputs, targets) or a dict with targets, not {type(batch).__name__}")


def _tidy(inputs: Any, targets: Any) -> Samples:
    targets = torch.as_tensor(targets).detach()
    if targets.dim() == 2 and targets.shape[1] == 1 and not targets.is_floating_point():
        targets = targets[:, 0]
    if targets.dim() == 0:
        raise InputError("targets must have one entry per sample, but are a single number")
    if not targets.is_floating_point():
        targets = targets.long()
    inputs = _map(inputs, lambda x: x.detach())
    sizes = {len(x) for x in _leaves(inputs)}
    if sizes != {len(targets)}:
        raise InputError(f"inputs hold {sorted(sizes)} samples but targets {len(targets)}")
    if len(targets) == 0:
        raise InputError("data holds no sample")
    return Samples(inputs, targets)


def _concatenate(parts: list[tuple[Any, Tensor]]) -> Samples:
    if not parts:
        raise InputError("data holds no batch")
    tidy = [_tidy(*part) for part in parts]
    inputs = [part.inputs for part in tidy]
    first = inputs[0]
    merged: Any
    if isinstance(first, Mapping):
        merged = {key: torch.cat([x[key] for x in inputs]) for key in first}
    elif isinstance(first, tuple | list):
        merged = tuple(torch.cat([x[i] for x in inputs]) for i in range(len(first)))
    else:
        merged = torch.cat(inputs)
    return Samples(merged, torch.cat([part.targets for part in tidy]))


def _same_content(a: Samples, b: Samples) -> bool:
    if len(a) != len(b):
        return False
    prints = [torch.sort(_fingerprints(s)).values for s in (a, b)]
    return bool(torch.equal(prints[0], prints[1]))


def _fingerprints(samples: Samples) -> Tensor:
    """A number per sample that any change of its content changes: the order of samples may differ, the set may not."""
    total = samples.targets.detach().cpu().double().flatten(1 if samples.targets.dim() > 1 else 0)
    total = total.sum(1) if total.dim() > 1 else total.clone()
    for k, x in enumerate(_leaves(samples.inputs)):
        flat = x.detach().cpu().flatten(1) if x.dim() > 1 else x.detach().cpu()[:, None]
        positions = torch.cos(torch.arange(flat.shape[1], dtype=torch.float64) * 0.7310585 + k)
        total += torch.cat([piece.double() @ positions for piece in flat.split(256)])
    return total


def _warn_of_drop_last(data: Any) -> None:
    dataset: Any = getattr(data, "dataset", None)
    batch_size = getattr(data, "batch_size", None)
    if getattr(data, "drop_last", False) and hasattr(dataset, "__len__") and batch_size and len(dataset) % batch_size:
        lost = f"{len(dataset) % batch_size} of {len(dataset)} samples"
        warnings.warn(f"the loader has drop_last=True: {lost} are left out of the curvature", stacklevel=4)


def _map(inputs: Any, function: Any) -> Any:
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {key: function(value) if isinstance(value, Tensor) else value for key, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(function(value) for value in inputs)
    raise InputError(f"inputs must be a tensor, or a tuple or dict of tensors, not {type(inputs).__name__}")


def _leaves(inputs: Any) -> list[Tensor]:
    if isinstance(inputs, Tensor):
        return [inputs]
    values = inputs.values() if isinstance(inputs, Mapping) else inputs
    return [value for value in values if isinstance(value, Tensor)]
