"""The course of curvature over training: lambda_min, lambda_max and their ratio of each class, epoch after epoch.

Each measurement starts Lanczos from a mix of the last one's eigenvectors and fresh noise. The old vectors are no Krylov
space of the new Hessian, so they may only be a start, never a restart; and without the noise a newly born negative
direction, orthogonal to the old ones, could be missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from saddlescape.curvature.extremes import extremes, nonconvexity
from saddlescape.curvature.function import LossFunction
from saddlescape.curvature.guards import held_still, random_vector, unwrapped
from saddlescape.curvature.operator import HessianOperator
from saddlescape.curvature.samples import gather, split_by_class
from saddlescape.curvature.sums import unit
from saddlescape.errors import InputError

_BASIS = 30  # vectors held
_NOISE = 0.3  # length of the fresh noise beside the last eigenvectors


@dataclass(frozen=True)
class TrackPoint:
    """One class at one epoch. Residuals are true ones, to which ``rounding`` comes; ``proved``: v'Hv < 0 beyond it."""

    epoch: int
    label: int
    lambda_min: float
    lambda_max: float
    residual_min: float
    residual_max: float
    converged: bool
    proved: bool
    loss: float
    products: int
    seconds: float
    rounding: float = 0.0

    @property
    def nonconvexity(self) -> float:
        """``|lambda_min / lambda_max|``; infinite where nothing is positive beyond rounding, NaN on a plateau."""
        return nonconvexity(self.lambda_min, self.lambda_max, self.rounding)


class CurvatureTracker:
    """Call it in any loop: ``tracker(model, epoch)``.

    Measures at epochs 0, ``every``, 2 ``every``, ... (``force=True``: in any case), in eval mode, and leaves the
    model as it was (mode, gradients, buffers, random state), so a training goes on to the same bits. ``points``
    collects what was measured; ``seconds`` is the time spent. ``state_dict`` holds points and start vectors, so a
    resumed run goes on warm.

    ``products`` bounds the work per class and epoch; ``tol`` is the residual at which a pair is settled.
    """

    def __init__(
        self,
        loss_fn: Callable[..., Any],
        data: Any,
        *,
        every: int = 10,
        classes: Iterable[int] | None = None,
        tol: float = 1e-2,
        products: int = 60,
        batch_size: int = 256,
        seed: int = 0,
        method: str = "auto",
    ) -> None:
        if every < 1:
            raise InputError(f"every must be at least 1 epoch, not {every}")
        self.loss_fn, self.every = loss_fn, every
        self.points: list[TrackPoint] = []
        self.seconds = 0.0
        self._all = gather(data)
        self._sets = split_by_class(self._all, classes)
        self._tol, self._products, self._seed = tol, products, seed
        self._batch_size, self._method = batch_size, method
        self._starts: dict[int, Tensor] = {}
        self._function: LossFunction | None = None

    def __call__(self, model: nn.Module, epoch: int, *, force: bool = False) -> list[TrackPoint]:
        """The points of this epoch; none where it is not due."""
        if not force and epoch % self.every:
            return []
        began = time.monotonic()
        with held_still(unwrapped(model), "eval"):
            function = self._read(model)
            new = [self._measure(function, label, epoch) for label in self._sets]
        self.seconds += time.monotonic() - began
        return new

    def course(self, label: int) -> list[TrackPoint]:
        """The points of one class, by epoch."""
        return sorted((point for point in self.points if point.label == label), key=lambda point: point.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""
        return {
            "points": [asdict(point) for point in self.points],
            "starts": {label: start.clone() for label, start in self._starts.items()},
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self.points = [TrackPoint(**point) for point in state["points"]]
        self._starts = {int(label): start for label, start in state["starts"].items()}
        self.seconds = float(state["seconds"])

    def _read(self, model: nn.Module) -> LossFunction:
        known = self._function
        if known is None or not known.is_of(model):
            known = self._function = LossFunction(model, self.loss_fn)
            known.examine(self._all, self._batch_size)
        else:  # the traces stay: they do not depend on the weights
            known.refresh()
        return known

    def _measure(self, function: LossFunction, label: int, epoch: int) -> TrackPoint:
        began = time.monotonic()
        operator = HessianOperator(function, self._sets[label], batch_size=self._batch_size, method=self._method)
        noise = random_vector(operator.dim, operator.like, seed=self._seed, stream=10_000 + epoch)
        start, last = unit(noise), self._starts.get(label)
        if last is not None and len(last) == operator.dim:
            start = last.to(operator.like) + _NOISE * start
        found = extremes(
            operator, tol=self._tol, basis=_BASIS, max_products=self._products, seed=self._seed, start=start
        )
        low, high = found.smallest[0], found.largest[0]
        self._starts[label] = unit(low.vector + high.vector).cpu()
        point = TrackPoint(
            epoch=epoch,
            label=label,
            lambda_min=low.value,
            lambda_max=high.value,
            residual_min=low.residual,
            residual_max=high.residual,
            converged=found.converged,
            proved=low.is_proof,
            loss=float(operator.loss()),
            products=found.products,
            seconds=time.monotonic() - began,
            rounding=max(low.rounding, high.rounding),
        )
        self.points.append(point)
        return point
