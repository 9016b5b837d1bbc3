"""The peer "eigenthings": hessian-eigenthings 1.0's ``HessianOperator`` over a list of batches, as its README has it.

Products are double backward, the graph built anew for every batch and product; batches of unequal size would weigh
alike. Density: ``spectral_density`` with one probe. Ends: ``lanczos`` once for each, 50 steps with
re-orthogonalisation, the most that it takes by default; it does not go on until a residual is small.
"""

from __future__ import annotations

from collections.abc import Sequence

from hessian_eigenthings import HessianOperator, lanczos, spectral_density, supervised_loss
from hessian_eigenthings.operators.base import LambdaOperator
from peers.flat import Flat
from torch import Tensor, nn

DISTRIBUTION = "hessian-eigenthings"
STEPS_PER_END = 50

Batches = Sequence[tuple[Tensor, Tensor]]


class Peer(Flat):
    def __init__(self, model: nn.Module, loss: nn.Module, batches: Batches) -> None:
        self.operator = _Counting(model.eval(), list(batches), supervised_loss(loss))

    def density(self, steps: int) -> tuple[float, float]:
        """A whole density of one probe, on its own grid of 10,000 points; returns the outermost nodes."""
        nodes = spectral_density(self.operator, num_runs=1, lanczos_steps=steps, seed=0).raw_eigenvalues[0]
        return float(nodes.min()), float(nodes.max())

    def extremes(self, tol: float, steps: int) -> tuple[float, float]:
        most = min(STEPS_PER_END, self.operator.size)
        low, high = (lanczos(self.operator, k=1, max_iter=most, tol=tol, which=end, seed=0) for end in ("SA", "LA"))
        return float(low.eigenvalues[0]), float(high.eigenvalues[0])

    def without_products(self, diagonal: Tensor, steps: int) -> None:
        """The run of ``density`` with a diagonal matrix [P] in the place of the Hessian."""
        own = self.operator
        free = LambdaOperator(lambda v: diagonal * v, own.size, own.device, own.dtype)
        spectral_density(free, num_runs=1, lanczos_steps=steps, seed=0)


class _Counting(HessianOperator):
    products = 0

    def matvec(self, v: Tensor) -> Tensor:
        self.products += 1
        return super().matvec(v)

    def __matmul__(self, v: Tensor) -> Tensor:
        return self.matvec(v)
