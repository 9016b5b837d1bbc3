"""What a run answers on its test images is kept as it was given, in the form that the report reads."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saddlescape.errors import InputError
from saddlescape.records.predictions import (
    PREDICTIONS,
    SAMPLES,
    TAIL_ERRORS,
    read_predictions,
    read_samples,
    read_tail_errors,
)
from saddlescape.runs.evaluation import evaluate_run
from saddlescape.runs.predictions import KEPT
from saddlescape.training.metrics import expected_calibration_error


@pytest.fixture(scope="module")
def run(start: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answers") / "run"
    start(folder, method="ce", epochs=6)
    return folder


def test_the_report_reads_the_scores_out_of_the_kept_answers(run: Path) -> None:
    scores, _, dataset = evaluate_run(run)
    kept = read_predictions(run / PREDICTIONS, dataset.num_classes)
    recalls = [100 * (kept.predictions == label)[kept.labels == label].mean() for label in range(dataset.num_classes)]
    np.testing.assert_allclose(recalls, np.array(scores.per_class, dtype=float))
    assert np.array_equal(kept.labels, dataset.test.labels.numpy())
    correct = (kept.labels == kept.predictions).astype(float)
    assert expected_calibration_error(kept.confidences, correct) == pytest.approx(scores.ece, abs=1e-4)


def test_the_tail_errors_are_the_surest_wrong_answers_with_their_own_images(run: Path) -> None:
    dataset = evaluate_run(run)[-1]
    kept = read_predictions(run / PREDICTIONS, dataset.num_classes)
    found = read_tail_errors(run / TAIL_ERRORS, dataset.num_classes)
    wrong = np.isin(kept.labels, dataset.groups["tail"]) & (kept.labels != kept.predictions)
    assert 0 < len(found.labels) == min(wrong.sum(), KEPT)
    np.testing.assert_allclose(found.confidences, np.sort(kept.confidences[wrong])[::-1][: KEPT])
    assert (found.labels != found.predictions).all()
    with np.load(run / TAIL_ERRORS) as archive:
        for image, index in zip(archive["images"], archive["indices"], strict=True):
            assert np.array_equal(image, dataset.test.images[int(index)].permute(1, 2, 0).numpy())  # type: ignore[union-attr]


def test_other_questions_leave_the_answers_alone(run: Path) -> None:
    evaluate_run(run)
    before = (run / PREDICTIONS).read_bytes()
    evaluate_run(run, split="train")
    evaluate_run(run, post_hoc=1.0)
    assert (run / PREDICTIONS).read_bytes() == before


def test_an_unfinished_run_keeps_no_answers_that_would_pass_for_its_last(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("*.npz", "result.json"))
    scores, *_ = evaluate_run(tmp_path / "run")
    assert scores.images > 0
    assert not (tmp_path / "run" / PREDICTIONS).exists()


def test_a_folder_that_cannot_be_written_costs_the_answers_and_not_the_scores(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise InputError("cannot write: No space left on device")

    monkeypatch.setattr("saddlescape.runs.evaluation.keep_predictions", full)
    said: list[str] = []
    scores, *_ = evaluate_run(run, say=said.append)
    assert scores.images > 0
    assert len(said) == 1 and "No space left" in said[0]


def test_training_images_are_kept_of_the_classes(run: Path) -> None:
    dataset = evaluate_run(run)[-1]
    images, labels = read_samples(run / SAMPLES, dataset.num_classes)
    order = sorted(range(dataset.num_classes), key=lambda c: (-dataset.class_counts[c], c))
    assert labels.tolist() == [c for c in order for _ in range(min(3, dataset.class_counts[c]))]
    for label in range(dataset.num_classes):
        first = int(np.flatnonzero(dataset.train.labels.numpy() == label)[0])
        wanted = dataset.train.images[first].permute(1, 2, 0).numpy()  # type: ignore[union-attr]
        assert np.array_equal(images[labels == label][0], wanted)
