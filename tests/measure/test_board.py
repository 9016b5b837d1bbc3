"""Curvature in TensorBoard, read back with its own reader: what is shown is what lies in the run's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saddlescape.cli import main
from saddlescape.curvature import Spectrum
from saddlescape.measure.board import put_course
from saddlescape.records.course import CourseFile

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="the extra tensorboard is not installed"
)


def board(folder: Path) -> Any:
    events = accumulator.EventAccumulator(str(folder), size_guidance={"histograms": 0, "scalars": 0})
    events.Reload()
    return events


def bins(events: Any, tag: str, epoch: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """(edges, counts, value) of the histogram of one epoch."""
    (value,) = [event.histogram_value for event in events.Histograms(tag) if event.step == epoch]
    return np.array([value.min, *value.bucket_limit]), np.array(value.bucket), value


def by_hand(spectra: list[Spectrum], edges: np.ndarray) -> np.ndarray:
    """Eigenvalues between edges, node by node."""
    counts = np.zeros(len(edges) - 1)
    for one in spectra:
        for node, weight in zip(one.ritz_values[0].tolist(), one.ritz_weights[0].tolist(), strict=True):
            place = min(max(int(np.searchsorted(edges, node, side="right")) - 1, 0), len(counts) - 1)
            counts[place] += weight * one.num_params / len(spectra)
    return counts


def call(*words: str) -> None:
    """The command line, in this process."""
    try:
        main(words)
    except SystemExit as end:
        assert not end.code


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "ce"
    train(folder, "every=1,samples=3,products=4,spectra=6", "--keep-every", "1", "--tensorboard")
    return folder


def train(folder: Path, tracking: str, *more: str) -> None:
    words = ["train", "digits", "--method", "ce", "--imbalance", "50", "--epochs", "2", "--device", "cpu", "--out"]
    call(*words, str(folder), "--track-curvature", tracking, "--no-compile", *more)


def test_scalars_are_those_of_the_course(run: Path) -> None:
    events = board(run / "tensorboard")
    rows = [json.loads(line) for line in (run / "curvature-course.jsonl").read_text().splitlines()[1:]]
    assert len(rows) == 2 * 13
    wanted = {
        (f"{shown}/{row['group'] if 'label' not in row else 'class ' + row['class']}", row["epoch"]): row[key]
        for row in rows
        for key, shown in (("lambda_min",) * 2, ("lambda_max",) * 2, ("nonconvexity", "lambda_ratio"))
    }
    found = {(tag, e.step): e.value for tag in events.Tags()["scalars"] if tag.startswith("lambda_")
             for e in events.Scalars(tag)}  # fmt: skip
    assert found.keys() == wanted.keys()
    for key, value in found.items():
        assert value == pytest.approx(wanted[key], rel=1e-6), key


def test_histograms_are_the_spectra_on_disk(run: Path) -> None:
    events = board(run / "tensorboard")
    for epoch in (1, 2):
        folder = run / "curvature" / f"course-s0-e0000{epoch}-ce"
        spectra = {label: Spectrum.load(folder / f"class_{label}.npz") for label in range(10)}
        shown = {"class 9": [spectra[9]], "class 0": [spectra[0]],
                 "tail, mean over its classes": [spectra[label] for label in range(5, 10)]}  # fmt: skip
        for name, members in shown.items():
            edges, counts, value = bins(events, f"eigenvalues/{name}", epoch)
            assert np.abs(edges).min() == pytest.approx(0, abs=1e-9)  # zero parts negative from positive
            np.testing.assert_allclose(counts, by_hand(members, edges), rtol=1e-5, atol=1e-6)
            assert value.num == pytest.approx(members[0].num_params, rel=1e-5)
            trace = np.mean([one.num_params * float(one.ritz_values[0] @ one.ritz_weights[0]) for one in members])
            assert value.sum == pytest.approx(trace, rel=1e-5)
            assert edges[0] <= min(one.ritz_values.min() for one in members) + 1e-9
            assert edges[-1] >= max(one.ritz_values.max() for one in members) - 1e-9
            low, heights, _ = bins(events, f"eigenvalues, log10(1 + count)/{name}", epoch)
            np.testing.assert_allclose(low, edges)
            np.testing.assert_allclose(heights, np.log10(1 + counts), rtol=1e-5, atol=1e-6)
        assert list(spectra[9].steps_taken) == [6]


def test_rows_are_the_same_without_spectra_and_a_board(run: Path, tmp_path: Path) -> None:
    train(tmp_path / "bare", "every=1,samples=3,products=4")
    names = ("lambda_min", "lambda_max", "loss")
    courses = [
        [[row[name] for name in names] for row in map(json.loads, path.read_text().splitlines()[1:])]
        for path in (run / "curvature-course.jsonl", tmp_path / "bare" / "curvature-course.jsonl")
    ]
    assert courses[0] == courses[1]  # to the bit: neither training nor tracking felt it
    assert not list((tmp_path / "bare").glob("curvature/course-*"))


def test_what_is_measured_afterwards_stands_beside_the_curves(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["curvature", str(run), "--device", "cpu"]
    for _ in range(2):  # what is measured again is not there twice
        call(*words, "--classes", "9", "--lanczos-steps", "5", "--products", "1", "--no-gauss-newton")
    events = board(run / "tensorboard" / "curvature")
    (row,) = json.loads((run / "curvature.json").read_text())["classes"]
    (event,) = events.Scalars("lambda_min/class 9")
    assert (event.step, event.value) == (2, pytest.approx(row["lambda_min"], rel=1e-6))
    edges, counts, _ = bins(events, "eigenvalues/class 9", 2)
    np.testing.assert_allclose(counts, by_hand([Spectrum.load(run / row["file"])], edges), rtol=1e-5, atol=1e-6)
    call(*words, "--over-training", "--samples-per-class", "3", "--products", "4")
    course = board(run / "tensorboard" / "curvature-course")
    assert [event.step for event in course.Scalars("lambda_max/tail")] == [1, 2]
    assert "(TensorBoard)" in capsys.readouterr().out


def test_a_run_without_a_board_gets_none(run: Path) -> None:
    assert put_course(run / "curvature", CourseFile(), lambda line: None) is None
