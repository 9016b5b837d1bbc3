"""Class-wise curvature of a run: against SciPy, by hand, cut off and continued."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from saddlescape.curvature import Spectrum, class_spectra, extreme_eigenpairs
from saddlescape.disk import write_npz
from saddlescape.measure import spectra
from saddlescape.measure.spectra import Item, measure_run, settings_of
from saddlescape.measure.subject import Subject, open_subject
from saddlescape.records.curvature import CurvatureFile
from saddlescape.runs.request import CurvatureOptions

FAST = CurvatureOptions(extremes_only=True, gauss_newton=False, tol=1e-2, products=1)


def product(model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[LinearOperator, float]:
    """Double backward in float64, written for this test alone, and the loss."""
    parameters = list(model.parameters())
    loss = F.cross_entropy(model(inputs), targets)
    slopes = torch.autograd.grad(loss, parameters, create_graph=True)
    flat = torch.cat([slope.reshape(-1) for slope in slopes])

    def times(vector: np.ndarray) -> np.ndarray:
        v = torch.from_numpy(np.ascontiguousarray(vector).reshape(-1))
        second = torch.autograd.grad(flat @ v, parameters, retain_graph=True)
        return torch.cat([part.reshape(-1) for part in second]).numpy()

    return LinearOperator((len(flat), len(flat)), matvec=times, dtype=np.float64), loss.item()


def test_extremes_agree_with_scipy_and_the_parts_add_up(run: Path, class_images: Callable[..., Any]) -> None:
    subject = open_subject(run, dtype="float64", device="cpu")
    depth = dataclasses.replace(FAST, tol=1e-6, gauss_newton=True)
    row = measure_run(subject, depth, classes=[9]).classes[0]
    operator, loss = product(subject.model, *class_images(subject, 9))
    low, high = eigsh(operator, k=2, which="BE", tol=1e-6, return_eigenvectors=False)
    # Inputs are normalised in float32, as in training; the ones by hand are not.
    assert row.lambda_min == pytest.approx(low, rel=1e-5)
    assert row.lambda_max == pytest.approx(high, rel=1e-5)
    assert row.loss == pytest.approx(loss, rel=1e-5)
    assert row.nonconvexity == pytest.approx(abs(low / high), rel=1e-4)
    assert row.converged
    assert row.negative_curvature_proved == (low < 0)
    for split, value in ((row.at_lambda_min, row.lambda_min), (row.at_lambda_max, row.lambda_max)):
        assert split.gauss_newton + split.residual_part == pytest.approx(value, rel=1e-6)
    assert row.at_lambda_min.gauss_newton >= 0  # cross-entropy is convex in the logits
    # H = G + rest and G >= 0: the extremes bound one another (Weyl); those of the parts are good to 1 %.
    assert row.lambda_max <= (row.gauss_newton.lambda_max + row.residual_part.lambda_max) * 1.02
    assert row.lambda_min >= row.residual_part.lambda_min * 1.02
    assert row.gauss_newton.lambda_max >= row.at_lambda_max.gauss_newton * 0.99


def test_what_is_written_bounds_the_error_in_float32(subject: Subject) -> None:
    """Beside a residual that is small because it is of float32's own operator stands what rounding may have done."""
    row = measure_run(subject, dataclasses.replace(FAST, tol=1e-5, products=100), classes=[9]).classes[0]
    data, _ = subject.samples([9])
    exact = extreme_eigenpairs(copy.deepcopy(subject.model), subject.loss, data, dtype=torch.float64, tol=1e-8).values
    for end, truth in (("min", exact[0]), ("max", exact[-1])):
        assert abs(getattr(row, f"lambda_{end}") - float(truth)) <= getattr(row, f"residual_{end}") + row.rounding


def test_a_spectrum_lies_beside_its_figures(run: Path, subject: Subject) -> None:
    measure_run(subject, CurvatureOptions(lanczos_steps=5, products=1, gauss_newton=False), classes=[8])
    content = CurvatureFile.read(run / CurvatureFile.NAME)
    (row,) = content.classes
    assert (row.name, row.label, row.group, row.num_samples) == ("8", 8, "tail", 3)
    assert content.checkpoint == "s0-e00004-b000000"
    spectrum = Spectrum.load(run / row.file)
    assert (spectrum.lambda_min, spectrum.lambda_max) == (row.lambda_min, row.lambda_max)
    assert spectrum.ritz_values.shape == (1, 5)
    assert list(spectrum.negative_mass) == row.negative_mass


def refuse(*args: Any, **kw: Any) -> None:
    raise AssertionError("measured again")


def test_what_is_measured_is_reused_added_to_and_set_aside(
    run: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure_run(subject, FAST, classes=[9])
    lines: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(spectra, "extremes", refuse)
        assert measure_run(subject, FAST, classes=[9], say=lines.append) == first
    assert lines == [f"already measured: {run / CurvatureFile.NAME}"]
    added = measure_run(subject, FAST, classes=[8, 9])
    assert [row.label for row in added.classes] == [8, 9]
    assert added.classes[1] == first.classes[0]
    other = measure_run(subject, dataclasses.replace(FAST, seed=1), classes=[9], say=lines.append)
    assert [row.label for row in other.classes] == [9]
    assert "another seed" in lines[1]
    assert CurvatureFile.read(run / "curvature.1.json") == added


def test_it_goes_on_from_the_step_and_the_class_where_it_was_cut_off(run: Path, subject: Subject) -> None:
    depth = CurvatureOptions(lanczos_steps=27, products=1, gauss_newton=False)

    def cut(at: str) -> Callable[[str], None]:
        def say(line: str) -> None:
            if at in line:
                raise KeyboardInterrupt

        return say

    with pytest.raises(KeyboardInterrupt):
        measure_run(subject, depth, classes=[9, 8], say=cut("class 8: step 25"), patience=0)
    assert [row.label for row in CurvatureFile.read(run / CurvatureFile.NAME).classes] == [9]
    assert list(run.glob("curvature/*/class_8.partial.npz"))
    said: list[str] = []
    rows = measure_run(subject, depth, classes=[9, 8], say=said.append, patience=0).classes
    assert not any("class 9" in line or "step" in line for line in said)  # neither the class nor 25 steps anew
    images, targets = subject.samples([8])[0]
    whole = class_spectra(
        subject.model, nn.CrossEntropyLoss(), (images, targets), lanczos_steps=27, trace_probes=0, tol=1e-3, refine=1
    )[8]
    assert (rows[0].lambda_min, rows[0].lambda_max) == (whole.lambda_min, whole.lambda_max)


@pytest.mark.parametrize("spoil", ["damaged", "of other settings"])
def test_lanczos_runs_that_do_not_belong_here_are_not_continued(run: Path, subject: Subject, spoil: str) -> None:
    depth = CurvatureOptions(lanczos_steps=26, products=1, gauss_newton=False)
    path = run / spectra.spectrum_path(subject, Item("8", 8, (8,))).with_suffix(".partial.npz")
    path.parent.mkdir(parents=True)
    if spoil == "damaged":
        path.write_bytes(b"no zip")
    else:
        write_npz(path, spectra.PARTIAL, {}, {"identity": "other", "runs": 1})
    said: list[str] = []
    measure_run(subject, depth, classes=[8], say=said.append, patience=0)
    assert "class 8: step 25" in said[0] and not path.exists()


def test_a_class_that_is_quick_has_one_line(subject: Subject) -> None:
    lines: list[str] = []
    depth = CurvatureOptions(lanczos_steps=26, products=1, gauss_newton=False)
    measure_run(subject, depth, classes=[8, 9], say=lines.append)
    assert [line.split(":")[0] for line in lines] == ["class 8", "class 9"]
    assert not any("step" in line for line in lines)


def test_a_sample_and_a_group(subject: Subject) -> None:
    depth = dataclasses.replace(FAST, samples_per_class=2, groups=True)
    content = measure_run(subject, depth, classes=[7])
    (row,) = content.classes
    assert (row.num_samples, row.num_available) == (2, 5)
    assert row.sampling_error == pytest.approx(math.sqrt((1 - 2 / 5) / 2))
    tail = next(row for row in content.groups if row.group == "tail")
    images, targets = subject.samples(subject.dataset.groups["tail"], 2)[0]
    assert tail.num_samples == len(targets) == 10
    assert tail.num_available == sum(subject.dataset.class_counts[label] for label in tail.labels)
    with torch.no_grad():
        assert tail.loss == pytest.approx(F.cross_entropy(subject.model(images), targets).item(), rel=1e-5)


def test_a_sample_of_a_group_has_its_error(subject: Subject) -> None:
    members = subject.dataset.groups["mid"]
    (images, targets), available = subject.samples(members, 3, 1, 5)
    (whole, labels), _ = subject.samples(members, 3, 1)
    assert len(targets) == 5 < len(labels) and available == sum(subject.dataset.class_counts[c] for c in members)
    rows = [next(i for i in range(len(whole)) if torch.equal(whole[i], image)) for image in images]
    assert rows == sorted(set(rows)) and torch.equal(labels[rows], targets)  # without replacement, in order
    depth = dataclasses.replace(FAST, samples_per_group=5, groups=True)
    row = next(row for row in measure_run(subject, depth, classes=[]).groups if row.group == "mid")
    assert (row.num_samples, row.num_available) == (5, available)
    assert row.sampling_error == pytest.approx(math.sqrt((1 - 5 / available) / 5))
    assert "samples_per_group" not in settings_of(subject, FAST)  # former files go on


def test_augmented_views_are_drawn_once_and_are_what_is_measured(run: Path) -> None:
    """On digits training crops: the loss is that of so many crops of each image, the same ones at each call."""
    subject = open_subject(run, views=3)
    plain, _ = open_subject(run).samples([8])
    (images, targets), available = subject.samples([8])
    assert torch.equal(images, subject.samples([8])[0][0]) and len(targets) == 3 * available == 3 * len(plain[0])
    assert not torch.equal(images[:available], images[available : 2 * available])
    depth = CurvatureOptions(lanczos_steps=8, products=1, gauss_newton=False)
    row = measure_run(subject, depth, classes=[8]).classes[0]
    with torch.no_grad():
        assert row.loss == pytest.approx(F.cross_entropy(subject.model(images), targets).item(), rel=1e-5)
    assert (row.training_images, row.num_samples, row.num_available) == (
        available,
        3 * available,
        3 * available,
    )
    whole = class_spectra(subject.model, subject.loss, (images, targets), lanczos_steps=8, refine=1, tol=1e-3)[8]
    assert row.lambda_max == pytest.approx(whole.lambda_max, rel=1e-6)
    assert "views" in CurvatureFile.read(run / CurvatureFile.NAME).settings
    assert measure_run(open_subject(run), depth, classes=[8]).classes[0].loss != row.loss  # set aside
    sampled = dataclasses.replace(depth, samples_per_class=2)
    row = measure_run(subject, sampled, classes=[7]).classes[0]
    assert (row.num_samples, row.num_available) == (6, 15)
