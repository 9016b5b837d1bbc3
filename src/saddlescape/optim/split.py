"""Optimisers that treat classes differently inside a step, and therefore ask for losses that nobody has averaged yet.

Their ``step`` takes a closure that returns the vector of per-sample losses, and the targets. What happens with the
vector is the subclass's affair; what is the same for all of them is here.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
import torch.distributed as dist
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from saddlescape.counts import ClassCounts, check_class_counts
from saddlescape.errors import InputError
from saddlescape.optim.class_labels import checked_labels
from saddlescape.optim.perturb import NORM_EPS, Pair, global_norm, move, with_gradients
from saddlescape.optim.wrapper import WrappedOptimizer, WrapperOptions, _FirstPass

SplitClosure = Callable[..., Tensor]


@dataclass(frozen=True)
class Sharing:
    """What an optimiser must know of the other processes that take a shard of every batch; see ``share_batches``."""

    average: Callable[[Sequence[Tensor]], None]
    rank: int
    ascent: bool


@dataclass
class Direction:
    """An ascent direction, group by group, and how long it is before it is scaled to the radius."""

    pairs: list[tuple[dict[str, Any], Pair]]
    norm: Tensor
    factor: float = 1.0

    @property
    def params(self) -> list[Tensor]:
        return [param for _, (params, _) in self.pairs for param in params]


class SplitOptimizer(WrappedOptimizer):
    """Base class of the optimisers that split losses by class.

    ::

        def closure():                       # forward alone: no backward, no zero_grad
            return F.cross_entropy(model(x), y, reduction="none")

        loss = optimizer.step(closure, targets=y)

    ``closure() -> Tensor [N]`` runs the forward pass, under autocast if the caller wants, and returns the loss of each
    image of the batch with its graph; the loss of the batch is their **mean**. Some optimisers call
    ``closure(subset)`` with int64 indices into the batch and want the losses of these images alone; each says so, and
    for the others a closure without an argument does. The optimiser zeroes gradients, runs backward and steps.
    To accumulate micro-batches let the closure return the losses of all of them in one vector.

    ``step`` returns the mean loss at ``w``, detached, unless the class says otherwise. ``targets`` are labels [N], or
    soft labels [N, C] whose largest entry counts. With a ``GradScaler`` do **not** scale in the closure: give the
    scaler to ``step`` and call ``scaler.update()`` once a step. There is no two-call form.

    Weights are ``w`` bit for bit between steps and after an exception; ``rho`` 0 is the base optimiser in one pass;
    ``clip_grad_norm``, ``freeze_bn_stats``, ``set_rho`` and ``state_dict`` are those of every wrapper here.
    Under DistributedDataParallel each rank gives its own shard of the batch; see the classes for what is exchanged. A
    loop that shares batches without it calls ``share_batches`` once.
    A compiled network is fine where all its batches have one size and it has been trained by nothing else before;
    otherwise torch may have compiled it for a single backward pass, which raises one line with the way out.

    A subclass writes ``_split_step(closure, labels, scaler) -> loss``.

    Args:
        base_optimizer: a built optimiser.
        class_counts: training images per class, [C].
        rho: radius; 0 is the base optimiser, bit for bit, in one pass.
        options: model, freeze_bn_stats, clip_grad_norm, as for :class:`~saddlescape.optim.SAM`.

    Raises:
        InputError: wrong class counts, targets outside them, a closure that does not return [N] losses with a graph,
            a call without closure or targets, and as the base class.
    """

    per_sample = True

    def __init__(
        self,
        base_optimizer: Optimizer,
        class_counts: ClassCounts,
        rho: float | Tensor,
        **options: Unpack[WrapperOptions],
    ) -> None:
        super().__init__(base_optimizer, rho, **options)
        self.class_counts = check_class_counts(class_counts)

    def _start_life(self) -> None:
        super()._start_life()
        # One for each ascent direction of a step; the scaler knows them by id, so they must outlive it.
        self._lenses: list[_FirstPass] = []
        self._sharing: Sharing | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key not in ("_lenses", "_sharing")}

    def share_batches(self, average: Callable[[Sequence[Tensor]], None], rank: int, *, ascent: bool = False) -> None:
        """Have every step from now on work on one of the shards that several ranks have of a batch.

        ``average`` turns tensors, in place, into their means over all processes, all of which call it equally often and
        in one order. The closure's losses must be scaled such that the mean over the processes of their means is the
        loss of the whole batch. The descent is then that of the whole batch; so is every ascent with ``ascent``, while
        without it each process climbs by its own shard. ``rank`` keeps the processes' random draws apart.
        A model in DistributedDataParallel needs none of this. Neither copied nor saved with the optimiser.
        """
        self._sharing = Sharing(average, rank, ascent)

    # --- the step ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: SplitClosure | None = None,
        *,
        targets: Tensor | None = None,
        scaler: GradScaler | None = None,
    ) -> Tensor:
        """One whole step: forward, split, backward and the base optimiser's move. See the class for the closure."""
        with self._transaction():
            closure, labels = self._checked(closure, targets)
            return self._split_step(closure, labels, scaler)

    def ascend(self, *, scaler: GradScaler | None = None) -> bool:
        """There is no two-call form: the losses have to be split before any backward."""
        raise InputError(f"{type(self).__name__}: no ascend() and descend(); call step(closure, targets=labels)")

    def descend(self, *, scaler: GradScaler | None = None) -> None:
        """As ``ascend``."""
        self.ascend(scaler=scaler)

    def _split_step(self, closure: SplitClosure, labels: Tensor, scaler: GradScaler | None) -> Tensor:
        """One pass, the base optimiser's own; subclasses add theirs."""
        self.zero_grad()
        losses = self._losses(closure, len(labels))
        self._backward(losses, None, scaler)
        self._descend(scaler)
        return losses.detach().mean()

    def _checked(self, closure: SplitClosure | None, targets: Tensor | None) -> tuple[SplitClosure, Tensor]:
        name = type(self).__name__
        if hasattr(self, "found_inf"):
            raise InputError(
                f"{name}: GradScaler.step(optimizer) cannot run a closure; "
                "call optimizer.step(closure, targets=labels, scaler=scaler) and then scaler.update()"
            )
        if closure is None:
            raise InputError(
                f"{name}: step() needs a closure that returns the per-sample losses: step(closure, targets=labels)"
            )
        if targets is None:
            raise InputError(f"{name}: step(closure) needs the labels of the batch too: step(closure, targets=labels)")
        labels = checked_labels(targets, len(self.class_counts), name)
        if len(labels) == 0:
            raise InputError(f"{name}: the batch is empty; leave such batches out")
        return closure, labels

    # --- its parts --------------------------------------------------------------------------------------------------

    def _losses(self, closure: SplitClosure, count: int, *subset: Tensor) -> Tensor:
        """The closure's vector of losses, checked, in float32 at least."""
        with torch.enable_grad():
            with self._a_pass(whole=not subset):
                losses = closure(*subset)
            if not isinstance(losses, Tensor) or losses.shape != (count,):
                found = list(losses.shape) if isinstance(losses, Tensor) else f"a {type(losses).__name__}"
                raise InputError(
                    f"{type(self).__name__}: the closure must return one loss for each of {count} images "
                    f"(reduction='none', shape [{count}]), got {found}"
                )
            if not losses.requires_grad:
                raise InputError(
                    f"{type(self).__name__}: the losses have no graph; the closure must not detach them, run under "
                    "no_grad or call backward, and some parameter must require gradients"
                )
            return losses.float() if losses.dtype in (torch.float16, torch.bfloat16) else losses

    def _backward(
        self, losses: Tensor, weights: Tensor | None, scaler: GradScaler | None, retain_graph: bool = False
    ) -> None:
        """Backward of the mean of the losses, each times its weight; gradients add to those that are there."""
        with torch.enable_grad(), backward_again():
            loss = losses.mean() if weights is None else (losses * weights.to(losses.dtype)).mean()
            if scaler is not None:
                loss = scaler.scale(loss)
            # Compiled code whose first backward pass does not keep the graph reuses memory and never can keep it:
            # a batch without tail images would spoil those that come after. The graph goes with the losses.
            loss.backward(retain_graph=retain_graph or compiling())

    def _direction(self, number: int, scaler: GradScaler | None, factor: float = 1.0) -> Direction | None:
        """Take the gradients that are there away as ascent direction number ``number`` of this step.

        None, with nothing moved, when a scaler's gradients overflowed: then the step is to be skipped.
        """
        if not self._params_with_gradient():
            raise InputError(
                f"{type(self).__name__}: no parameter of the optimiser has a gradient after the first pass; "
                "give it the parameters of the model that the closure runs"
            )
        if self._sharing is not None and self._sharing.ascent:
            self._average_here()  # before the scaler looks, so that an overflow in one is seen by all
        scaled = scaler is not None and scaler.is_enabled()
        if scaled:
            while len(self._lenses) <= number:
                self._lenses.append(_FirstPass(self))
            scaler.unscale_(self._lenses[number])  # type: ignore[union-attr, arg-type]
        if number > 0:
            self._average_over_ranks()
        pairs = [(group, with_gradients(group["params"])) for group in self._groups_at_work()]
        gradients = [gradient for _, (_, found) in pairs for gradient in found]
        norm = global_norm(gradients) if gradients else torch.zeros(())
        self.grad_norm = norm
        if scaled and not bool(torch.isfinite(norm)):
            return None
        for param in self._params_with_gradient():
            param.grad = None
        return Direction(pairs, norm, factor)

    def _descend(self, scaler: GradScaler | None = None) -> None:
        self._average_here()
        super()._descend(scaler)

    def _average_here(self) -> None:
        """Gradients become their means over the processes that share the batch, if any do."""
        if self._sharing is not None:
            self._sharing.average([param.grad for param in self._params_with_gradient() if param.grad is not None])

    def _average_over_ranks(self) -> None:
        # DDP exchanges gradients in the first backward of a forward pass and leaves them local in the next ones.
        group = getattr(self.model, "process_group", None)
        if group is not None and hasattr(self.model, "no_sync"):
            for param in self._params_with_gradient():
                dist.all_reduce(param.grad, group=group)  # type: ignore[arg-type]
                param.grad.div_(dist.get_world_size(group))  # type: ignore[union-attr, arg-type]

    def _move_along(self, direction: Direction) -> None:
        """Put all groups with a radius at ``w + rho * factor * g / ||g||``."""
        self._perturbation.save(direction.params)
        for group, (params, gradients) in direction.pairs:
            uphill = -group["rho"] if group.get("maximize") else group["rho"]
            move(params, gradients, uphill * direction.factor / (direction.norm + NORM_EPS))


@contextlib.contextmanager
def backward_again() -> Iterator[None]:
    """Around a backward pass that keeps the graph: one line in place of torch's where a compiled one cannot."""
    try:
        yield
    except RuntimeError as error:
        if "donated buffer" not in str(error):
            raise
        raise InputError(
            "the network was compiled for one backward pass over a forward pass and a split needs several: set "
            "torch._functorch.config.donated_buffer = False, then call torch.compiler.reset(), and step again"
        ) from error


def compiling() -> bool:
    """Whether torch.compile is in use in this process; its module is not imported to find out, that takes seconds."""
    return "torch._dynamo" in sys.modules


def alone() -> bool:
    """Whether no other process trains with this one: then a pass may be left out without any rank waiting for it."""
    return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
