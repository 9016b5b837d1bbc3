"""The two parts of a Hessian: Gauss-Newton, ``J' L'' J``, and the rest, the network's own curvature weighted by the
residuals.

For a convex loss the first has no negative eigenvalue, so negative curvature can only come from the second, which fades
as a class is fitted. Beside the whole they show whether a lambda_min says "saddle" or "badly fitted".
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from saddlescape.curvature import FunctionOperator, GaussNewtonOperator, HessianOperator, extremes
from saddlescape.curvature.guards import random_vector
from saddlescape.curvature.sums import unit
from saddlescape.records.curvature import GaussNewton, ResidualPart, Shares

MOST = 40  # products for the extremes of one part


def hessian_parts(whole: HessianOperator, vectors: Tensor, *, tol: float, seed: int) -> dict[str, Any]:
    """Extremes of both parts, and how ``v'Hv`` divides between them along the Hessian's two extreme eigenvectors.

    Returned as fields of ``saddlescape.records.curvature.Figures``.

    The extremes of the parts are side figures: settled to a residual of 0.3 % (or ``tol``, if larger), so that their
    values are good to 1 %, or flagged by ``converged``. A criterion on the value alone takes the second eigenvalue for
    the first where they lie close; the Hessian's own vectors in the start make it rare that the first is missed.
    ``vectors`` [2, P]: of lambda_min and lambda_max. At most ``MOST`` products for each part.
    """
    part = GaussNewtonOperator(whole.function, whole.samples, batch_size=whole.batch_size)
    low, high = (vector.to(whole.like) for vector in vectors)
    coarse = max(tol, 3e-3)
    start = unit(random_vector(whole.dim, whole.like, seed=seed)) + low + high
    top = extremes(part, which="largest", tol=coarse, start=start, seed=seed, max_products=MOST).largest[0]
    remainder = FunctionOperator(lambda v: whole(v) - part(v), whole.dim, whole.like)
    rest = extremes(remainder, tol=coarse, start=start, seed=seed, max_products=MOST)
    bottom_rest, top_rest = rest.smallest[0], rest.largest[0]
    return {
        "gauss_newton": GaussNewton(
            lambda_max=top.value, residual=top.residual, rounding=top.rounding, converged=top.converged
        ),
        "residual_part": ResidualPart(
            lambda_min=bottom_rest.value,
            lambda_max=top_rest.value,
            residual_min=bottom_rest.residual,
            residual_max=top_rest.residual,
            rounding=max(bottom_rest.rounding, top_rest.rounding),
            converged_min=bottom_rest.converged,
            converged_max=top_rest.converged,
        ),
        "at_lambda_min": _split(whole, part, low),
        "at_lambda_max": _split(whole, part, high),
    }


def _split(whole: HessianOperator, part: HessianOperator, vector: Tensor) -> Shares:
    """``v'Gv`` and ``v'(H - G)v`` for a unit vector."""
    all_of_it = float(vector.double() @ whole(vector).double())
    gauss_newton = float(vector.double() @ part(vector).double())
    return Shares(gauss_newton=gauss_newton, residual_part=all_of_it - gauss_newton)
