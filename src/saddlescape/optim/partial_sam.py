"""SAM that climbs by a part of the batch, with every tail image in that part: cost 1 + share instead of 2.

::

    S = all tail images of the batch, filled up to share * N images with others drawn at random
    g = grad (1/|S|) sum over S of l_i(w)                      eps = rho * g / (||g|| + 1e-12)
    w = base optimiser's step from w with grad (1/N) sum_i l_i(w + eps)

That the ascent does with few images is SAM's own experience (its authors climb by the gradient of one accelerator's
share of the batch, "m-sharpness"); that the tail should always be among them is ours, untested in the literature.
"""

from __future__ import annotations

import math
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from saddlescape.counts import ClassCounts, tail_classes
from saddlescape.errors import InputError
from saddlescape.optim.class_labels import PerClass
from saddlescape.optim.split import SplitClosure, SplitOptimizer
from saddlescape.optim.wrapper import WrapperOptions

FEWEST = 2  # BatchNorm in train mode refuses a single image where it sees one value per channel


class PartialSAM(SplitOptimizer):
    """Partial SAM around any torch optimiser.

    ``step(closure, targets=labels)`` with ``closure(subset=None)``: ``closure(subset)`` returns the losses
    [len(subset)] of the images with these indices (int64, increasing) after a forward pass over them alone,
    ``closure()`` those of the whole batch [N]; see :class:`~saddlescape.optim.split.SplitOptimizer`.

    **Returns the mean loss of the whole batch at** ``w + eps``: no pass over the whole batch is made at ``w``
    (:class:`~saddlescape.optim.MomentumSAM` does the same). With ``rho`` 0 there is one pass and it is the loss at
    ``w``; so it is where a GradScaler's gradients overflowed in the first pass and the step is skipped.

    Args:
        base_optimizer, class_counts; options: as for :class:`~saddlescape.optim.SplitOptimizer`.
        rho: radius.
        share: of the batch that the ascent sees, above 0 and up to 1 (then it is SAM, except for what is returned).
            Rounded up, and two images at least. Tail images are never left out, so many of them make the part larger.
        class_aware: False draws the part from all images alike.
        threshold: classes with fewer images are tail; None: as for :class:`~saddlescape.optim.ImbSAM`.
        seed: of the generator that draws; its state is in the state dict.
        freeze_bn_stats: running statistics see the pass over the whole batch only, since the part is not a fair sample
            of the data; False lets both passes count.

    Attributes: ``tail`` is the mask [C] of the tail classes (all False when not ``class_aware``); ``grad_norm`` is
    the last ``||g||``. Where processes share batches, each draws from its own part. Waits for the device once a step
    where the labels are there, to learn which images are tail.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        class_counts: ClassCounts,
        rho: float | Tensor = 0.05,
        *,
        share: float = 0.25,
        class_aware: bool = True,
        threshold: float | None = None,
        seed: int = 0,
        **options: Unpack[WrapperOptions],
    ) -> None:
        super().__init__(base_optimizer, class_counts, rho, **options)
        if not 0 < share <= 1:
            raise InputError(f"PartialSAM: share must be above 0 and at most 1, got {share!r}")
        self.share = share
        if class_aware:
            self.tail = tail_classes(self.class_counts, threshold, "PartialSAM")
        else:
            self.tail = torch.zeros(len(self.class_counts), dtype=torch.bool)
        self._is_tail = PerClass(self.tail)
        self._draws = torch.Generator().manual_seed(seed)

    @property
    def passes_per_step(self) -> int:
        """2, of which the first is over a part of the batch; or 1 when ``rho`` is 0 everywhere."""
        return 2 if self._groups_at_work() else 1

    def _split_step(self, closure: SplitClosure, labels: Tensor, scaler: GradScaler | None) -> Tensor:
        if not self._groups_at_work():
            return super()._split_step(closure, labels, scaler)
        part = self._draw(labels)
        self.zero_grad()
        try:
            if self.freeze_bn_stats:
                self._statistics.keep()
            self._backward(self._losses(closure, len(part), part), self._weights(part, labels), scaler)
        finally:
            self._statistics.restore()
        direction = self._direction(0, scaler)
        if direction is None:
            with torch.no_grad():
                return closure().mean()
        with self._away():
            self._move_along(direction)
            del direction
            losses = self._losses(closure, len(labels))
            self._backward(losses, None, scaler)
        self._descend(scaler)
        return losses.detach().mean()

    def _weights(self, part: Tensor, labels: Tensor) -> Tensor | None:
        """With which the mean over the processes' means is the mean over all their images, but for a factor."""
        if self._sharing is None or not self._sharing.ascent:
            return None
        return torch.full((len(part),), len(part) / len(labels), device=labels.device)

    def _draw(self, labels: Tensor) -> Tensor:
        """Indices int64 of the part, increasing: the tail images, and others up to the share."""
        tail = self._is_tail(labels).bool().cpu()
        wanted = min(len(labels), max(FEWEST, math.ceil(self.share * len(labels)), int(tail.sum())))
        # Random keys below 1 for the others, 1 for the tail: the largest keys are the part.
        keys = torch.rand(len(labels), generator=self._generator(), dtype=torch.float64).masked_fill_(tail, 1.0)
        return torch.topk(keys, wanted).indices.sort().values.to(labels.device)

    def _generator(self) -> torch.Generator:
        if self._sharing is None:
            return self._draws
        # Parts differ in size, and the generator must not: what one process saves, all go on from.
        drawn = int(torch.randint(2**31, (), generator=self._draws))
        return torch.Generator().manual_seed(drawn * 2**31 + self._sharing.rank)

    def _extra_state(self) -> dict[str, Any]:
        return {"draws": self._draws.get_state()}

    def _load_extra_state(self, extra: dict[str, Any]) -> None:
        self._draws.set_state(extra["draws"].cpu())

    def __getstate__(self) -> dict[str, Any]:
        # A generator can be neither pickled nor copied on every torch; its state can.
        return super().__getstate__() | {"_draws": self._draws.get_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        draws = torch.Generator()
        draws.set_state(state["_draws"])
        self._draws = draws
