"""The peer "curvlinops": ``HessianLinearOperator`` over a list of batches, as its documentation uses it.

Products are forward over reverse, through ``vmap``. Density: ``lanczos_approximate_spectrum``, which first looks for
the ends of the spectrum with SciPy and then runs Lanczos without re-orthogonalisation. Ends: SciPy's ``eigsh`` on the
exported operator, both at once (``which="BE"``).
"""

from __future__ import annotations

from collections.abc import Sequence

from curvlinops import HessianLinearOperator, lanczos_approximate_spectrum
from peers.flat import Flat
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

DISTRIBUTION = "curvlinops-for-pytorch"

Batches = Sequence[tuple[Tensor, Tensor]]


class Peer(Flat):
    without_products = None  # it does not re-orthogonalise

    def __init__(self, model: nn.Module, loss: nn.Module, batches: Batches) -> None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.operator = _Counting(model.eval(), loss, parameters, list(batches))

    def density(self, steps: int) -> None:
        """A whole density of one probe, on its own grid of 1,024 points; its nodes are not handed out."""
        lanczos_approximate_spectrum(self.operator, steps)

    def extremes(self, tol: float, steps: int) -> tuple[float, float]:
        values = eigsh(self.operator.to_scipy(), k=2, which="BE", tol=tol, return_eigenvectors=False)
        return float(values.min()), float(values.max())


class _Counting(HessianLinearOperator):
    products = 0

    def _matmat(self, M: list[Tensor]) -> list[Tensor]:
        self.products += M[0].shape[-1]
        return super()._matmat(M)
