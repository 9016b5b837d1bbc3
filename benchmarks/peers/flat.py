"""What the peers whose vectors are flat tensors share, and ours."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class Flat:
    """``operator``: multiplies vectors [P]; ``products`` counts them, those of a peer's own checks included."""

    operator: Any

    @property
    def products(self) -> int:
        return self.operator.products

    def native(self, vector: Tensor) -> Tensor:
        return vector.clone()

    def product(self, vector: Tensor) -> Tensor:
        return self.operator @ vector

    def flat(self, product: Tensor) -> Tensor:
        return product.detach()
