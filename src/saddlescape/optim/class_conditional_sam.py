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

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer

from saddlescape.counts import ClassCounts
from saddlescape.errors import InputError
from saddlescape.optim.perturb import global_norm, move
from saddlescape.optim.split import NORM_EPS, SplitClosure, SplitOptimizer, backward_again

Norm = Literal["tensor", "joint"]
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

    Arguments:
        base_optimizer: a built optimiser of the whole model.
        class_counts: training images per class, [C].
        head_parameters: the tensors of the classifier, all of them in groups of ``base_optimizer``.
        kappa: scales every radius. It is kept as ``group["rho"]``, of which the groups with classifier tensors count;
            ``set_rho`` and schedules of ``rho`` set it. 0 is the base optimiser, bit for bit.
        phi: weight of the perturbed term, from 0 to 1; the authors use 0.3 on CIFAR-10-LT, 0.5 on CIFAR-100-LT.
        norm: what ``||G_c||`` is. "tensor" (default): the formula above, the authors' code of today, where weight and
            bias are scaled each by its own norm. "joint": one norm over all classifier tensors, the classifier taken
            as one vector, as the paper derives it. A first version of the code took ``||theta||`` by tensor as well.
        model, freeze_bn_stats, clip_grad_norm: as for :class:`~saddlescape.optim.SAM`; running statistics are those
            of the first ``closure()`` alone, which matters only without ``reclassify``.

    A class with a single training image would be moved infinitely far (n_c - 1 = 0); it is treated like one with two.
    A class whose gradient is 0 does not move. Waits for the device once a step where the labels are there. Memory: a
    copy of the classifier for each class in the batch, until the backward pass. Where processes share batches each
    climbs by the gradients of its own images; the descent is that of all.

    Attribute ``grad_norm`` stays None: there is a norm for each class.

    Deviations from the authors' code: 1. n_c = 1, which divides by zero there; 2. ``reclassify`` decides which labels
    the second term has; there they are the unmixed ones, also under mixup; 3. weights come back from a copy also after
    an error.
    """

    reclassifies = True
    """A training loop that can re-run the classifier on kept features gives ``reclassify``."""

    def __init__(
        self,
        base_optimizer: Optimizer,
        class_counts: ClassCounts,
        head_parameters: Iterable[Tensor],
        *,
        kappa: float | Tensor = 1e-6,
        phi: float = 0.5,
        norm: Norm = "tensor",
        model: nn.Module | None = None,
        freeze_bn_stats: bool = True,
        clip_grad_norm: float | None = None,
    ) -> None:
        super().__init__(
            base_optimizer,
            class_counts,
            kappa,
            model=model,
            freeze_bn_stats=freeze_bn_stats,
            clip_grad_norm=clip_grad_norm,
        )
        if not 0 <= phi <= 1:
            raise InputError(f"ClassConditionalSAM: phi must be from 0 to 1, got {phi!r}")
        if norm not in ("tensor", "joint"):
            raise InputError(f"ClassConditionalSAM: norm must be 'tensor' or 'joint', got {norm!r}")
        self.phi, self.norm = phi, norm
        self.head = [head_parameters] if isinstance(head_parameters, Tensor) else list(head_parameters)
        known = {id(param) for group in self.param_groups for param in group["params"]}
        if not self.head or any(id(param) not in known for param in self.head):
            raise InputError(
                "ClassConditionalSAM: head_parameters must be the classifier's tensors, such as "
                "model.head.parameters(), and all of them in base_optimizer"
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

    def _moving(self) -> list[tuple[Tensor, Any, bool]]:
        """The classifier's tensors with a radius: tensor, kappa, whether its group maximises."""
        head = {id(param) for param in self.head}
        return [
            (param, group["rho"], bool(group.get("maximize")))
            for group in self._groups_at_work()
            for param in group["params"]
            if id(param) in head and param.requires_grad
        ]

    def _conditional_step(
        self, closure: SplitClosure, labels: Tensor, again: Reclassify, scaler: GradScaler | None
    ) -> Tensor:
        self.zero_grad()
        losses = self._losses(closure, len(labels))
        with torch.enable_grad():  # the part of a class is a node of the graph too
            parts = [(label, subset, losses[subset]) for label, subset in _by_class(labels)]
        moves = [(subset, self._deltas(part, float(self.class_counts[label]), scaler)) for label, subset, part in parts]
        perturbed = []
        keeping = _Keeping()
        with contextlib.ExitStack() as leaving, self._away():
            leaving.callback(keeping.off)
            if self.freeze_bn_stats:
                self._statistics.keep()
            for subset, deltas in moves:
                params = [param for param, _ in deltas]
                # The first pass kept these weights for its backward pass, which comes when they have their bits again.
                with torch.autograd._unsafe_preserve_version_counter(tuple(params)):
                    self._perturbation.save(params)
                    move(params, [delta for _, delta in deltas], 1.0)
                    try:
                        keeping.on(params)
                        perturbed.append(self._losses(again, len(subset), subset))
                    finally:
                        keeping.off()
                    self._perturbation.restore()
            # So it kept the statistics, of which the backward pass of a layer in train mode makes no use.
            with torch.autograd._unsafe_preserve_version_counter(tuple(self._statistics.buffers)):
                self._statistics.restore()
        with torch.enable_grad():
            both = (1 - self.phi) * losses.mean() + self.phi * torch.cat(perturbed).mean()
        self._backward(both, None, scaler)
        self._descend(scaler)
        return losses.detach().mean()

    def _deltas(self, losses: Tensor, count: float, scaler: GradScaler | None) -> list[tuple[Tensor, Tensor]]:
        """Each tensor that moves, and how far, for a class with these losses and ``count`` training images."""
        moving = self._moving()
        params = [param for param, _, _ in moving]
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
        elements = sum(param.numel() for param in self.head)
        constant = elements**0.25 / (math.sqrt(2) * max(count - 1, 1) ** 0.25)
        root = global_norm([param.detach() for param in self.head]).sqrt()
        joint = global_norm(gradients) if self.norm == "joint" else None
        deltas = []
        for (param, kappa, maximize), gradient in zip(moving, gradients, strict=True):
            length = (global_norm([gradient]) if joint is None else joint) + NORM_EPS
            radius = kappa * constant * root / length.sqrt()
            step = gradient * (radius / length).to(device=gradient.device, dtype=gradient.dtype)
            deltas.append((param, -step if maximize else step))
        return deltas


def _by_class(labels: Tensor) -> list[tuple[int, Tensor]]:
    """The classes in the batch, each with the indices int64 of its images."""
    here = labels.cpu()
    return [(int(label), (here == label).nonzero().flatten().to(labels.device)) for label in here.unique()]


class _Keeping:
    """While on, autograd keeps copies of ``params`` for the backward pass, which comes when they are home again.

    ``off`` may be called again: hooks that an interrupt left behind would spoil all autograd of the process, so they
    are taken off where they were put on and once more where the step is left.
    """

    def __init__(self) -> None:
        self._hooks: saved_tensors_hooks | None = None
        self._active = False

    def on(self, params: list[Tensor]) -> None:
        storages = {param.untyped_storage().data_ptr() for param in params}

        def pack(tensor: Tensor) -> Tensor:
            mine = tensor.layout == torch.strided and tensor.untyped_storage().data_ptr() in storages
            return tensor.detach().clone() if mine else tensor.detach()

        self._hooks = saved_tensors_hooks(pack, lambda tensor: tensor)
        self._active = self._hooks.__enter__() is None  # type: ignore[func-returns-value]

    def off(self) -> None:
        if self._active and self._hooks is not None:
            self._active = self._hooks.__exit__() is not None  # type: ignore[func-returns-value]
