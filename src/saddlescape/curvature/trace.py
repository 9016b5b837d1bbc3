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
from torch import nn

from saddlescape.curvature.guards import exactly, random_vector
from saddlescape.curvature.lanczos import Factorization, LinearOperator, lanczos, take_away
from saddlescape.curvature.operator import build_operator
from saddlescape.curvature.sums import dot
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
    operator: LinearOperator, factorization: Factorization, probes: int = 4, *, seed: int = 0
) -> TraceEstimate:
    """Hutchinson on the complement of the Ritz vectors of ``factorization`` that matter most; few fresh probes.

    The Ritz vectors' own share is read from the run (``U'HU`` is the diagonal of their values), so only ``probes``
    products are spent. With ``B = (I - UU')H(I - UU')`` the standard error is ``sqrt(2 mean ||Bz||^2 / probes)``: an
    upper bound of the true one (a diagonal has no error, which it does not use), that holds for a single probe.
    """
    if probes < 1:
        raise InputError(f"a trace needs at least 1 probe, not {probes}")
    values, vectors = factorization.eigen()
    # Sizes, not signs, make the error; those near the middle of the spectrum remove nothing.
    order = values.abs().argsort(descending=True)[:32]
    order = order[values[order].abs() > 1e-3 * values.abs().max()]
    basis = torch.linalg.qr(factorization.ritz_vectors(vectors[:, order]).t()).Q.t().contiguous()
    terms, squares = [], []
    for i in range(probes):
        z = random_vector(operator.dim, operator.like, seed=seed, stream=2000 + i, kind="rademacher")
        z = take_away(z, basis)[0]
        product = take_away(operator(z), basis)[0]
        terms.append(dot(z, product))
        squares.append(dot(product, product))
    value = float(values[order].sum()) + sum(terms) / probes
    return TraceEstimate(value, math.sqrt(2 * sum(squares)) / probes, probes, "deflated")


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
