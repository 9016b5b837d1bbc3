"""The peer "pyhessian": PyHessian 0.1 in data-loader mode, as its tutorial and the official class-wise analysis use it.

Products are double backward over a ``DataLoader``, the graph built anew for every batch and product. Its density calls
``torch.eig``, which torch no longer has; ``general_eig`` stands in for it with ``torch.linalg.eig``, as PyHessian's
own repository does since 2025. The stand-in works on a matrix of steps x steps: it costs next to nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from pyhessian import hessian
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

DISTRIBUTION = "PyHessian"

Batches = Sequence[tuple[Tensor, Tensor]]


class Peer:
    """``batches`` must be of one size but for the last: they become a ``DataLoader`` again."""

    def __init__(self, model: nn.Module, loss: nn.Module, batches: Batches) -> None:
        inputs, targets = (torch.cat(parts).cpu() for parts in zip(*batches, strict=True))
        loader = DataLoader(TensorDataset(inputs, targets), batch_size=len(batches[0][1]), shuffle=False)
        on_gpu = next(model.parameters()).device.type == "cuda"
        self._hessian = _Counting(model, loss, dataloader=loader, cuda=on_gpu)

    @property
    def products(self) -> int:
        """Products made so far."""
        return self._hessian.products

    def native(self, vector: Tensor) -> list[Tensor]:
        """A vector [P] in the form that this peer multiplies: a tensor per parameter."""
        parameters = self._hessian.params
        parts = vector.split([p.numel() for p in parameters])
        return [part.reshape(p.shape).clone() for part, p in zip(parts, parameters, strict=True)]

    def product(self, vector: list[Tensor]) -> list[Tensor]:
        with _create_graph_is_meant():
            return self._hessian.dataloader_hv_product(vector)[1]

    def flat(self, product: list[Tensor]) -> Tensor:
        return torch.cat([part.reshape(-1) for part in product]).detach()

    def density(self, steps: int) -> tuple[float, float]:
        """A whole density of one probe, up to its nodes and weights; returns the outermost nodes."""
        with _create_graph_is_meant(), general_eig():
            values, _ = self._hessian.density(iter=steps, n_v=1)
        return float(min(values[0])), float(max(values[0]))

    def extremes(self, tol: float, steps: int) -> tuple[float, float]:
        """Both ends; a density is the only way there: its power iteration finds the largest *magnitude* alone."""
        return self.density(steps)

    def without_products(self, diagonal: Tensor, steps: int) -> None:
        """The Lanczos run of ``density`` with a diagonal matrix [P] in the place of the Hessian."""
        parts = self.native(diagonal)
        self._hessian.free = lambda v: [d * part for d, part in zip(parts, v, strict=True)]
        try:
            self.density(steps)
        finally:
            self._hessian.free = None


class _Counting(hessian):
    products = 0
    free: Callable[[list[Tensor]], list[Tensor]] | None = None

    def dataloader_hv_product(self, v: list[Tensor]) -> tuple[float, list[Tensor]]:
        if self.free is not None:
            return 0.0, self.free(v)
        self.products += 1
        return super().dataloader_hv_product(v)


@contextmanager
def general_eig() -> Iterator[None]:
    """``torch.eig`` with the old one's answer: (real and imaginary parts [n, 2], real eigenvectors)."""

    def eig(matrix: Tensor, eigenvectors: bool = False) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eig(matrix)
        return torch.view_as_real(values), vectors.real

    removed = getattr(torch, "eig", None)  # what is there today only says that it was removed
    torch.eig = eig
    try:
        yield
    finally:
        if removed is None:
            del torch.eig
        else:
            torch.eig = removed


@contextmanager
def _create_graph_is_meant() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using backward\\(\\) with create_graph=True")
        yield
