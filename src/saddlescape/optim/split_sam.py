"""SAM on parts of the batch: each part climbs by its own gradient, what belongs to no part descends at ``w``.

With weights a_c >= 0 for the plain part and b_kc for sharp part k, of every class c, and a batch of N images::

    g_0  = grad (1/N) sum_i a_{y_i} l_i(w)
    g_k  = grad (1/N) sum_i b_{k,y_i} l_i(w)          eps_k = rho_k * g_k / (||g_k|| + 1e-12)
    g'_k = grad (1/N) sum_i b_{k,y_i} l_i(w + eps_k)
    w    = base optimiser's step from w with g_0 + sum_k g'_k

One forward pass at ``w`` serves g_0 and all g_k. ImbSAM, SSE-SAM and Focal-SAM are choices of a and b.
"""

from __future__ import annotations

from torch import Tensor
from torch.amp import GradScaler

from saddlescape.optim.class_labels import PerClass
from saddlescape.optim.split import SplitClosure, SplitOptimizer, alone


class SplitSAM(SplitOptimizer):
    """Base of ImbSAM, SSE-SAM and Focal-SAM. A subclass fills ``plain``, ``sharp`` and ``whole``.

    ``plain`` and each of ``sharp`` are the class weights a and b_k of the module's formula; ``whole`` is their sum,
    the weights of the loss that is left when the radius is 0. ``_factors()`` are the radii of the sharp parts in
    units of the group's ``rho``; a part whose factor is 0 descends at ``w`` with the plain one.

    Where the labels are on the CPU and no other process trains along, a part without images costs no pass. On an
    accelerator nothing is looked at and every pass is made: an empty part has gradient 0 and moves nothing.

    Memory beyond the base optimiser: one copy of the weights and one set of gradients for each sharp part.
    Under DistributedDataParallel give ``model=`` (needed from the second sharp part on): all ascents are then those
    of all ranks, and so is the descent. See ``share_batches`` for loops without it.
    """

    plain: PerClass
    sharp: list[PerClass]
    whole: PerClass

    def _factors(self) -> list[float]:
        return [1.0] * len(self.sharp)

    @property
    def passes_per_step(self) -> int:
        """How many forward passes a step makes at most at the present ``rho``: one, and one for each sharp part."""
        return 1 + sum(factor != 0 for factor in self._factors()) if self._groups_at_work() else 1

    def _parts(self, labels: Tensor) -> tuple[Tensor | None, list[tuple[Tensor, float]]]:
        """Weights [N] of the plain part (None: no image in it), and weights and factor of each sharp part."""
        if not self._groups_at_work():
            return self.whole(labels), []
        plain = self.plain(labels)
        sharp: list[tuple[Tensor, float]] = []
        look = labels.device.type == "cpu" and alone()
        for table, factor in zip(self.sharp, self._factors(), strict=True):
            weights = table(labels)
            if factor == 0:
                plain = plain + weights
            elif not look or bool((weights != 0).any()):
                sharp.append((weights, factor))
        return (None if look and not bool((plain != 0).any()) else plain), sharp

    def _split_step(self, closure: SplitClosure, labels: Tensor, scaler: GradScaler | None) -> Tensor:
        plain, sharp = self._parts(labels)
        self.zero_grad()
        losses = self._losses(closure, len(labels))
        value = losses.detach().mean()
        directions = []
        for number, (weights, factor) in enumerate(sharp):
            again = plain is not None or number < len(sharp) - 1
            self._backward(losses, weights, scaler, retain_graph=again)
            direction = self._direction(number, scaler, factor)
            if direction is None:
                return value
            directions.append(direction)
        if plain is not None:
            self._backward(losses, plain, scaler)
        del losses  # and its graph, before the next one is built
        for weights, _ in sharp:
            with self._away():
                if self.freeze_bn_stats:
                    self._statistics.keep()
                self._move_along(directions.pop(0))
                self._backward(self._losses(closure, len(labels)), weights, scaler)
        self._descend(scaler)
        return value
