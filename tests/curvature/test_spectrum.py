"""Spectra of small networks against their dense Hessians; density, trace, negative mass, files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from saddlescape.curvature import (
    FunctionOperator,
    Spectrum,
    TrackPoint,
    extreme_eigenpairs,
    lanczos,
    spectrum,
    spectrum_of,
)
from saddlescape.curvature.density import mass_below, negative_mass, quadrature
from saddlescape.curvature.guards import random_vector
from saddlescape.errors import InputError

F64 = torch.empty(0, dtype=torch.float64)


def operator_of(a):
    return FunctionOperator(a.mv, len(a), a)


def test_extremes_equal_the_dense_hessian(net, dense):
    truth = torch.linalg.eigvalsh(dense(*net))
    found = spectrum(net.model, F.cross_entropy, net.data)
    assert found.lambda_min == pytest.approx(float(truth[0]), rel=1e-8)
    assert found.lambda_max == pytest.approx(float(truth[-1]), rel=1e-8)
    assert found.converged and found.is_saddle_proof and max(found.residuals) < 1e-8
    assert found.nonconvexity == pytest.approx(abs(float(truth[0] / truth[-1])))
    assert (found.num_params, found.num_samples, found.label) == (264, 23, None)
    assert found.loss == pytest.approx(float(F.cross_entropy(net.model(net.inputs), net.targets)))


def test_extreme_eigenpairs(net, dense):
    hessian = dense(*net)
    truth = torch.linalg.eigvalsh(hessian)
    values, vectors = extreme_eigenpairs(net.model, F.cross_entropy, net.data, k=2, tol=1e-6)
    torch.testing.assert_close(values, truth[[0, 1, -2, -1]], rtol=1e-8, atol=0)
    torch.testing.assert_close(hessian @ vectors.T, vectors.T * values, rtol=0, atol=1e-5)
    assert float(extreme_eigenpairs(net.model, F.cross_entropy, net.data, which="smallest").values[0]) == pytest.approx(
        float(truth[0])
    )
    with pytest.warns(UserWarning, match="not converged"):
        extreme_eigenpairs(net.model, F.cross_entropy, net.data, tol=1e-10, max_products=4)


def test_slq_moments_are_exact(mlp, dense):
    hessian = dense(*mlp)
    found = spectrum(mlp.model, F.cross_entropy, mlp.data, lanczos_steps=12, probes=2, trace_probes=0)
    for probe in range(2):
        v = random_vector(81, hessian, seed=0, stream=probe, kind="rademacher")
        v = v / v.norm()
        w = v
        for degree in range(2 * 12):
            moment = (found.ritz_weights[probe] * found.ritz_values[probe] ** degree).sum()
            scale = float(torch.linalg.eigvalsh(hessian).abs().max()) ** degree
            assert float((v @ w - moment).abs()) <= 1e-12 * scale
            w = hessian @ w
    assert torch.allclose(found.ritz_weights.sum(1), torch.ones(2, dtype=torch.float64))


def test_full_depth_gives_the_whole_spectrum(mlp, dense):
    truth = torch.linalg.eigvalsh(dense(*mlp))
    found = spectrum(mlp.model, F.cross_entropy, mlp.data, lanczos_steps=200)
    assert abs(found.trace - float(truth.sum())) <= 4 * found.trace_stderr
    for level in (-0.05, 0.01, 0.1):
        low, high = found.mass_below(level)
        assert low <= float((truth < level).double().mean()) <= high


def test_mass_lies_in_its_interval_for_every_seed(indefinite):
    truth = torch.linalg.eigvalsh(indefinite)
    share = float((truth < -1e-9).double().mean())
    widths = []
    for seed in range(40):
        found = spectrum_of(operator_of(indefinite), lanczos_steps=60, seed=seed, trace_probes=0)
        low, high = found.negative_mass
        assert low <= share <= high
        widths.append(high - low)
    assert max(widths) < 0.85  # the third of zeros beside the level cannot be told apart: the bracket has to hold it
    # What is left to luck shrinks with the probes: 8 that all saw a mass of 0.2, against one.
    nodes, weights = torch.tensor([-1.0, 1.0], dtype=torch.float64), torch.tensor([0.2, 0.8], dtype=torch.float64)
    one, more = (negative_mass([nodes] * n, [weights] * n, [True] * n, dim=300) for n in (1, 8))
    assert one[0] < more[0] < 0.2 < more[1] < one[1]
    assert more[1] - more[0] == pytest.approx((one[1] - one[0]) / 8**0.5, rel=0.1)


def test_markov_stieltjes_bracket_of_one_probe(indefinite):
    values, vectors = torch.linalg.eigh(indefinite)
    for seed in range(10):
        v = random_vector(300, indefinite, seed=seed)
        v = v / v.norm()
        masses = (vectors.T @ v) ** 2
        nodes, weights = quadrature(lanczos(operator_of(indefinite), v, 25))
        for level in (-1.0, -0.1, 0.5, 3.0, 30.0):
            low, high = mass_below(nodes, weights, level)
            assert low - 1e-12 <= float(masses[values < level].sum()) <= high + 1e-12


def test_density_integrates_to_one_and_has_the_right_mean(net):
    found = spectrum(net.model, F.cross_entropy, net.data, lanczos_steps=40, probes=2)
    grid, height = found.density()
    assert len(grid) == 10_000 and np.trapezoid(height, grid) == pytest.approx(1, abs=1e-9)
    mean = float((found.ritz_values * found.ritz_weights).sum(1).mean())
    assert np.trapezoid(height * grid, grid) == pytest.approx(mean, abs=1e-6)
    own = np.linspace(-30, 30, 5001)
    same, height = found.density(own, sigma=0.1)
    assert np.array_equal(same, own) and np.trapezoid(height, own) == pytest.approx(1, abs=1e-6)


def test_refine_reaches_what_few_steps_do_not():
    values = torch.cat([torch.tensor([-1.2]), torch.linspace(-1, 30, 999)]).double()
    operator = FunctionOperator(lambda v: values * v, 1000, F64)
    rough = spectrum_of(operator, lanczos_steps=12, trace_probes=0)
    fine = spectrum_of(operator, lanczos_steps=12, trace_probes=0, refine=2000)
    assert not rough.converged and rough.lambda_min > -1.2
    assert fine.converged and fine.lambda_min == pytest.approx(-1.2, rel=1e-6)
    assert torch.equal(fine.ritz_values, rough.ritz_values)


def test_save_and_load(net, tmp_path):
    found = spectrum(net.model, F.cross_entropy, net.data, lanczos_steps=8, probes=2)
    path = tmp_path / "all.npz"
    found.save(path)
    again = Spectrum.load(path)
    assert torch.equal(again.ritz_values, found.ritz_values) and torch.equal(again.ritz_weights, found.ritz_weights)
    assert again.summary() == found.summary() and again.residuals == found.residuals
    assert [p.name for p in tmp_path.iterdir()] == ["all.npz"]


def test_damaged_and_foreign_files_are_told(net, tmp_path):
    path = tmp_path / "s.npz"
    spectrum(net.model, F.cross_entropy, net.data, lanczos_steps=4).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        if rng.random() < 0.5:
            data = data[: rng.integers(len(data))]
        else:
            for _ in range(20):
                data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(bytes(data))
        try:
            Spectrum.load(path)
        except InputError as problem:
            assert "s.npz" in str(problem) and "\n" not in str(problem)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(InputError, match=r"s\.npz"):
        Spectrum.load(path)
    with pytest.raises(InputError, match="No such file"):
        Spectrum.load(tmp_path / "nowhere.npz")


def test_nonconvexity_without_positive_curvature():
    negative = spectrum_of(FunctionOperator(lambda v: -v, 10, F64), lanczos_steps=3)
    assert negative.nonconvexity == float("inf") and negative.summary()["nonconvexity"] is None


def test_a_maximum_and_a_plateau_have_no_ratio():
    """A class at a maximum, lambda_max within rounding of zero: a quotient of roundings would be 1e8."""
    diagonal = -torch.linspace(0, 2, 50, dtype=torch.float64)
    diagonal[0] = 1e-16
    maximum = spectrum_of(FunctionOperator(lambda v: diagonal * v, 50, diagonal), lanczos_steps=50)
    assert maximum.nonconvexity == float("inf") and maximum.summary()["nonconvexity"] is None
    assert maximum.summary()["rounding"] == maximum.rounding > 0
    plateau = TrackPoint(0, 0, -1e-9, 1e-16, 0, 0, True, False, 0.0, 1, 0.0, rounding=1e-8)
    assert plateau.nonconvexity != plateau.nonconvexity
