"""Lanczos' factorisation ``H Q = Q T + r e'``: made once, used by extremes, density, trace and negative mass alike.

    q_1 = start / ||start||
    for j = 1..m:
        w = H q_j
        h = Q' w;  w = w - Q h                # with the last two vectors, then with all, and once more if it cancelled
        alpha_j = h_j (sum of all passes);  beta_j = ||w||
        stop if beta_j is zero beside ||T||;  q_{j+1} = w / beta_j

The basis is one matrix, so a pass over all of it is two matrix-vector products. In exact arithmetic the last two
vectors are all that H q_j has a part in; once these parts are gone, what a pass over all takes away is rounding, and
one pass leaves ``w`` orthogonal to rounding. Where it takes away much (``||w||`` falls below 0.7 of what it was: after
a restart, or at a break-down) it is made twice, which is enough (Daniel, Gragg, Kaufman and Stewart, Math. Comp. 30,
1976). The small problem is solved in float64. A break-down (beta ~ 0) means that the space is invariant and the small
problem exact: the normal case for the Hessian of a class of few images, whose rank is small.

Deviations from PyHessian's ``lanczos``:

1. T holds the betas after re-orthogonalisation, so that ``H Q = Q T + r e'`` holds to rounding;
2. break-down ends the run, relative to the size of T, instead of going on with a random vector;
3. the tridiagonal problem is solved by a symmetric solver.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from saddlescape.curvature.guards import exactly
from saddlescape.curvature.sums import dots, length, lengths
from saddlescape.errors import InputError

_CANCELLED = 0.7


class LinearOperator(Protocol):
    """A symmetric operator: ``operator(v) -> H v``, its size, and an (empty) tensor of its dtype and device."""

    dim: int
    like: Tensor

    def __call__(self, vector: Tensor) -> Tensor: ...


class FunctionOperator:
    """A plain function ``v -> H v`` as a ``LinearOperator``."""

    def __init__(self, function: Callable[[Tensor], Tensor], dim: int, like: Tensor | None = None) -> None:
        self.function, self.dim = function, dim
        self.like = torch.empty(0) if like is None else like.new_empty(0)

    def __call__(self, vector: Tensor) -> Tensor:
        return self.function(vector)


class Factorization:
    """``H Q = Q T + residual e'`` after ``steps`` steps.

    ``alphas`` [steps], ``betas`` [steps] (the last one is ``||residual||``) in float64 on the host; ``basis`` [steps,
    P]; ``residual`` [P] (not normalised). ``exhausted``: the space is invariant, T is exact and nothing more can
    come.
    """

    def __init__(self, start: Tensor, max_steps: int) -> None:
        """Raises ``InputError`` for a start that is zero or not finite, or for no steps."""
        norm = length(start)
        if not norm > 0 or norm == float("inf"):
            raise InputError("the Lanczos start vector must be finite and not zero")
        if max_steps < 1:
            raise InputError(f"Lanczos needs at least 1 step, not {max_steps}")
        self.max_steps = min(max_steps, len(start))
        self._basis = start.new_empty(self.max_steps, len(start))
        self._next = start / norm
        self.residual = torch.zeros_like(start)
        self.alphas = torch.empty(0, dtype=torch.float64)
        self.betas = torch.empty(0, dtype=torch.float64)
        self.exhausted = False

    @property
    def steps(self) -> int:
        return len(self.alphas)

    @property
    def done(self) -> bool:
        return self.exhausted or self.steps == self.max_steps

    @property
    def basis(self) -> Tensor:
        return self._basis[: self.steps]

    @exactly
    def step(self, operator: Callable[[Tensor], Tensor]) -> None:
        """One product more."""
        j = self.steps
        # Before anything is stored: a step that fails or is interrupted leaves the factorisation as it was.
        w, beta, coefficients = expand(operator, self._basis, j, self._next)
        alpha = float(coefficients[j])
        scale = max([abs(alpha), *self.alphas.abs().tolist(), *self.betas.tolist()], default=0.0)
        self.exhausted = beta <= breakdown_level(w) * scale or j + 1 == len(w)
        self.alphas = torch.cat([self.alphas, torch.tensor([alpha], dtype=torch.float64)])
        self.betas = torch.cat([self.betas, torch.tensor([0.0 if self.exhausted else beta], dtype=torch.float64)])
        self.residual = w
        if not self.exhausted:
            self._next = w / beta

    def eigen(self) -> tuple[Tensor, Tensor]:
        """Ritz values [steps], ascending, and the eigenvectors of T, [steps, steps] in columns; float64, host."""
        return tridiagonal_eigen(self.alphas, self.betas[:-1])

    @exactly
    def ritz_vectors(self, columns: Tensor) -> Tensor:
        """``columns`` [steps, k] of eigenvectors of T -> unit Ritz vectors [k, P]."""
        return combine(columns, self.basis)

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on, as tensors."""
        return {
            "alphas": self.alphas,
            "betas": self.betas,
            "basis": self.basis.clone(),
            "next": self._next,
            "residual": self.residual,
            "max_steps": torch.tensor(self.max_steps),
            "exhausted": torch.tensor(self.exhausted),
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Factorization:
        self = cls(state["next"].clone(), int(state["max_steps"]))
        self._next = state["next"].clone()  # bit for bit: not normalised once more
        self.alphas, self.betas = state["alphas"].clone(), state["betas"].clone()
        self._basis[: len(self.alphas)] = state["basis"]
        self.residual, self.exhausted = state["residual"].clone(), bool(state["exhausted"])
        return self


@exactly
def lanczos(
    operator: LinearOperator,
    start: Tensor,
    steps: int,
    *,
    state: Factorization | None = None,
    callback: Callable[[Factorization], bool | None] | None = None,
) -> Factorization:
    """Run ``steps`` steps from ``start`` [P], or go on from ``state``.

    ``callback(factorisation)`` is called after each step; returning ``True`` ends the run. The factorisation is whole
    after every step, so an interrupt loses one product at most.
    """
    factorization = Factorization(start.to(operator.like), steps) if state is None else state
    while not factorization.done:
        factorization.step(operator)
        if callback is not None and callback(factorization):
            break
    return factorization


def expand(
    operator: Callable[[Tensor], Tensor], basis: Tensor, size: int, vector: Tensor
) -> tuple[Tensor, float, Tensor]:
    """Put ``vector`` [P] into row ``size`` of ``basis``; ``H vector`` without its parts along the basis, and these.

    Returns:
        The residual [P], its length, and the coefficients ``Q'H vector`` [size + 1], float64 on the host.

    Raises:
        InputError: a product that is NaN or infinite.
    """
    basis[size] = vector
    residual, parts = orthogonalise(operator(vector), basis[: size + 1])
    norm, parts = length(residual), parts.cpu().double()
    if not (bool(torch.isfinite(parts).all()) and math.isfinite(norm)):
        raise InputError(
            "a product of the operator is NaN or infinite: look at the loss of this data at these weights"
        )
    return residual, norm, parts


def combine(columns: Tensor, basis: Tensor) -> Tensor:
    """``columns`` [m, k] of coefficients -> unit vectors [k, P] of the space of ``basis`` [m, P]."""
    vectors = columns.t().to(basis) @ basis
    return vectors / lengths(vectors)


def orthogonalise(vector: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """``vector`` [P] without its parts along the orthonormal rows of ``basis`` [m, P], and these parts [m].

    Orthogonal to rounding, in one pass or two (see the module's text). The last two rows go first: for ``H`` times the
    last row of a Lanczos basis they are what matters.
    """
    vector, recent = take_away(vector, basis[-2:])
    before = length(vector)
    vector, parts = take_away(vector, basis)
    if not length(vector) > _CANCELLED * before:
        vector, more = take_away(vector, basis)
        parts += more
    parts[-2:] += recent
    return vector, parts


def take_away(vector: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """``vector`` [P] without its parts along the rows [m, P], in one pass, and these parts [m]."""
    parts = dots(rows, vector)
    return torch.addmv(vector, rows.t(), parts.to(vector), alpha=-1), parts


def breakdown_level(like: Tensor) -> float:
    """Beside the size of the operator, what is only rounding."""
    return 100 * torch.finfo(like.dtype).eps


def tridiagonal_eigen(diagonal: Tensor, off_diagonal: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (ascending) and eigenvectors (columns) of a symmetric tridiagonal matrix, float64 on the host."""
    from scipy.linalg import eigh_tridiagonal  # late: SciPy takes 0.2 s to import

    values, vectors = eigh_tridiagonal(diagonal.numpy(), off_diagonal.numpy())
    return torch.from_numpy(values), torch.from_numpy(vectors)
