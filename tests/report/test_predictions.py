"""Confusion and calibration from the answers of a run, against scikit-learn and the training room's own error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from saddlescape.errors import InputError
from saddlescape.report.predictions import (
    PREDICTIONS_FORMAT,
    TAIL_ERRORS_FORMAT,
    Predictions,
    calibration,
    confusion,
    read_predictions,
    read_tail_errors,
)
from saddlescape.training.metrics import expected_calibration_error


@pytest.fixture
def answers() -> Predictions:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 7, 500)
    return Predictions(labels, np.where(rng.random(500) < 0.6, labels, rng.integers(0, 7, 500)), rng.random(500))


def test_confusion_is_scikit_learns(answers: Predictions) -> None:
    wanted = confusion_matrix(answers.labels, answers.predictions, labels=range(8))
    np.testing.assert_array_equal(confusion(answers, 8), wanted)


def test_calibration_error_is_that_of_training(answers: Predictions) -> None:
    found = calibration(answers)
    correct = (answers.labels == answers.predictions).astype(float)
    assert 100 * found.error == pytest.approx(expected_calibration_error(answers.confidences, correct))
    assert found.images.sum() == 500
    assert np.nansum(found.accuracy * found.images) == pytest.approx(correct.sum())


def test_calibration_of_a_part_is_of_that_part_alone(answers: Predictions) -> None:
    chosen = answers.labels < 3
    part = Predictions(answers.labels[chosen], answers.predictions[chosen], answers.confidences[chosen])
    assert calibration(answers, chosen).error == pytest.approx(calibration(part).error)
    assert calibration(answers, np.zeros(500, bool)).error == 0


def test_the_edges_of_bins() -> None:
    found = calibration(Predictions(np.zeros(3, int), np.zeros(3, int), np.array([0.0, 0.2, 1.0])), bins=5)
    assert found.images.tolist() == [2, 0, 0, 0, 1]


def save(path: Path, form: str = PREDICTIONS_FORMAT, **changes: Any) -> Path:
    arrays: dict[str, Any] = {
        "format": np.array(form),
        "labels": np.array([0, 1]),
        "predictions": np.array([0, 0]),
        "confidences": np.array([0.5, 0.75], np.float32),
        "indices": np.array([0, 1]),
    } | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_reading(tmp_path: Path) -> None:
    found = read_predictions(save(tmp_path / "a.npz"), 2)
    assert (found.labels.tolist(), found.predictions.tolist(), found.confidences.tolist()) == (
        [0, 1],
        [0, 0],
        [0.5, 0.75],
    )
    path = save(
        tmp_path / "b.npz", TAIL_ERRORS_FORMAT, images=np.zeros((2, 4, 4, 1), np.uint8), names=np.array(["x", "y"])
    )
    assert read_tail_errors(path, 2).names == ("x", "y")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": np.array([0, 2])}, "outside 0 to 1"),
        ({"labels": np.array([0, -1])}, "outside 0 to 1"),
        ({"labels": np.array([0])}, "differ in length"),
        ({"labels": np.array([0.0, 1.0])}, "whole numbers"),
        ({"confidences": np.array([0.5, 1.5])}, "between 0 and 1"),
        ({"confidences": np.array([0.5, np.nan])}, "between 0 and 1"),
        ({"confidences": None}, "not whole"),
        ({"format": np.array("other")}, "no file of format"),
        ({"labels": np.array([0, None], dtype=object)}, "cannot be read"),
    ],
)
def test_damage_is_one_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_predictions(save(tmp_path / "a.npz", **changes), 2)
    assert len(str(caught.value).splitlines()) == 1


def test_pictures_must_be_pictures(tmp_path: Path) -> None:
    for images in (
        np.zeros((2, 4, 4, 2), np.uint8),
        np.zeros((2, 4, 4), np.uint8),
        np.zeros((2, 4, 4, 3)),
        np.zeros((1, 4, 4, 3), np.uint8),
    ):
        with pytest.raises(InputError, match="images must be uint8"):
            read_tail_errors(save(tmp_path / "a.npz", TAIL_ERRORS_FORMAT, images=images), 2)
    (tmp_path / "cut.npz").write_bytes(save(tmp_path / "whole.npz").read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read"):
        read_predictions(tmp_path / "cut.npz", 2)
