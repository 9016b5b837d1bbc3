"""Slices through the loss: ``L(w + a d1 + b d2)``, for the mean over all data or for single classes.

Directions, as they are known:

- *random*, filter-normalised (Li et al., NeurIPS 2018): Gaussian, each slice along the first dimension of every
  tensor with two or more dimensions scaled to the norm of the same slice of the weights; zero for biases and
  normalisation;
- *eigen*: unit eigenvectors of the loss's own Hessian, d1 of its smallest and d2 of its largest eigenvalue: the
  image of a saddle. Near the middle the surface is ``L + a g'd1 + b g'd2 + (lambda_min a^2 + lambda_max b^2) / 2``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saddlescape.curvature.extremes import extremes
from saddlescape.curvature.function import LossFunction
from saddlescape.curvature.guards import exactly, random_vector
from saddlescape.curvature.operator import ALL, operators
from saddlescape.disk import read_npz, write_npz
from saddlescape.errors import InputError

FORMAT = "saddlescape-surface-1"


@dataclass(frozen=True)
class Surface:
    """Losses on a grid. All arrays float64.

    ``losses`` [K, A] or [K, A, B] over ``alphas`` [A] (along d1) and ``betas`` [B] (along d2; empty for a line), for
    the K ``labels`` (-1: all data). ``slopes`` [K, 2]: gradient along d1 and d2 at the middle; ``curvatures`` [K, 2]:
    ``d'Hd`` there (the eigenvalues, for eigenvectors). ``directions``: ``"random"`` or ``"eigen"``.
    """

    alphas: np.ndarray
    betas: np.ndarray
    losses: np.ndarray
    labels: tuple[int, ...]
    slopes: np.ndarray
    curvatures: np.ndarray
    center: np.ndarray
    directions: str
    seed: int

    def of(self, label: int = -1) -> np.ndarray:
        """The losses [A] or [A, B] of one label; raises ``InputError`` if it was not measured."""
        if label not in self.labels:
            raise InputError(f"the surface holds labels {list(self.labels)}, not {label}")
        return self.losses[self.labels.index(label)]

    def save(self, path: str | Path) -> None:
        """Write an ``.npz``; whole or not at all."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        write_npz(path, FORMAT, arrays, {"labels": self.labels, "directions": self.directions, "seed": self.seed})

    @classmethod
    def load(cls, path: str | Path) -> Surface:
        """Read what ``save`` wrote; raises ``InputError`` for anything else."""
        arrays, meta = read_npz(path, FORMAT)
        try:
            return cls(
                **{name: arrays[name] for name in _ARRAYS},
                labels=tuple(meta["labels"]),
                directions=meta["directions"],
                seed=meta["seed"],
            )
        except KeyError as problem:
            raise InputError(f"{path} is not a complete surface file: {problem} is missing") from None


_ARRAYS = ("alphas", "betas", "losses", "slopes", "curvatures", "center")


@exactly
def loss_surface(
    model: nn.Module,
    loss_fn: Callable[..., Any],
    data: Any,
    *,
    directions: str = "eigen",
    span: float = 1.0,
    steps: int = 21,
    dims: int = 2,
    classes: Iterable[int] | None = None,
    seed: int = 0,
    tol: float = 1e-3,
    max_products: int = 200,
    progress: Callable[[int, int], Any] | None = None,
    **options: Any,
) -> Surface:
    """Evaluate the mean loss on ``steps`` (x ``steps``) points from ``-span`` to ``span`` along each direction.

    ``directions``: ``"eigen"`` (each class along its own) or ``"random"`` (the same for all). ``dims``: 2, or 1 for a
    line along d1 (``"eigen"``: the most negative direction). ``classes``: labels; default: the mean over everything
    (label -1). Batch statistics are those the model has; its weights are not touched. ``progress(done, total)`` after
    each point. ``options``: of ``build_operator``. Raises ``InputError`` as ``class_spectra``.
    """
    if steps < 2 or not span > 0:
        raise InputError(f"a surface needs steps of at least 2 and a span above 0, not {steps} and {span}")
    if dims not in (1, 2):
        raise InputError(f"dims must be 1 or 2, not {dims}")
    if directions not in ("eigen", "random"):
        raise InputError(f"directions must be 'eigen' or 'random', not {directions!r}")
    builders = operators(model, loss_fn, data, classes=(ALL,) if classes is None else classes, **options)
    alphas = np.linspace(-span, span, steps)
    betas = alphas if dims == 2 else np.zeros(0)
    losses, slopes, curvatures, centers, done = [], [], [], [], 0
    for build in builders.values():
        operator = build()
        weights = operator.function.vector()
        if directions == "eigen":
            found = extremes(operator, tol=tol, max_products=max_products, seed=seed)
            pair = [_signed(found.smallest[0].vector), _signed(found.largest[0].vector)][:dims]
            bends = [found.smallest[0].value, found.largest[0].value][:dims]
        else:
            pair = [filter_normalised(operator.function, seed, stream) for stream in (3001, 3002)][:dims]
            bends = [float(d @ operator(d)) for d in pair]
        center, gradient = operator.loss_and_gradient()
        slopes.append([float(d @ gradient) for d in pair])
        curvatures.append(bends)
        centers.append(float(center))
        values = np.empty((steps,) * dims)
        for index in np.ndindex(values.shape):
            point = weights
            for position, direction in zip(index, pair, strict=True):
                point = point + float(alphas[position]) * direction
            values[index] = float(operator.loss(point))
            done += 1
            if progress is not None:
                progress(done, len(builders) * values.size)
        losses.append(values)
    return Surface(
        alphas=alphas,
        betas=betas,
        losses=np.stack(losses),
        labels=tuple(builders),
        slopes=np.array(slopes),
        curvatures=np.array(curvatures),
        center=np.array(centers),
        directions=directions,
        seed=seed,
    )


def filter_normalised(function: LossFunction, seed: int, stream: int = 3001) -> Tensor:
    """A random direction [P], every filter of it as long as the weights' own; zero for tensors of one dimension."""
    parts = []
    drawn = random_vector(function.dim, function.like(), seed=seed, stream=stream)
    for piece, weight in zip(function.split(drawn), function.parameters, strict=True):
        if weight.dim() < 2:
            parts.append(torch.zeros_like(weight).reshape(-1))
            continue
        rows, own = piece.flatten(1), weight.flatten(1)
        parts.append((rows / (rows.norm(dim=1, keepdim=True) + 1e-10) * own.norm(dim=1, keepdim=True)).reshape(-1))
    return torch.cat(parts)


def _signed(vector: Tensor) -> Tensor:
    """An eigenvector has no sign of its own: its largest entry is made positive, so that figures agree."""
    return vector * torch.sign(vector[vector.abs().argmax()])
