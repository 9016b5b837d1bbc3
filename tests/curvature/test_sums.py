"""Sums over long float32 vectors are right to float32's last figures, where torch's own lose three and more."""

from __future__ import annotations

import math

import pytest
import torch

from saddlescape.curvature.extremes import certify
from saddlescape.curvature.lanczos import FunctionOperator, lanczos
from saddlescape.curvature.sums import dot, dots, length, lengths, unit

LONG = 3_000_001


@pytest.fixture(scope="module")
def vector() -> torch.Tensor:
    return torch.randn(LONG, generator=torch.Generator().manual_seed(0)) + 0.5


def test_against_exact_summation(vector: torch.Tensor) -> None:
    other = torch.randn(LONG, generator=torch.Generator().manual_seed(1)) + 0.5
    square = math.fsum(x * x for x in vector.tolist())
    product = math.fsum(x * y for x, y in zip(vector.tolist(), other.tolist(), strict=True))
    assert length(vector) == pytest.approx(math.sqrt(square), rel=1e-7)
    assert dot(vector, vector) == pytest.approx(square, rel=1e-6)
    assert dot(vector, other) == pytest.approx(product, rel=1e-6)
    both = torch.stack([vector, other])
    assert dots(both, vector).tolist() == pytest.approx([square, product], rel=1e-6)
    assert dots(both, vector).dtype == torch.float64
    assert lengths(both).shape == (2, 1) and lengths(both).dtype == torch.float32
    assert length(unit(vector)) == pytest.approx(1, abs=1e-7)
    assert dots(both[:0], vector).shape == (0,)


def test_float64_stays_as_it_is() -> None:
    rows = torch.randn(3, 70_000, dtype=torch.float64)
    assert torch.equal(dots(rows, rows[0]), rows @ rows[0])
    assert torch.equal(lengths(rows), rows.norm(dim=1, keepdim=True))


def test_a_certified_value_does_not_hang_on_the_number_of_parameters(vector: torch.Tensor) -> None:
    """Three times the identity: any vector is an eigenvector, to the last figure of float32."""
    pair = certify(lambda v: 3 * v, vector, 1e-4)
    assert pair.value == pytest.approx(3, rel=3e-7)
    assert pair.residual < 1e-6 and pair.converged


def test_the_basis_of_a_long_lanczos_run_is_orthonormal(vector: torch.Tensor) -> None:
    diagonal = torch.linspace(-1, 9, LONG)
    run = lanczos(FunctionOperator(lambda v: diagonal * v, LONG, diagonal), vector, 6)
    basis = run.basis.double()
    assert float((basis @ basis.T - torch.eye(6)).abs().max()) < 1e-6
    exact = ((run.basis.double() * diagonal) * run.basis.double()).sum(dim=1)
    torch.testing.assert_close(run.alphas, exact, rtol=1e-6, atol=1e-6)
