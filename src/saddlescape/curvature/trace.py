"""Trace of a symmetric operator, with its standard error.

Hutchinson: ``E z'Hz = tr H`` for random signs z. Its error is ruled by the few large eigenvalues; taking them out pays
(Meyer et al., Hutch++, 2021): with U orthonormal and independent of z,

    tr H = tr U'HU + E z'(I - UU')H(I - UU')z

exactly, whether U's vectors have converged or not. Ritz vectors of a Lanczos run are U at no cost beyond the run.

XTrace (Epperly, Tropp, Webber, "XTrace: Making the most of every sample in stochastic trace estimation", SIAM J. Matrix
Anal. Appl. 45, 2024) takes U from products with the test vectors themselves, each estimate leaving its own vector out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from saddlescape.curvature.guards import exactly, random_vector
from saddlescape.curvature.lanczos import Factorization, LinearOperator, breakdown_level, lanczos
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
def hutchinson(
    operator: LinearOperator, probes: int = 30, *, seed: int = 0, basis: Tensor | None = None
) -> TraceEstimate:
    """Mean of ``z'Hz`` over random signs; with ``basis`` U [k, P] on its complement, plus ``tr U'HU`` (k products).

    The standard error is ``sqrt(2 mean ||Bz||^2 / probes)`` with B the operator left after U: an upper bound of the
    true one (it forgets that a diagonal has no error), that already holds for a single probe.
    """
    if probes < 1:
        raise InputError(f"a trace needs at least 1 probe, not {probes}")
    inside, products = 0.0, 0
    if basis is not None:
        basis = torch.linalg.qr(basis.t()).Q.t().contiguous()
        for u in basis:
            inside += dot(u, operator(u))
            products += 1
    rest = _hutchinson(operator, probes, seed, basis)
    return TraceEstimate(inside + rest[0], rest[1], products + probes, "hutchinson" if basis is None else "deflated")


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
    outside, error = _hutchinson(operator, probes, seed, basis)
    return TraceEstimate(float(values[order].sum()) + outside, error, probes, "deflated")


@exactly
def xtrace(operator: LinearOperator, probes: int = 16, *, seed: int = 0) -> TraceEstimate:
    """XTrace with ``probes`` Gaussian test vectors: ``2 probes`` products, ``probes x P`` numbers held (thrice in QR).

    The standard error is the spread of the leave-one-out estimates over ``sqrt(probes)``; they share products, so it
    is a guide, not a bound. Where the products span fewer dimensions than there are test vectors, the operator's
    whole range has been found (almost surely: the vectors are random) and the trace is exact to rounding.

    With ``Y = H W = Q R``, ``T = Q'HQ`` and s_i the unit i-th column of ``R^-T``, the basis without vector i is
    ``Q (I - s_i s_i')``; so estimate i is ``tr T - s'Ts + (P - k + 1) u'Hu / u'u`` with ``u = w_i - Q x`` and
    ``x = (I - ss')Q'w_i``, all of it from numbers of k x k.
    """
    if probes < 2:
        raise InputError(f"XTrace needs at least 2 probes for its error, not {probes}")
    if 2 * probes >= operator.dim:
        return exact_trace(operator)
    tests = [random_vector(operator.dim, operator.like, seed=seed, stream=3000 + i) for i in range(probes)]
    images = torch.stack([operator(w) for w in tests])
    heights = images.norm(dim=1)
    if not bool(heights.max() > 0):
        return TraceEstimate(0.0, 0.0, probes, "xtrace")
    basis, triangle = torch.linalg.qr(images.t())
    inside = torch.empty(probes, probes, dtype=torch.float64)
    basis = basis.t().contiguous()
    for j, q in enumerate(basis):
        inside[:, j] = dots(basis, operator(q)).double().cpu()
    inside = (inside + inside.t()) / 2
    triangle = triangle.double().cpu()
    if float(triangle.diagonal().abs().min()) <= breakdown_level(operator.like) * float(heights.max()):
        return TraceEstimate(float(inside.trace()), 0.0, 2 * probes, "xtrace")
    left_out = torch.linalg.solve_triangular(triangle.t(), torch.eye(probes, dtype=torch.float64), upper=False)
    left_out = left_out / left_out.norm(dim=0)
    estimates = []
    for i, w in enumerate(tests):
        s, shadow = left_out[:, i], dots(basis, w).double().cpu()
        x = shadow - s * (s @ shadow)
        outer = dot(w, images[i]) - 2 * float(x @ triangle[:, i]) + float(x @ inside @ x)
        length = dot(w, w) - float(x @ x)
        estimates.append(float(inside.trace() - s @ inside @ s) + (operator.dim - probes + 1) * outer / length)
    values = torch.tensor(estimates, dtype=torch.float64)
    return TraceEstimate(float(values.mean()), float(values.std()) / math.sqrt(probes), 2 * probes, "xtrace")


def _hutchinson(operator: LinearOperator, probes: int, seed: int, basis: Tensor | None) -> tuple[float, float]:
    """Trace of ``(I - UU')H(I - UU')`` for orthonormal U [k, P], and its standard error."""
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
    method: str = "deflated",
    lanczos_steps: int = 30,
    seed: int = 0,
    **options: Any,
) -> TraceEstimate:
    """Trace of the Hessian of the mean loss: ``(value, stderr, products, method)``; ``float(...)`` gives the value.

    ``method``: ``"deflated"`` (a short Lanczos run, then Hutchinson on what it leaves), ``"hutchinson"``, ``"xtrace"``
    (see ``xtrace``; holds ``probes`` vectors) or ``"exact"`` (every basis vector; also taken when ``probes`` is at
    least the number of parameters, for XTrace half of it). Options go to ``build_operator``.
    """
    from saddlescape.curvature.operator import build_operator

    if method not in ("deflated", "hutchinson", "xtrace", "exact"):
        raise InputError(f"method must be 'deflated', 'hutchinson', 'xtrace' or 'exact', not {method!r}")
    trace_method = options.pop("product_method", None)
    if trace_method is not None:
        options["method"] = trace_method
    operator = build_operator(model, loss_fn, data, **options)
    if method == "exact" or probes >= operator.dim:
        return exact_trace(operator)
    if method == "hutchinson":
        return hutchinson(operator, probes, seed=seed)
    if method == "xtrace":
        return xtrace(operator, probes, seed=seed)
    run = lanczos(operator, random_vector(operator.dim, operator.like, seed=seed), lanczos_steps)
    found = deflated(operator, run, probes, seed=seed)
    return found._replace(products=found.products + run.steps)


def _outside(vector: Tensor, basis: Tensor | None) -> Tensor:
    if basis is None:
        return vector
    return torch.addmv(vector, basis.t(), dots(basis, vector).to(vector), alpha=-1)
