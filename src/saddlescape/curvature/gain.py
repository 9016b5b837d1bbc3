"""What SAM's step does along the most negative direction of the loss: its size and its sign, measured and predicted.

To first order the SAM gradient is ``g + H eps`` with ``eps = rho g / ||g||``. Along a unit eigenvector v with
``H v = lambda v`` its component is that of g times ``1 + rho lambda / ||g||``. So for lambda < 0 it is larger in size
only where this factor is below -1, that is rho > 2 ||g|| / |lambda|, and then with the *opposite sign*: a deterministic
step moves towards the saddle along v. Size and sign are therefore reported apart. The formula is exact for quadratics;
elsewhere the measured values are the result and the predicted ones a check of the theory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from saddlescape.curvature.extremes import certify, extremes
from saddlescape.curvature.guards import exactly
from saddlescape.curvature.operator import ALL, HessianOperator, operators
from saddlescape.curvature.samples import gather
from saddlescape.curvature.sums import dot, length
from saddlescape.errors import InputError


@dataclass(frozen=True)
class SamGain:
    """Components along one eigenvector over B mini-batches, for R values of rho; float64.

    ``rho`` [R]; ``eigenvalue`` with its ``residual`` and whether it ``converged``; ``gradient_norms`` [B];
    ``gradient_components`` [B] = <v, g>; ``sam_components`` [R, B] = <v, g(w + eps)>.
    """

    rho: Tensor
    eigenvalue: float
    residual: float
    converged: bool
    gradient_norms: Tensor
    gradient_components: Tensor
    sam_components: Tensor

    @property
    def gain(self) -> Tensor:
        """[R]: mean square of the SAM component over mean square of the gradient's: above 1 is amplified."""
        return (self.sam_components**2).mean(1) / (self.gradient_components**2).mean()

    @property
    def sign(self) -> Tensor:
        """[R]: +1 where the SAM component points with the gradient's over the batches, -1 where it is turned round."""
        return torch.sign((self.sam_components * self.gradient_components).mean(1))

    @property
    def factor(self) -> Tensor:
        """[R]: the measured factor with its sign, by least squares over the batches."""
        return (self.sam_components * self.gradient_components).mean(1) / (self.gradient_components**2).mean()

    @property
    def predicted_factors(self) -> Tensor:
        """[R, B]: ``1 + rho lambda / ||g||`` for each mini-batch."""
        return 1 + self.rho[:, None] * self.eigenvalue / self.gradient_norms[None]

    @property
    def predicted_gain(self) -> Tensor:
        """[R]: the gain if every mini-batch obeyed its predicted factor."""
        squares = self.gradient_components**2
        return (squares * self.predicted_factors**2).mean(1) / squares.mean()

    @property
    def predicted_sign(self) -> Tensor:
        """[R]: the sign of the predicted component over the batches."""
        return torch.sign((self.gradient_components**2 * self.predicted_factors).mean(1))

    @property
    def rho_threshold(self) -> float:
        """The rho at which the predicted gain is 1 again, beyond which negative curvature is amplified.

        ``-2 mean(c^2/||g||) / (lambda mean(c^2/||g||^2))`` over the mini-batches, c their components; for one batch
        ``2 ||g|| / |lambda|``. 0 for a positive eigenvalue (amplified at any rho), infinite for 0.
        """
        if self.eigenvalue > 0:
            return 0.0
        if self.eigenvalue == 0:
            return math.inf
        scale, squares = self.gradient_norms, self.gradient_components**2
        return float(-2 * (squares / scale).mean() / (self.eigenvalue * (squares / scale**2).mean()))

    @property
    def measured_threshold(self) -> float | None:
        """The smallest rho (between those measured, by straight line) from which the measured gain stays above 1.

        The smallest one measured where the gain is above 1 at all of them; None where it is not at the largest.
        """
        order = self.rho.argsort()
        rho, gain = self.rho[order].tolist(), self.gain[order].tolist()
        if not gain or gain[-1] <= 1:
            return None
        last = max((i for i, value in enumerate(gain) if value <= 1), default=None)
        if last is None:
            return rho[0]
        return rho[last] + (1 - gain[last]) * (rho[last + 1] - rho[last]) / (gain[last + 1] - gain[last])

    def summary(self) -> list[dict[str, Any]]:
        """A row per rho, fit for JSON."""
        columns = {"rho": self.rho, "gain": self.gain, "sign": self.sign.int(), "factor": self.factor,
                   "predicted_gain": self.predicted_gain, "predicted_sign": self.predicted_sign.int()}  # fmt: skip
        return [{name: column[i].item() for name, column in columns.items()} for i in range(len(self.rho))]


def rho_threshold(eigenvalue: float, gradient_norm: float) -> float:
    """``2 ||g|| / |lambda|`` for lambda < 0: the rho beyond which SAM's step amplifies this direction, to first order.

    0 for a positive eigenvalue (amplified at any rho), infinite for 0.
    """
    if gradient_norm < 0:
        raise InputError(f"a gradient norm cannot be {gradient_norm}")
    if eigenvalue > 0:
        return 0.0
    return math.inf if eigenvalue == 0 else 2 * gradient_norm / -eigenvalue


@exactly
def sam_gain(
    model: nn.Module,
    loss_fn: Callable[..., Any],
    data: Any,
    rho: float | Sequence[float],
    *,
    label: int | None = None,
    vector: Tensor | None = None,
    gradient_data: Any = None,
    batch_size: int = 128,
    hessian_batch_size: int = 256,
    tol: float = 1e-3,
    max_products: int = 200,
    seed: int = 0,
    check: bool = True,
    **options: Any,
) -> SamGain:
    """Measure SAM's gain along the most negative eigenvector of the loss of ``data`` (of class ``label``, if given).

    Args:
        rho: one value or several.
        label: measure the loss of this class alone.
        vector: [P], in place of the eigenvector; its Rayleigh quotient is then the eigenvalue.
        gradient_data: where the mini-batches of ``batch_size`` come from; default: the same data, in an order that
            depends on ``seed``.
        options: of ``build_operator``, whose ``batch_size`` is ``hessian_batch_size`` here.

    Weights are not touched: the perturbed gradient is that of a copy.

    Raises:
        InputError: a bad rho, an absent class, and all that ``class_spectra`` refuses.
    """
    rhos = torch.as_tensor([rho] if isinstance(rho, int | float) else list(rho), dtype=torch.float64).reshape(-1)
    if len(rhos) == 0 or not bool(torch.isfinite(rhos).all()) or bool((rhos < 0).any()):
        raise InputError(f"rho must be one or more finite values of at least 0, not {rho}")
    classes = (ALL if label is None else label,)
    (build,) = operators(
        model, loss_fn, data, classes=classes, batch_size=hessian_batch_size, check=check, **options
    ).values()
    operator = build()
    if vector is None:
        pair = extremes(operator, which="smallest", tol=tol, max_products=max_products, seed=seed).smallest[0]
    else:
        pair = certify(operator, vector.to(operator.like), tol)

    others = operator.samples if gradient_data is None else gather(gradient_data, check=check)
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))
    weights = operator.function.vector()
    norms, plain, perturbed = [], [], []
    for batch in others.take(order).batches(batch_size):
        part = HessianOperator(operator.function, batch, batch_size=max(1, len(batch)), method="double_backward")
        _, gradient = part.loss_and_gradient()
        norm = length(gradient)
        if norm == 0:
            raise InputError("the gradient of a mini-batch is exactly zero: SAM's step is not defined there")
        norms.append(norm)
        plain.append(dot(pair.vector, gradient))
        ascent = gradient / norm
        perturbed.append([dot(pair.vector, part.loss_and_gradient(weights + r * ascent)[1]) for r in rhos.tolist()])
    return SamGain(
        rho=rhos,
        eigenvalue=pair.value,
        residual=pair.residual,
        converged=pair.converged,
        gradient_norms=torch.tensor(norms, dtype=torch.float64),
        gradient_components=torch.tensor(plain, dtype=torch.float64),
        sam_components=torch.tensor(perturbed, dtype=torch.float64).t().contiguous(),
    )
