"""Extreme eigenpairs by thick-restart Lanczos (Wu and Simon, SIAM J. Matrix Anal. Appl. 22, 2000), both ends at once.

    grow an orthonormal basis V to m vectors, T = V'HV (recorded on the way)
    Ritz pairs of T; residual of pair i:  beta |s_mi|
    stop when the wanted pairs of both ends are settled
    else keep some pairs of each end and the residual vector, and go on

One Krylov space serves both ends. Each pair that is returned is *certified* by one fresh product: its value is the
Rayleigh quotient ``v'Hv`` and its residual the true ``||Hv - value v||``, so some eigenvalue lies within ``residual``
of ``value``, and the smallest eigenvalue is at most ``value``. That no eigenvalue further out was missed is probable,
because the start is random, but not proved.

What *is* proved without any convergence: ``v'Hv < 0`` beyond rounding means negative curvature (``is_proof``).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from saddlescape.curvature.guards import exactly, random_vector
from saddlescape.curvature.lanczos import Factorization, LinearOperator, breakdown_level, combine, expand, take_away
from saddlescape.curvature.operator import build_operator
from saddlescape.curvature.sums import unit
from saddlescape.errors import InputError

_ENDS = ("both", "smallest", "largest")


@dataclass(frozen=True)
class Eigenpair:
    """A certified pair. ``vector`` [P], unit length; ``residual`` = ``||H v - value v||`` from a fresh product.

    ``rounding`` bounds what rounding can have done to ``value``. ``converged``: residual within the tolerance asked.
    """

    value: float
    vector: Tensor
    residual: float
    rounding: float
    converged: bool

    @property
    def is_proof(self) -> bool:
        """Whether ``v'Hv < 0`` beyond rounding: proof of negative curvature, converged or not."""
        return self.value < -self.rounding

    @property
    def interval(self) -> tuple[float, float]:
        """Some eigenvalue lies in here."""
        reach = self.residual + self.rounding
        return self.value - reach, self.value + reach


@dataclass(frozen=True)
class Extremes:
    """``smallest`` ascending, ``largest`` descending, both from the outermost; ``products`` counts all products."""

    smallest: list[Eigenpair]
    largest: list[Eigenpair]
    products: int

    @property
    def converged(self) -> bool:
        return all(pair.converged for pair in [*self.smallest, *self.largest])


def nonconvexity(low: float, high: float, rounding: float = 0.0) -> float:
    """|low / high|, the ratio of the smallest to the largest eigenvalue; both matter, so read it beside them.

    Infinite where nothing is positive beyond ``rounding`` but something negative; NaN where nothing is either (a
    plateau): a quotient of rounding errors means nothing.
    """
    if high > rounding:
        return abs(low / high)
    return float("inf") if low < -rounding else float("nan")


class EigenpairsResult(NamedTuple):
    """What ``extreme_eigenpairs`` returns."""

    values: Tensor
    vectors: Tensor


@exactly
def certify(operator: Callable[[Tensor], Tensor], vector: Tensor, tol: float, scale: float = 0.0) -> Eigenpair:
    """Rayleigh quotient and true residual of ``vector`` by one fresh product.

    ``scale``: the size of the operator (its largest |eigenvalue|, as far as known): rounding in a product is relative
    to it, not to the product.
    """
    vector = unit(vector)
    product = operator(vector)
    work = product.double() if product.device.type != "mps" else product
    direction = vector.to(work)
    value = float(direction @ work)
    residual = float((work - value * direction).norm())
    rounding = breakdown_level(vector) * max(scale, float(work.norm()))
    return Eigenpair(value, vector, residual, rounding, residual <= max(tol * abs(value), rounding / 10))


@exactly
def extremes(
    operator: LinearOperator,
    *,
    which: str = "both",
    k: int = 1,
    tol: float = 1e-4,
    stop: str = "residual",
    basis: int = 40,
    max_products: int = 500,
    seed: int = 0,
    start: Tensor | None = None,
    factorization: Factorization | None = None,
) -> Extremes:
    """The ``k`` smallest and/or largest (signed) eigenpairs of a symmetric operator.

    ``which``: ``"both"``, ``"smallest"`` or ``"largest"``. ``stop="residual"``: a pair is settled when its residual is
    at most ``tol * |value|``; ``stop="value"``: when the estimated error of its *value*, ``residual^2 / gap``, is
    (much earlier: eigenvalues converge twice as fast as vectors; ``converged`` still speaks of the residual).
    ``basis``: vectors held, so memory is ``basis x P`` numbers. ``start`` [P] replaces the random start;
    ``factorization`` goes on from a finished Lanczos run on the same operator.
    """
    if which not in _ENDS:
        raise InputError(f"which must be one of {', '.join(_ENDS)}, not {which!r}")
    if stop not in ("residual", "value"):
        raise InputError(f"stop must be 'residual' or 'value', not {stop!r}")
    if k < 1 or (k * (2 if which == "both" else 1) > operator.dim and k > operator.dim):
        raise InputError(f"k={k} eigenpairs of an operator of size {operator.dim} cannot be had")
    begun: Tensor | Factorization
    if factorization is not None:
        begun = factorization
    elif start is not None:
        begun = start.to(operator.like)
    else:
        begun = random_vector(operator.dim, operator.like, seed=seed)
    space = _Space(operator, max(basis, 4 * k + 8), seed, begun)
    low, high = (k if which != "largest" else 0), (k if which != "smallest" else 0)

    while True:
        values, columns = torch.linalg.eigh(space.projected())
        settled = space.size >= min(operator.dim, low + high) and _settled(
            values, space.residual_norm * columns[-1].abs(), low, high, tol, stop, operator.like
        )
        if settled or space.size == operator.dim or space.products >= max_products:
            break
        if space.full:
            space.restart(values, columns, low, high)
        space.grow()

    take = [*range(min(low, space.size)), *range(space.size - 1, space.size - 1 - min(high, space.size), -1)]
    vectors = space.combine(columns[:, take])
    pairs = [certify(operator, vector, tol, float(values.abs().max())) for vector in vectors]
    low = min(low, space.size)
    return Extremes(pairs[:low], pairs[low:], space.products + len(pairs))


@exactly
def extreme_eigenpairs(
    model: nn.Module,
    loss_fn: Callable[..., Any],
    data: Any,
    *,
    which: str = "both",
    k: int = 1,
    tol: float = 1e-4,
    max_products: int = 500,
    basis: int = 40,
    stop: str = "residual",
    seed: int = 0,
    **options: Any,
) -> EigenpairsResult:
    """Extreme eigenpairs of the Hessian of the mean loss: ``(values [n], vectors [n, P])``.

    ``which="both"``: the k smallest, ascending, then the k largest, ascending too, so that ``values[0]`` is
    lambda_min and ``values[-1]`` lambda_max; ``"smallest"`` ascending; ``"largest"`` descending. Values are float64
    Rayleigh quotients. A pair that has not reached ``tol`` within ``max_products`` products is named in a warning;
    ``extremes`` gives the residual of each. Options go to ``build_operator``.
    """
    operator = build_operator(model, loss_fn, data, **options)
    found = extremes(operator, which=which, k=k, tol=tol, stop=stop, basis=basis, max_products=max_products, seed=seed)
    pairs = [*found.smallest, *(reversed(found.largest) if which == "both" else found.largest)]
    late = [pair for pair in pairs if not pair.converged]
    if late and stop == "residual":
        listed = ", ".join(f"{pair.value:.4g} +- {pair.residual:.1g}" for pair in late)
        warnings.warn(
            f"not converged to {tol:g} after {found.products} products: {listed}; raise max_products", stacklevel=2
        )
    return EigenpairsResult(
        torch.tensor([pair.value for pair in pairs], dtype=torch.float64), torch.stack([pair.vector for pair in pairs])
    )


def _settled(values: Tensor, residuals: Tensor, low: int, high: int, tol: float, stop: str, like: Tensor) -> bool:
    scale = float(values.abs().max())
    noise = breakdown_level(like) / 10 * scale
    wanted = {*range(low), *range(len(values) - high, len(values))}
    for i in wanted:
        error = float(residuals[i])
        if stop == "value":
            others = (values - values[i]).abs()
            others[i] = float("inf")
            gap = float(others.min()) - error
            error = min(error, error**2 / gap) if gap > 0 else error
            # A start without much of the outermost vector looks settled too early: ask for some steps at least.
            if len(values) < min(10, low + high + 8):
                return False
        if error > max(tol * abs(float(values[i])), noise):
            return False
    return True


class _Space:
    """Orthonormal vectors V [size, P], the projection T = V'HV, and the residual that leads on.

    ``begun``: a start vector [P], or a Lanczos run on the same operator to go on from. Other than a ``Factorization``
    it can be restarted, and goes on in a new direction where the space is invariant.
    """

    def __init__(self, operator: LinearOperator, capacity: int, seed: int, begun: Tensor | Factorization) -> None:
        self._operator, self._capacity, self._seed = operator, min(capacity, operator.dim), seed
        self.size = self.products = self._fresh = 0
        self.residual_norm = 0.0
        m = begun.steps if isinstance(begun, Factorization) else 0
        rows = max(self._capacity, m)
        self._basis = operator.like.new_empty(rows, operator.dim)
        self._projected = torch.zeros(rows, rows, dtype=torch.float64)
        if isinstance(begun, Factorization):
            self._basis[:m], off = begun.basis, begun.betas[: m - 1]
            self._projected[:m, :m] = torch.diag(begun.alphas) + torch.diag(off, 1) + torch.diag(off, -1)
            self.size = m
            self._lead_on(begun.residual, float(begun.betas[-1]))
        else:
            self._next: Tensor = unit(begun)
            self.grow()

    @property
    def full(self) -> bool:
        return self.size >= self._capacity

    def projected(self) -> Tensor:
        return self._projected[: self.size, : self.size]

    def combine(self, columns: Tensor) -> Tensor:
        return combine(columns, self._basis[: self.size])

    def grow(self) -> None:
        """One product, one vector more."""
        j = self.size
        # With full orthogonalisation the coefficients are V'Hv: exact also for the kept pairs after a restart.
        w, norm, column = expand(self._operator, self._basis, j, self._next)
        self.products += 1
        self._projected[j, : j + 1] = column
        self._projected[: j + 1, j] = column
        self.size = j + 1
        self._lead_on(w, norm if norm > breakdown_level(w) * float(self.projected().abs().max()) else 0.0)

    def _lead_on(self, residual: Tensor, norm: float) -> None:
        """Go on along the residual; where it is zero the pairs are exact, and more of them need a new direction."""
        self.residual_norm = norm
        if norm > 0:
            self._next = unit(residual)
        elif self.size < self._operator.dim:
            self._next = self._new_direction()

    def restart(self, values: Tensor, columns: Tensor, low: int, high: int) -> None:
        """Keep the wanted pairs and a good part of the rest of each end."""
        room = self._capacity // 2
        spare = max(0, room - low - high)
        if low and high:
            keep_low, keep_high = low + spare // 2, high + spare // 2
        else:
            keep_low, keep_high = (low + spare, 0) if low else (0, high + spare)
        keep = [*range(keep_low), *range(self.size - keep_high, self.size)]
        self._basis[: len(keep)] = self.combine(columns[:, keep])
        self._projected.zero_()
        self._projected[range(len(keep)), range(len(keep))] = values[keep]
        self.size = len(keep)
        # Combining in working precision leaves the basis orthogonal to rounding; the next vector is made so again.
        for _ in range(2):
            self._next, _ = take_away(self._next, self._basis[: self.size])
        self._next = unit(self._next)

    def _new_direction(self) -> Tensor:
        self._fresh += 1
        vector = random_vector(self._operator.dim, self._operator.like, seed=self._seed, stream=500 + self._fresh)
        for _ in range(3):
            vector, _ = take_away(unit(vector), self._basis[: self.size])
        return unit(vector)
