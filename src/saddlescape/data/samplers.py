"""Which images an epoch shows, and in what order: the samplers of the long-tail literature.

A sampler is a pure function of (epoch, generator). Sources: Kang et al., "Decoupling Representation and Classifier
for Long-Tailed Recognition", ICLR 2020, section 3 (the family p_c ~ n_c^q and the progressive rule); Shen et al.,
ECCV 2016 (class-aware); Cui et al., CVPR 2019 (effective numbers).

One rule for all: a class without images is never drawn and takes no share of the probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from saddlescape.errors import InputError

Labels = Tensor | Sequence[int]


class Sampler(Protocol):
    """``indices(epoch, generator)`` gives the positions in the split to show, int64 [len(sampler)]."""

    def __len__(self) -> int: ...

    def indices(self, epoch: int, generator: torch.Generator) -> Tensor: ...


class InstanceBalanced:
    """Every image once, shuffled: ordinary training (q = 1 of the family, without replacement)."""

    def __init__(self, labels: Labels, class_counts: Sequence[int] | None = None) -> None:
        self._count = len(_checked(labels, class_counts)[0])

    def __len__(self) -> int:
        return self._count

    def indices(self, epoch: int, generator: torch.Generator) -> Tensor:
        return torch.randperm(self._count, generator=generator)


class ByClass:
    """Draws a class by ``rule``, then an image of it evenly; with replacement.

    ``rule(counts, epoch, **options)``: from float64 [C] images per class to the share of each class, float64 [C].
    """

    def __init__(
        self, rule: Callable[..., Tensor], labels: Labels, class_counts: Sequence[int] | None = None, *,
        num_samples: int | None = None, **options: float,
    ) -> None:  # fmt: skip
        checked, self.counts = _checked(labels, class_counts)
        self.num_samples = _length(num_samples, len(checked))
        self._rule = partial(rule, self.counts.double(), **options)
        self._by_class = torch.argsort(checked, stable=True)  # the images of class 0, then of class 1, ...
        self._start = self.counts.cumsum(0) - self.counts
        self.probabilities(0)  # raises for options that the rule does not have or lacks

    def __len__(self) -> int:
        return self.num_samples

    def probabilities(self, epoch: int) -> Tensor:
        """float64 [C], summing to 1: the chance that a draw of this epoch is of each class."""
        return self._rule(epoch)

    def indices(self, epoch: int, generator: torch.Generator) -> Tensor:
        classes = torch.multinomial(self.probabilities(epoch), self.num_samples, replacement=True, generator=generator)
        where = torch.rand(self.num_samples, generator=generator, dtype=torch.float64)
        # A uniform number so near 1 that the product rounds up to the count would point at the next class.
        within = (where * self.counts[classes]).long().minimum(self.counts[classes] - 1)
        return self._by_class[self._start[classes] + within]


def _power(counts: Tensor, epoch: int, *, q: float) -> Tensor:
    """p_c proportional to n_c^q: q = 1 as in the data, 0 all classes alike.

    A per-sample weight of n_c^-r, as GLMC's second loader has it, is q = 1 - r.
    """
    return _share(counts**q, counts)


def _progressive(counts: Tensor, epoch: int, *, total_epochs: int) -> Tensor:
    """From the data's own frequencies in the first epoch to all classes alike in the last, linearly.

    p_c(t) = (1 - l) n_c / N + l / C with l = t / (total_epochs - 1); later epochs stay at l = 1, and a single epoch
    has l = 0.
    """
    if total_epochs < 1:
        raise InputError(f"progressively balanced sampling needs total_epochs >= 1, got {total_epochs}")
    level = min(epoch / max(total_epochs - 1, 1), 1.0)
    return (1 - level) * _share(counts, counts) + level * _share(torch.ones_like(counts), counts)


def _effective_number(counts: Tensor, epoch: int, *, beta: float = 0.9999) -> Tensor:
    """Each image weighted by 1 / E of its class, E = (1 - beta^n) / (1 - beta): the ``Resample`` rule.

    Hence p_c proportional to n_c / E_c. In the reference implementation's CIFAR script this rule builds the sampler
    after the loader and never attaches it; here it works.
    """
    if not 0 <= beta < 1:
        raise InputError(f"effective-number sampling needs 0 <= beta < 1, got {beta}")
    effective = (1 - beta**counts) / (1 - beta)
    return _share(counts / effective.clamp(min=torch.finfo(torch.float64).tiny), counts)


class ClassAware:
    """Visit the classes in shuffled rounds and take ``k`` images of each, out of that class's own shuffled rounds.

    Every class comes up equally often (to one visit), and an image is not shown again before all others of its class
    were. Deviations from the classifier-balancing and MiSLAS code: 1. the rounds start afresh in each epoch, so that
    an epoch can be repeated without what went before; 2. an epoch has ``num_samples`` images, by default as many as
    the split (their training loops cut it there, to a batch), not n_max * C.
    """

    def __init__(
        self, labels: Labels, class_counts: Sequence[int] | None = None, *, k: int = 4, num_samples: int | None = None
    ) -> None:
        checked, counts = _checked(labels, class_counts)
        if k < 1:
            raise InputError(f"class-aware sampling needs k >= 1 images of a class in a row, got {k}")
        self.k = k
        self.num_samples = _length(num_samples, len(checked))
        by_class = torch.argsort(checked, stable=True)
        self._members = [members for members in by_class.split(counts.tolist()) if len(members)]

    def __len__(self) -> int:
        return self.num_samples

    def indices(self, epoch: int, generator: torch.Generator) -> Tensor:
        classes = len(self._members)
        rounds = -(-self.num_samples // (classes * self.k))
        order = torch.rand((rounds, classes), generator=generator, dtype=torch.float64).argsort(1)
        shown = torch.stack([self._cycle(members, rounds * self.k, generator) for members in self._members])
        # shown[c] is what class c gives in this epoch, k a round; lay the rounds out in their orders.
        shown = shown.view(classes, rounds, self.k).transpose(0, 1)
        return shown.gather(1, order.unsqueeze(2).expand(-1, -1, self.k)).flatten()[: self.num_samples]

    @staticmethod
    def _cycle(members: Tensor, length: int, generator: torch.Generator) -> Tensor:
        """The first ``length`` of an endless run through ``members``, shuffled anew each time round."""
        turns = -(-length // len(members))
        order = torch.rand((turns, len(members)), generator=generator, dtype=torch.float64).argsort(1)
        return members[order.flatten()[:length]]


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "instance-balanced": InstanceBalanced,
    "class-balanced": partial(ByClass, lambda counts, epoch: _power(counts, epoch, q=0.0)),
    "square-root": partial(ByClass, lambda counts, epoch: _power(counts, epoch, q=0.5)),
    "progressively-balanced": partial(ByClass, _progressive),
    "class-aware": ClassAware,
    "effective-number": partial(ByClass, _effective_number),
    "power": partial(ByClass, _power),
}


def build_sampler(
    name: str, labels: Labels, class_counts: Sequence[int] | None = None, **options: float | None
) -> Sampler:
    """The sampler called ``name`` for these labels; ``options`` are its own (``k``, ``q``, ``beta``, ...).

    Raises:
        InputError: an unknown name, or options that the sampler does not have or still needs.
    """
    if name not in SAMPLERS:
        raise InputError(f"unknown sampler {name!r}: choose one of {', '.join(SAMPLERS)}")
    try:
        return SAMPLERS[name](labels, class_counts, **options)
    except TypeError as error:
        raise InputError(f"sampler {name!r}: {str(error).split('() ')[-1]}") from error


def _checked(labels: Tensor | Sequence[int], class_counts: Sequence[int] | None) -> tuple[Tensor, Tensor]:
    """Labels int64 [N] and images per class int64 [C], both on the host; ``class_counts`` fixes C and must agree."""
    tensor = torch.as_tensor(labels).detach().cpu()
    if tensor.ndim != 1 or len(tensor) == 0 or tensor.is_floating_point() or tensor.is_complex():
        raise InputError(
            f"a sampler needs integer labels [N], N >= 1, got {str(tensor.dtype).removeprefix('torch.')} "
            f"of shape {list(tensor.shape)}"
        )
    tensor = tensor.long()
    classes = int(tensor.max()) + 1 if class_counts is None else len(class_counts)
    wrong = (tensor < 0) | (tensor >= classes)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise InputError(f"label {int(tensor[first])} of image {first} is outside 0..{classes - 1}")
    counts = torch.bincount(tensor, minlength=classes)
    if class_counts is not None and (different := (counts != torch.as_tensor(class_counts)).nonzero()).numel():
        first = int(different[0])
        raise InputError(
            f"class_counts says {class_counts[first]} images of class {first}, the labels have {int(counts[first])}: "
            "pass the counts of this split, or none"
        )
    return tensor, counts


def _length(num_samples: int | None, default: int) -> int:
    if num_samples is None:
        return default
    if num_samples < 1:
        raise InputError(f"an epoch needs num_samples >= 1, got {num_samples}")
    return int(num_samples)


def _share(weights: Tensor, counts: Tensor) -> Tensor:
    """``weights`` of the classes that have images, scaled to sum to 1; the others get 0."""
    present = torch.where(counts > 0, weights, 0.0)
    return present / present.sum()
