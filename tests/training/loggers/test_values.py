"""Histograms of spectra against closed forms, and names that no logger stumbles over."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from saddlescape.curvature import FunctionOperator, Spectrum, spectrum_of
from saddlescape.training.loggers.values import histogram, name_of, scalars_of


def measured(eigenvalues: list[float], probes: int = 1) -> Spectrum:
    """Of a diagonal matrix, exhausted."""
    diagonal = torch.tensor(eigenvalues, dtype=torch.float64)
    times: Callable[[Tensor], Tensor] = lambda v: diagonal * v  # noqa: E731
    operator = FunctionOperator(times, len(eigenvalues), diagonal)
    return spectrum_of(operator, lanczos_steps=len(eigenvalues), probes=probes, trace_probes=0, refine=0)


def test_masses_add_up_and_lie_where_the_eigenvalues_are() -> None:
    # Random signs weigh the eigenvectors of a diagonal matrix alike: a mass of one each, exactly.
    bins = histogram([measured([-1.0, 2.2, 4.0], probes=2)], bins=10)
    assert bins.counts.sum() == pytest.approx(3)
    where = {round(float((bins.edges[i] + bins.edges[i + 1]) / 2), 2) for i in np.flatnonzero(bins.counts > 1e-9)}
    assert where == {-0.75, 2.25, 3.75}  # bins of width 0.5 from -1 to 4
    np.testing.assert_allclose(bins.counts[bins.counts > 1e-9], 1)
    assert bins.total == pytest.approx(-1 + 2.2 + 4)
    assert bins.squares == pytest.approx(1 + 2.2**2 + 16)
    np.testing.assert_allclose(bins.heights, np.log10(1 + bins.counts))


def test_several_spectra_are_their_mean() -> None:
    two = [measured([-1.0, 2.0]), measured([1.0, 3.0])]
    bins = histogram(two)
    assert bins.counts.sum() == pytest.approx(2)
    assert bins.counts[bins.edges[:-1] < 0].sum() == pytest.approx(0.5)  # one of two, in one of two spectra


@pytest.mark.parametrize("eigenvalues", [[0.0, 0.0], [5.0, 5.0], [-2.0, -3.0], [1e-30, 2e-30]])
def test_odd_spectra_have_bins_too(eigenvalues: list[float]) -> None:
    bins = histogram([measured(eigenvalues)])
    assert (np.diff(bins.edges) > 0).all()
    assert len(bins.edges) == len(bins.counts) + 1
    assert bins.counts.sum() == pytest.approx(2)
    assert np.abs(bins.edges).min() == 0


def test_scalars_leave_out_what_is_no_number() -> None:
    row = {"label": 3, "class": "3", "lambda_min": -1.0, "lambda_max": 0.0, "nonconvexity": None, "loss": 9.0}
    group = {"group": "tail", "lambda_min": float("nan"), "lambda_max": 2.0, "nonconvexity": float("inf")}
    assert scalars_of([row, group]) == {"lambda_min/class 3": -1.0, "lambda_max/class 3": 0.0, "lambda_max/tail": 2.0}


def test_names_are_one_step_of_a_path() -> None:
    assert name_of({"label": 8, "class": "8"}) == "class 8"
    assert name_of({"label": 8, "class": "a/b\n\ud800\\c"}) == "class 8 a_b___c"
    assert name_of({"group": "head"}) == "head"
