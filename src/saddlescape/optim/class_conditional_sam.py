"""Class-conditional SAM (CC-SAM), stage one: the classifier climbs for each class apart, the rarer the farther.

Zhou, Qu, Wang, Shen, "Class-Conditional Sharpness-Aware Minimization for Deep Long-Tailed Recognition", CVPR 2023.
With theta the tensors of the classifier, P their number of elements, ||theta|| their joint norm, n_c the training
images of class c, and for every class c in the batch and each tensor t of theta::

    G_ct     = grad_t of the mean of l_i(w) over the images of class c in the batch
    delta_ct = kappa * sqrt(||theta||) / (sqrt(||G_ct||) * sqrt(2) * (n_c - 1)^(1/4) * P^(1/4)) * sqrt(P)
               * G_ct / ||G_ct||
    loss     = (1 - phi) * (1/N) sum_i l_i(theta) + phi * (1/N) sum_i l_i(theta + delta_{y_i})
    w        = base optimiser's step from w with grad loss, the deltas held fixed

The radius shrinks with the class size as n_c^(-1/4). The second term needs the features of the first pass only, so it
costs a classification of each image and nothing of the backbone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.func import functional_call
from torch.optim import Optimizer

from saddlescape.counts import ClassCounts
from saddlescape.errors import InputError
from saddlescape.optim.perturb import NORM_EPS, global_norm
from saddlescape.optim.split import SplitClosure, SplitOptimizer, backward_again
from saddlescape.optim.wrapper import WrapperOptions

Reclassify = Callable[[Tensor], Tensor]


class ClassConditionalSAM(SplitOptimizer):
    """CC-SAM's first stage around any torch optimiser: one pass through the backbone, forward and backward.

    ``step(closure, targets=labels, reclassify=reclassify)``: the closure returns the **vector of per-sample losses
    [N]**, see :class:`~saddlescape.optim.split.SplitOptimizer`. ``reclassify(subset)`` returns the losses
    [len(subset)] of the images with these indices (int64) from the *features that the last* ``closure()``
    *computed*, through the classifier as it is now::

        def closure():
            nonlocal features
            features = model.features(x)
            return F.cross_entropy(model.head(features), y, reduction="none")

        def reclassify(subset):
            return F.cross_entropy(model.head(features[subset]), y[subset], reduction="none")

    Without ``reclassify`` each class of the batch is run by ``closure(subset)``, a forward pass over its images
    alone: twice the cost, and the same numbers only where no layer looks across the batch (BatchNorm in train mode
    does). ``step`` returns the mean loss at ``w``, without the second term.

    Args:
        base_optimizer, class_counts; options: as for :class:`~saddlescape.optim.SplitOptimizer`; running statistics are
            those of the first ``closure()`` alone, which matters only without ``reclassify``.
        head: the classifier, with which the closures run; all its parameters are in groups of ``base_optimizer``.
        kappa: scales every radius. It is kept as ``group["rho"]``, of which the groups with classifier tensors count;
            ``set_rho`` and schedules of ``rho`` set it. 0 is the base optimiser, bit for bit.
        phi: weight of the perturbed term, from 0 to 1; the authors use 0.3 on CIFAR-10-LT, 0.5 on CIFAR-100-LT.

    A class with a single training image would be moved infinitely far (n_c - 1 = 0); it is treated like one with two.
    A class whose gradient is 0 does not move. Waits for the device once a step where the labels are there. Memory: a
    copy of the classifier for each class in the batch, until the backward pass. Where processes share batches each
    climbs by the gradients of its own images; the descent is that of all.

    Attribute ``grad_norm`` stays None: there is a norm for each class.

    Deviations from the authors' code: 1. n_c = 1, which divides by zero there; 2. ``reclassify`` decides which labels
    the second term has; there they are the unmixed ones, also under mixup; 3. the perturbed classifier is a copy,
    there the weights are moved and moved back. The paper derives one ``||G_c||`` over all classifier tensors; the code
    has one for each tensor, as above.
    """

    reclassifies = True
    """A training loop that can re-run the classifier on kept features gives ``reclassify``."""

    def __init__(
        self,
        base_optimizer: Optimizer,
        class_counts: ClassCounts,
        head: nn.Module,
        *,
        kappa: float | Tensor = 1e-6,
        phi: float = 0.5,
        **options: Unpack[WrapperOptions],
    ) -> None:
        super().__init__(base_optimizer, class_counts, kappa, **options)
        if not 0 <= phi <= 1:
            raise InputError(f"ClassConditionalSAM: phi must be from 0 to 1, got {phi!r}")
        self.phi, self.head = phi, head
        known = {id(param) for group in self.param_groups for param in group["params"]}
        tensors = list(head.parameters()) if isinstance(head, nn.Module) else []
        if not tensors or any(id(param) not in known for param in tensors):
            raise InputError(
                "ClassConditionalSAM: head must be the classifier, such as model.head, and all its parameters in "
                "base_optimizer"
            )

    def share_batches(self, average: Callable[[Sequence[Tensor]], None], rank: int, *, ascent: bool = False) -> None:
        """As of every optimiser that splits losses. Raises InputError for ``ascent``."""
        if ascent:
            raise InputError(
                "ClassConditionalSAM: each process climbs by its own images: the gradients of all classes would be a "
                "copy of the classifier for each class; leave ascent out"
            )
        super().share_batches(average, rank)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: SplitClosure | None = None,
        *,
        targets: Tensor | None = None,
        reclassify: Reclassify | None = None,
        scaler: GradScaler | None = None,
    ) -> Tensor:
        """One whole step. See the class for the closure and for ``reclassify``."""
        with self._transaction():
            closure, labels = self._checked(closure, targets)
            if not self._moving() or self.phi == 0:
                return self._split_step(closure, labels, scaler)
            return self._conditional_step(closure, labels, reclassify or closure, scaler)

    def _moving(self) -> list[tuple[str, Tensor, Any, bool]]:
        """The classifier's tensors with a radius: name, tensor, kappa, whether its group maximises."""
        names = {id(param): name for name, param in self.head.named_parameters()}
        return [
            (names[id(param)], param, group["rho"], bool(group.get("maximize")))
            for group in self._groups_at_work()
            for param in group["params"]
            if id(param) in names and param.requires_grad
        ]

    def _conditional_step(
        self, closure: SplitClosure, labels: Tensor, again: Reclassify, scaler: GradScaler | None
    ) -> Tensor:
        self.zero_grad()
        losses = self._losses(closure, len(labels))
        with torch.enable_grad():  # the losses of a class are a node of the graph too
            classes = [(label, rows, losses[rows]) for label, rows in _by_class(labels)]
        moved = [self._moved(part, float(self.class_counts[label]), scaler) for label, _, part in classes]
        with_head = _WithHead(self.head, again)
        with self._away():
            if self.freeze_bn_stats:
                self._statistics.keep()
            perturbed = [
                self._losses(partial(functional_call, with_head, weights), len(rows), rows)
                for (_, rows, _), weights in zip(classes, moved, strict=True)
            ]
            with torch.enable_grad():
                both = (1 - self.phi) * losses.mean() + self.phi * torch.cat(perturbed).mean()
            self._backward(both, None, scaler)  # before running statistics come back, which autograd would notice
        self._descend(scaler)
        return losses.detach().mean()

    def _moved(self, losses: Tensor, count: float, scaler: GradScaler | None) -> dict[str, Tensor]:
        """The perturbed tensors of the classifier for a class with these losses and ``count`` training images.

        Their gradient is that of the classifier's own tensors.
        """
        moving = self._moving()
        params = [param for _, param, _, _ in moving]
        with torch.enable_grad():
            loss = losses.mean()
            scale = None
            if scaler is not None and scaler.is_enabled():
                # An overflow here makes the perturbed losses NaN, which the scaler finds in the gradients of the step.
                scale = scaler.scale(torch.ones((), device=loss.device))
                loss = loss * scale
            with backward_again():
                found = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
        gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(params, found, strict=True)]
        if scale is not None:
            gradients = [gradient / scale.to(gradient.device) for gradient in gradients]
        head = list(self.head.parameters())
        elements = sum(param.numel() for param in head)
        constant = elements**0.25 / (math.sqrt(2) * max(count - 1, 1) ** 0.25)
        root = global_norm([param.detach() for param in head]).sqrt()
        moved = {}
        for (name, param, kappa, maximize), gradient in zip(moving, gradients, strict=True):
            length = global_norm([gradient]) + NORM_EPS
            radius = kappa * constant * root / length.sqrt()
            step = gradient * (radius / length).to(device=gradient.device, dtype=gradient.dtype)
            with torch.enable_grad():
                moved[f"head.{name}"] = param - step if maximize else param + step
        return moved


class _WithHead(nn.Module):
    """Runs a closure inside ``functional_call``, which gives ``head`` other tensors for that long."""

    def __init__(self, head: nn.Module, run: Reclassify) -> None:
        super().__init__()
        self.head, self.run = head, run

    def forward(self, rows: Tensor) -> Tensor:
        return self.run(rows)


def _by_class(labels: Tensor) -> list[tuple[int, Tensor]]:
    """The classes in the batch, each with the indices int64 of its images."""
    here = labels.cpu()
    return [(int(label), (here == label).nonzero().flatten().to(labels.device)) for label in here.unique()]
