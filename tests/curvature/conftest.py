"""Small networks and their dense Hessians, the independent truth of this folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, hessian

# torch writes a debug record per traced tensor for a log that nobody asked for; pytest would keep them all.
logging.getLogger("torch.__trace").setLevel(logging.CRITICAL)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On matrices this small, threads that wait for each other cost up to a hundred times what they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Problem(NamedTuple):
    model: nn.Module
    inputs: Tensor
    targets: Tensor

    @property
    def data(self) -> tuple[Tensor, Tensor]:
        return self.inputs, self.targets


def dense_hessian(
    model: nn.Module, inputs: Any, targets: Tensor, loss: Callable[..., Tensor] = F.cross_entropy, names: Any = None
) -> Tensor:
    """The whole Hessian of ``loss(model(inputs), targets)`` by ``torch.func.hessian``, [P, P], model as it is."""
    parameters = {
        k: p.detach()
        for k, p in model.named_parameters()
        if (names is None and p.requires_grad) or (names and k in names)
    }
    shapes = {k: p.shape for k, p in parameters.items()}

    def of_flat(flat: Tensor) -> Tensor:
        pieces = flat.split([shape.numel() for shape in shapes.values()])
        values = {k: piece.view(shape) for (k, shape), piece in zip(shapes.items(), pieces, strict=True)}
        return loss(functional_call(model, values, (inputs,)), targets)

    return hessian(of_flat)(torch.cat([p.reshape(-1) for p in parameters.values()])).detach()


@pytest.fixture
def dense() -> Callable[..., Tensor]:
    return dense_hessian


@pytest.fixture
def net() -> Problem:
    """Convolutions, batch norm, in-place ReLU, 3 classes with 12, 7 and 4 samples, float64, 264 parameters."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1, bias=False),
            nn.BatchNorm2d(3),
            nn.ReLU(inplace=True),
            nn.Conv2d(3, 4, 3, stride=2),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(36, 3),
        ).double()
    inputs = torch.randn(23, 1, 8, 8, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0] * 12 + [1] * 7 + [2] * 4)[torch.randperm(23, generator=generator)]
    model.train()
    with torch.no_grad():
        model(inputs)
    return Problem(model.eval(), inputs, targets)


@pytest.fixture
def mlp() -> Problem:
    """9-6-3 with tanh, float64, 81 parameters."""
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    inputs = torch.randn(20, 9, generator=generator, dtype=torch.float64)
    return Problem(model, inputs, torch.arange(20) % 3)


@pytest.fixture
def indefinite() -> Tensor:
    """A 300 x 300 symmetric matrix: 40 negative, 100 (numerically) zero, 160 positive eigenvalues, a few outliers."""
    g = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(300, 300, generator=g, dtype=torch.float64)).Q
    values = torch.cat(
        [-torch.logspace(-2, 0.7, 40), torch.zeros(100), torch.logspace(-2, 1, 155), torch.linspace(20, 60, 5)]
    )
    a = (q * values.double()) @ q.T
    return (a + a.T) / 2
