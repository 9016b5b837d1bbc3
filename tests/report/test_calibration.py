"""Confusion and calibration from the answers of a run, against scikit-learn and the training room's own error."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from saddlescape.records.predictions import Predictions
from saddlescape.report.calibration import calibration, class_scores
from saddlescape.report.plots.confusion import matrix_of
from saddlescape.training.metrics import expected_calibration_error


@pytest.fixture
def answers() -> Predictions:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 7, 500)
    return Predictions(labels, np.where(rng.random(500) < 0.6, labels, rng.integers(0, 7, 500)), rng.random(500))


def test_confusion_is_scikit_learns(answers: Predictions) -> None:
    wanted = confusion_matrix(answers.labels, answers.predictions, labels=range(8))
    np.testing.assert_array_equal(matrix_of(answers, np.arange(8), 8), wanted)


def test_precision_recall_and_f1_are_scikit_learns() -> None:
    rng = np.random.default_rng(5)
    answers = Predictions(rng.integers(0, 5, 200), rng.integers(0, 4, 200), rng.random(200))  # 4: never
    found = class_scores(answers, 6)
    wanted = precision_recall_fscore_support(answers.labels, answers.predictions, labels=range(5), zero_division=0)[:3]
    np.testing.assert_allclose(found[:5], 100 * np.stack(wanted, axis=1))
    assert np.isnan(found[5]).all()  # no test images


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
