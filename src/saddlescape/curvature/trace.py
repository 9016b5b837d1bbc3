"""Trace of a symmetric operator, with its standard error.

Hutchinson: ``E z'Hz = tr H`` for random signs z. Its error is ruled by the few large eigenvalues; taking them out pays
(Meyer et al., Hutch++, 2021): with U orthonormal and independent of z,

    tr H = tr U'HU + E z'(I - UU')H(I - UU')z

exactly, whether U's vectors have converged or not. Ritz vectors of a Lanczos run are U at no cost beyond the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from saddlescape.curvature.guards import exactly, random_vector
from saddlescape.curvature.lanczos import Factorization, LinearOperator, lanczos
from saddlescape.curvature.operator import build_operator
from saddlescape.curvature.sums import dot, dots
from saddlescape.errors import InputError


class TraceEstimate(NamedTuple):
    """``value`` and its standard error (0 where exact), products used, and how it was got."""

    value: float
    stderr: float
    products: int
    method: str

    def __float__(self) -> float:
        return self.value


@exactly
def exact_trace(operator: LinearOperator) -> TraceEstimate:
    """Every basis vector probed: P products."""
    total = 0.0
    for i in range(operator.dim):
        unit = operator.like.new_zeros(operator.dim)
        unit[i] = 1
        total += float(operator(unit)[i])
    return TraceEstimate(total, 0.0, operator.dim, "exact")


@exactly
def deflated(
    operator: LinearOperator,
    factorization: Factorization,
    probes: int = 4,
    *,
    seed: int = 0,
    max_vectors: int = 32,
) -> TraceEstimate:
    """Hutchinson on the complement of the Ritz vectors of ``factorization`` that matter most; few fresh probes.

    The Ritz vectors' own share is read from the run (``U'HU`` is the diagonal of their values), so only ``probes``
    products are spent.
    """
    values, vectors = factorization.eigen()
    # Sizes, not signs, make the error; those near the middle of the spectrum remove nothing.
    order = values.abs().argsort(descending=True)[: min(max_vectors, len(values))]
    order = order[values[order].abs() > 1e-3 * values.abs().max()]
    basis = torch.linalg.qr(factorization.ritz_vectors(vectors[:, order]).t()).Q.t().contiguous()
    outside, error = hutchinson(operator, probes, seed=seed, basis=basis)
    return TraceEstimate(float(values[order].sum()) + outside, error, probes, "deflated")


@exactly
def hutchinson(
    operator: LinearOperator, probes: int, *, seed: int = 0, basis: Tensor | None = None
) -> tuple[float, float]:
    """Mean of ``z'Bz`` over random signs z, with ``B = (I - UU')H(I - UU')`` for orthonormal U [k, P] (None: B = H).

    Returns:
        The trace of B and its standard error ``sqrt(2 mean ||Bz||^2 / probes)``: an upper bound of the true one (a
        diagonal has no error, which it does not use), that already holds for a single probe.
    """
    if probes < 1:
        raise InputError(f"a trace needs at least 1 probe, not {probes}")
    values, squares = [], []
    for i in range(probes):
        z = _outside(random_vector(operator.dim, operator.like, seed=seed, stream=2000 + i, kind="rademacher"), basis)
        product = _outside(operator(z), basis)
        values.append(dot(z, product))
        squares.append(dot(product, product))
    return sum(values) / probes, math.sqrt(2 * sum(squares)) / probes


@exactly
def trace(
    model: nn.Module,
    loss_fn: Callable[..., Any],
    data: Any,
    *,
    probes: int = 30,
    lanczos_steps: int = 30,
    seed: int = 0,
    **options: Any,
) -> TraceEstimate:
    """Trace of the Hessian of the mean loss: ``(value, stderr, products, method)``; ``float(...)`` gives the value.

    A short Lanczos run, then ``probes`` products with what it leaves (``"deflated"``); every basis vector and no error
    where ``probes`` is at least the number of parameters (``"exact"``). ``options`` go to ``build_operator``.
    """
    operator = build_operator(model, loss_fn, data, **options)
    if probes >= operator.dim:
        return exact_trace(operator)
    run = lanczos(operator, random_vector(operator.dim, operator.like, seed=seed), lanczos_steps)
    found = deflated(operator, run, probes, seed=seed)
    return found._replace(products=found.products + run.steps)


def _outside(vector: Tensor, basis: Tensor | None) -> Tensor:
    if basis is None:
        return vector
    return torch.addmv(vector, basis.t(), dots(basis, vector).to(vector), alpha=-1)
