"""XTrace against the dense trace, against leaving vectors out one by one, and against its own error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from saddlescape.curvature import FunctionOperator, trace
from saddlescape.curvature.guards import random_vector
from saddlescape.curvature.trace import hutchinson, xtrace
from saddlescape.errors import InputError


def matrix(values: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)).Q
    return basis @ torch.diag(values) @ basis.t()


def operator_of(dense: Tensor) -> FunctionOperator:
    return FunctionOperator(lambda v: dense @ v, len(dense), dense)


def decaying(dim: int = 200) -> Tensor:
    """A few large eigenvalues, some negative, over a small bulk: as a Hessian's."""
    values = 50 * 0.6 ** torch.arange(dim, dtype=torch.float64)
    values[3:6] *= -1
    return values + 0.01


def test_equals_leaving_vectors_out_one_by_one() -> None:
    """Each leave-one-out basis by a QR of its own, as the paper defines the estimate."""
    dense, k, dim = matrix(decaying(60)), 7, 60
    tests = torch.stack([random_vector(dim, dense, seed=5, stream=3000 + i) for i in range(k)], 1)
    estimates = []
    for i in range(k):
        others = torch.linalg.qr(dense @ tests[:, [j for j in range(k) if j != i]]).Q
        u = tests[:, i] - others @ (others.t() @ tests[:, i])
        u *= ((dim - k + 1) ** 0.5) / u.norm()
        estimates.append((others.t() @ dense @ others).trace() + u @ dense @ u)
    slow = torch.stack(estimates)
    found = xtrace(operator_of(dense), k, seed=5)
    assert found.value == pytest.approx(float(slow.mean()), rel=1e-9)
    assert found.stderr == pytest.approx(float(slow.std()) / k**0.5, rel=1e-6)
    assert (found.products, found.method) == (2 * k, "xtrace")


def test_is_unbiased_and_its_error_is_the_spread_that_is_seen() -> None:
    dense = matrix(decaying())
    runs = [xtrace(operator_of(dense), 6, seed=seed) for seed in range(150)]
    values = torch.tensor([run.value for run in runs], dtype=torch.float64)
    exact, spread = float(dense.trace()), float(values.std())
    assert abs(float(values.mean()) - exact) < 4 * spread / len(runs) ** 0.5
    told = float(torch.tensor([run.stderr**2 for run in runs]).mean().sqrt())
    assert 0.5 < told / spread < 2


def test_beats_hutchinson_at_equal_cost() -> None:
    dense = matrix(decaying())
    exact = float(dense.trace())
    ours = [abs(xtrace(operator_of(dense), 8, seed=seed).value - exact) for seed in range(20)]
    plain = [abs(hutchinson(operator_of(dense), 16, seed=seed).value - exact) for seed in range(20)]
    assert 5 * sum(ours) < sum(plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [0, 1, 5])
def test_low_rank_is_exact(rank: int, dtype: torch.dtype) -> None:
    """A class of few images: the products span the whole range."""
    values = torch.zeros(80, dtype=torch.float64)
    values[:rank] = torch.linspace(-3, 7, rank + 2, dtype=torch.float64)[1:-1]
    found = xtrace(operator_of(matrix(values).to(dtype)), 8)
    assert found.value == pytest.approx(float(values.sum()), abs=1e-12 if dtype == torch.float64 else 2e-5)
    assert found.stderr < 1e-4


def test_of_a_network(mlp: object, dense: Callable[..., Tensor]) -> None:
    model, inputs, targets = mlp  # type: ignore[misc]
    exact = float(dense(model, inputs, targets).trace())
    found = trace(model, F.cross_entropy, (inputs, targets), method="xtrace", probes=30)
    assert found.method == "xtrace" and found.products == 60
    assert 0 < found.stderr < 0.2 * abs(exact) and abs(found.value - exact) < 5 * found.stderr
    whole = trace(model, F.cross_entropy, (inputs, targets), method="xtrace", probes=41)
    assert whole.method == "exact" and whole.value == pytest.approx(exact, rel=1e-10)


def test_one_probe_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2 probes"):
        xtrace(operator_of(torch.eye(30)), 1)
