"""The trace and its error against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from saddlescape.curvature import FunctionOperator, lanczos, spectrum_of, trace
from saddlescape.curvature.guards import random_vector
from saddlescape.curvature.trace import deflated, exact_trace

F64 = torch.empty(0, dtype=torch.float64)


def operator_of(a):
    return FunctionOperator(a.mv, len(a), a)


def test_trace_is_exact_when_every_basis_vector_is_probed(mlp, dense):
    truth = float(torch.trace(dense(*mlp)))
    found = trace(mlp.model, F.cross_entropy, mlp.data, probes=81)
    assert found.value == pytest.approx(truth, rel=1e-12) and found.stderr == 0 and found.method == "exact"
    assert float(found) == found.value


def test_trace_estimates_are_unbiased_and_know_their_error(indefinite):
    truth = float(indefinite.trace())
    operator = operator_of(indefinite)
    assert exact_trace(operator).value == pytest.approx(truth)
    run = lanczos(operator, random_vector(300, indefinite, seed=5), 40)
    values, stderr = np.array([deflated(operator, run, 10, seed=s)[:2] for s in range(60)]).T
    assert abs((values - truth).mean()) < 4 * values.std() / 60**0.5
    assert 0.8 < stderr.mean() / values.std() < 1.6
    # Hutchinson with as many probes, by the formula of its variance.
    off_diagonal = indefinite - torch.diag(indefinite.diagonal())
    assert stderr.mean() < 0.4 * float((2 * (off_diagonal**2).sum() / 10).sqrt())


def test_deflation_does_not_need_converged_or_simple_eigenvalues():
    """Eigenvalue 5 fifty times over: one Ritz vector stands for all; the rest must come from the probes."""
    values = torch.cat([torch.full((50,), 5.0), torch.zeros(50)]).double()
    operator = FunctionOperator(lambda v: values * v, 100, F64)
    for seed in range(3):
        found = spectrum_of(operator, lanczos_steps=10, seed=seed)
        assert abs(found.trace - 250) <= 4 * found.trace_stderr


def test_trace_of_a_network_by_few_products(mlp, dense):
    truth = float(torch.trace(dense(*mlp)))
    found = trace(mlp.model, F.cross_entropy, mlp.data, probes=10, lanczos_steps=20)
    assert (found.method, found.products) == ("deflated", 30)
    assert 0 < found.stderr < 0.3 * abs(truth) and abs(found.value - truth) < 4 * found.stderr
