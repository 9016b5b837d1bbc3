"""The factorisation and the extreme pairs, on operators whose eigenvalues are written down."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from saddlescape.curvature import Factorization, FunctionOperator, extremes, lanczos, spectrum_of
from saddlescape.curvature.lanczos import tridiagonal_eigen

F64 = torch.empty(0, dtype=torch.float64)


def diagonal(values):
    values = torch.as_tensor(values)
    return FunctionOperator(lambda v: values * v, len(values), values)


def start(dim, dtype=torch.float64):
    return torch.randn(dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def test_factorisation_holds_to_rounding():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(60, 60, generator=g, dtype=torch.float64)
    a = a + a.T
    run = lanczos(FunctionOperator(lambda v: a @ v, 60, F64), start(60), 25)
    q = run.basis.T
    t = torch.diag(run.alphas) + torch.diag(run.betas[:-1], 1) + torch.diag(run.betas[:-1], -1)
    last = torch.zeros(25, dtype=torch.float64)
    last[-1] = 1
    torch.testing.assert_close(a @ q, q @ t + torch.outer(run.residual, last), rtol=0, atol=1e-12 * float(a.norm()))
    torch.testing.assert_close(q.T @ q, torch.eye(25, dtype=torch.float64), rtol=0, atol=1e-13)
    torch.testing.assert_close(run.residual.norm(), run.betas[-1])
    values, columns = run.eigen()
    vectors, bounds = run.ritz_vectors(columns), run.betas[-1] * columns[-1].abs()
    true = (a @ vectors.T - vectors.T * values).norm(dim=0)
    torch.testing.assert_close(true, bounds, rtol=1e-6, atol=1e-10)


def test_all_steps_give_all_eigenvalues():
    values = torch.linspace(-3, 9, 30, dtype=torch.float64) ** 3
    run = lanczos(diagonal(values), start(30), 99)
    assert run.steps == 30 and run.exhausted
    torch.testing.assert_close(run.eigen()[0], values.sort().values, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rank_one_and_multiple_of_identity(dtype):
    u = start(50, dtype)
    u = u / u.norm()
    rank_one = FunctionOperator(lambda v: 7 * u * (u @ v), 50, u)
    found = spectrum_of(rank_one, lanczos_steps=20)
    assert found.steps_taken == (2,) and found.exhausted == (True,)
    assert found.lambda_max == pytest.approx(7, rel=1e-6)
    assert abs(found.lambda_min) < 1e-5 and not found.is_saddle_proof
    assert abs(found.trace - 7) <= max(4 * found.trace_stderr, 1e-4) < 1e-2 and found.converged
    assert torch.isfinite(found.ritz_values).all() and found.negative_mass[0] == 0
    identity = FunctionOperator(lambda v: 2.5 * v, 50, u)
    found = spectrum_of(identity, lanczos_steps=20)
    assert found.steps_taken == (1,)
    assert found.lambda_min == pytest.approx(2.5, rel=1e-6) and found.lambda_max == pytest.approx(2.5, rel=1e-6)
    assert abs(found.trace - 125) <= 2 * found.trace_stderr < 30 and found.nonconvexity == pytest.approx(1)
    grid, height = found.density()
    assert np.isfinite(height).all() and np.trapezoid(height, grid) == pytest.approx(1)
    zero = spectrum_of(FunctionOperator(torch.zeros_like, 50, u), lanczos_steps=20)
    assert (zero.lambda_min, zero.lambda_max, zero.trace) == (0, 0, 0) and zero.converged
    assert math.isnan(zero.nonconvexity) and zero.summary()["nonconvexity"] is None
    assert not zero.is_saddle_proof


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_smallest_of_minus_five_to_hundred(dtype):
    operator = diagonal(torch.linspace(-5, 100, 400, dtype=dtype))
    found = extremes(operator, which="smallest", tol=1e-4, max_products=2000)
    (pair,) = found.smallest
    assert found.largest == [] and found.converged and pair.is_proof
    assert pair.value == pytest.approx(-5, rel=1e-6)
    assert pair.residual <= 1e-4 * 5
    assert pair.interval[0] <= -5 <= pair.interval[1]


def test_thick_restart_both_ends_against_eigsh():
    rng = np.random.default_rng(0)
    values = np.concatenate([-np.geomspace(1e-3, 6, 40), np.zeros(300), np.geomspace(1e-4, 80, 160)])
    q, _ = np.linalg.qr(rng.normal(size=(500, 500)))
    a = (q * values) @ q.T
    t = torch.from_numpy((a + a.T) / 2)
    operator = FunctionOperator(lambda v: t @ v, 500, F64)
    found = extremes(operator, k=3, basis=24, tol=1e-7, max_products=3000)
    assert found.converged
    truth = eigsh(LinearOperator(a.shape, matvec=lambda v: a @ v), k=6, which="BE", return_eigenvectors=False)
    ours = [p.value for p in found.smallest] + [p.value for p in reversed(found.largest)]
    np.testing.assert_allclose(ours, np.sort(truth), rtol=1e-10)
    for pair in [*found.smallest, *found.largest]:
        assert float((t @ pair.vector - pair.value * pair.vector).norm()) == pytest.approx(
            pair.residual, rel=1e-6, abs=1e-12
        )


def test_stop_on_value_is_earlier_and_still_right():
    values = torch.cat([torch.tensor([-8.0, 120.0, 60.0]), torch.linspace(-1, 20, 997)]).double()
    by_residual = extremes(diagonal(values), tol=1e-4)
    by_value = extremes(diagonal(values), tol=1e-4, stop="value")
    assert by_value.products < by_residual.products
    assert by_value.smallest[0].value == pytest.approx(-8, rel=1e-4)
    assert by_value.largest[0].value == pytest.approx(120, rel=1e-4)


def test_what_has_not_converged_says_so_and_is_still_a_proof():
    operator = diagonal(torch.linspace(-1, 1, 3000, dtype=torch.float64))
    found = extremes(operator, which="smallest", tol=1e-8, max_products=8)
    (pair,) = found.smallest
    assert not pair.converged and not found.converged
    assert pair.is_proof and -1 <= pair.value < 0
    assert any(pair.interval[0] <= x <= pair.interval[1] for x in np.linspace(-1, 1, 3000))


def test_small_operators_are_exact():
    found = extremes(diagonal(torch.tensor([-1.0, 0.5, 4.0], dtype=torch.float64)), k=1)
    assert (found.smallest[0].value, found.largest[0].value) == (pytest.approx(-1), pytest.approx(4))
    found = extremes(diagonal(torch.tensor([3.0], dtype=torch.float64)))
    assert found.smallest[0].value == found.largest[0].value == 3


def test_resumed_run_has_the_same_bits():
    operator = diagonal(torch.linspace(-2, 5, 80, dtype=torch.float32))
    whole = lanczos(operator, start(80, torch.float32), 20)
    half = lanczos(operator, start(80, torch.float32), 20, callback=lambda f: f.steps == 9)
    assert half.steps == 9 and not half.done
    again = Factorization.from_state_dict(half.state_dict())
    lanczos(operator, start(80, torch.float32), 20, state=again)
    assert torch.equal(again.alphas, whole.alphas) and torch.equal(again.betas, whole.betas)
    assert torch.equal(again.basis, whole.basis)


def test_interrupted_step_leaves_the_factorisation_whole():
    calls = []

    def product(v):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return torch.linspace(-2, 5, 30, dtype=torch.float64) * v

    operator = FunctionOperator(product, 30, F64)
    run = Factorization(start(30), 12)
    with pytest.raises(KeyboardInterrupt):
        lanczos(operator, start(30), 12, state=run)
    assert run.steps == 4
    lanczos(operator, start(30), 12, state=run)
    whole = lanczos(operator, start(30), 12)
    assert torch.equal(run.alphas, whole.alphas)


def test_tridiagonal_solver_against_dense():
    g = torch.Generator().manual_seed(0)
    d, e = torch.randn(9, generator=g, dtype=torch.float64), torch.randn(8, generator=g, dtype=torch.float64)
    values, vectors = tridiagonal_eigen(d, e)
    dense = torch.diag(d) + torch.diag(e, 1) + torch.diag(e, -1)
    torch.testing.assert_close(dense @ vectors, vectors * values)
