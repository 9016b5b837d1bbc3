"""Gauss-Newton-vector products ``J' L'' J v``: the Hessian without the curvature of the network itself.

For a convex loss it has no negative eigenvalue: what is negative in the Hessian is exactly what this operator leaves
out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saddlescape.curvature.flat import flatten
from saddlescape.curvature.function import LossFunction
from saddlescape.curvature.operator import HessianOperator
from saddlescape.curvature.samples import Samples


class GaussNewtonOperator(HessianOperator):
    """As ``HessianOperator``, for ``J' L'' J`` with ``J`` the Jacobian of the logits and ``L''`` the loss's Hessian."""

    kind = "gauss_newton"

    def _eager(self, batch: Samples, weights: Tensor) -> Any:
        return DoubleBackwardGaussNewton(self.function, batch, weights)


class DoubleBackwardGaussNewton:
    """Products of one batch by reverse mode alone: ``J v`` is the derivative of ``J' u`` with respect to ``u``."""

    def __init__(self, function: LossFunction, batch: Samples, weights: Tensor) -> None:
        self._function = function
        self._leaves = [p.detach().requires_grad_() for p in function.parameters]
        self._logits = function.logits(self._leaves, batch.inputs)
        outer = self._logits.detach().requires_grad_()
        loss = function.mean_loss(batch).total(outer, batch.targets, weights)
        (self._slope,) = torch.autograd.grad(loss, outer, create_graph=True)
        self._outer = outer
        self._dummy = torch.zeros_like(outer, requires_grad=True)
        self._used = []
        if self._logits.requires_grad:
            pulled = torch.autograd.grad(self._logits, self._leaves, self._dummy, create_graph=True, allow_unused=True)
            self._used = [(i, g) for i, g in enumerate(pulled) if g is not None and g.requires_grad]

    def product(self, vector: Tensor) -> Tensor:
        pieces = self._function.split(vector)
        if not self._used or not self._slope.requires_grad:
            return torch.zeros_like(vector)
        pulled = [g for _, g in self._used]
        (jv,) = torch.autograd.grad(pulled, self._dummy, [pieces[i] for i, _ in self._used], retain_graph=True)
        (hjv,) = torch.autograd.grad(self._slope, self._outer, jv, retain_graph=True)
        products = torch.autograd.grad(self._logits, self._leaves, hjv, retain_graph=True, allow_unused=True)
        return flatten(torch.zeros_like(p) if g is None else g for g, p in zip(products, self._leaves, strict=True))
