"""Figures of merit against scikit-learn, and the calibration error against a second implementation."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from saddlescape.data.types import Batch
from saddlescape.losses import CrossEntropyLoss, LDAMLoss
from saddlescape.models import CosineHead
from saddlescape.training.metrics import Scorer, expected_calibration_error, score
from saddlescape.training.precision import Precision


def scorer(logits: torch.Tensor, targets: torch.Tensor, batch: int = 7) -> Scorer:
    found = Scorer(logits.shape[1])
    for begin in range(0, len(logits), batch):
        found.add(logits[begin : begin + batch], targets[begin : begin + batch])
    return found


def example(images: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, classes, generator=generator)
    return logits, torch.randint(classes, (images,), generator=generator)


def slow_ece(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Guo et al., eq. 3, one bin at a time."""
    edges = np.linspace(0, 1, bins + 1)
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return 100 * total


@pytest.mark.parametrize(("images", "classes", "seed"), [(500, 10, 0), (40, 3, 1), (300, 100, 2), (5, 2, 3)])
def test_scores_equal_scikit_learns(images: int, classes: int, seed: int) -> None:
    logits, targets = example(images, classes, seed)
    scores = scorer(logits, targets).scores({})
    prediction, probability = logits.argmax(1).numpy(), logits.double().softmax(1).numpy()
    assert scores.accuracy == pytest.approx(100 * sklearn.metrics.accuracy_score(targets, prediction), abs=1e-10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are predicted and not there
        balanced = sklearn.metrics.balanced_accuracy_score(targets, prediction)
    assert scores.balanced_accuracy == pytest.approx(100 * balanced, abs=1e-10)
    loss = sklearn.metrics.log_loss(targets, probability, labels=range(classes))
    assert scores.loss == pytest.approx(loss, rel=1e-5)
    recall = sklearn.metrics.recall_score(
        targets, prediction, labels=range(classes), average=None, zero_division=np.nan
    )
    for mine, theirs in zip(scores.per_class, recall, strict=True):
        assert (mine is None) == bool(np.isnan(theirs))
        assert mine is None or mine == pytest.approx(100 * theirs, abs=1e-10)
    assert scores.images == images
    assert scores.present == len(set(targets.tolist()))
    assert scores.ece == pytest.approx(slow_ece(probability.max(1), prediction == targets.numpy()), abs=1e-4)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0.001, 1.0), st.booleans()), min_size=1, max_size=60), st.integers(1, 20))
def test_calibration_error_equals_the_slow_one(pairs: list[tuple[float, bool]], bins: int) -> None:
    confidence = np.array([c for c, _ in pairs])
    # On an edge itself, rounding alone decides the bin.
    confidence = confidence[np.abs(confidence * bins - np.round(confidence * bins)) > 1e-9]
    correct = np.array([float(y) for _, y in pairs])[: len(confidence)]
    if len(confidence):
        found = expected_calibration_error(confidence, correct, bins)
        assert found == pytest.approx(slow_ece(confidence, correct, bins), abs=1e-9)


def test_absent_classes_and_groups() -> None:
    """The test set lacks class 2 of 5 and every prediction is right."""
    targets = torch.tensor([0, 0, 1, 3, 4, 4, 4])
    scores = scorer(10 * torch.eye(5)[targets], targets).scores(
        {"head": [0, 1], "mid": [2, 3], "tail": [2], "none": []}
    )
    assert (scores.accuracy, scores.balanced_accuracy) == (100.0, 100.0)
    assert scores.per_class == [100.0, 100.0, None, 100.0, 100.0]
    assert scores.groups == {"head": 100.0, "mid": 100.0, "tail": None, "none": None}
    assert (scores.present, scores.images) == (4, 7)


def test_a_group_is_the_unweighted_mean_of_its_classes() -> None:
    targets = torch.tensor([0] * 9 + [1])
    logits = torch.zeros(10, 2)
    logits[:, 0] = 1.0  # always class 0
    scores = scorer(logits, targets).scores({"all": [0, 1]})
    assert scores.accuracy == pytest.approx(90.0)
    assert scores.groups["all"] == pytest.approx(50.0) == scores.balanced_accuracy


@pytest.mark.parametrize("spoiled", [float("inf"), float("nan")])
def test_answers_that_are_no_numbers_are_wrong_and_have_no_loss(spoiled: float) -> None:
    targets = torch.tensor([0, 0, 1, 1])
    logits = 5 * torch.eye(2)[targets]
    logits[0, 0] = spoiled  # of class 0, the right one
    scores = scorer(logits, targets).scores({"head": [0]})
    assert (scores.accuracy, scores.per_class, scores.groups) == (75.0, [50.0, 100.0], {"head": 50.0})
    assert (scores.loss, scores.ece) == (None, None)


def test_scores_do_not_depend_on_the_cut_into_batches_nor_on_the_float_type() -> None:
    logits, targets = example(64, 5, 4)
    whole = scorer(logits, targets, 64).scores({"g": [0, 1]})
    assert scorer(logits, targets, 1).scores({"g": [0, 1]}) == whole
    half = logits.bfloat16()
    assert scorer(half, targets).scores({}) == scorer(half.float(), targets).scores({})


# A pass over a split: the mode it leaves, and the scale that LDAM's cosines need before they are probabilities.

GROUPS = {"head": [0], "mid": [1], "tail": [2]}


def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(30, 5, generator=generator)
    targets = torch.randint(0, 3, (30,), generator=generator)
    return [Batch(inputs[i : i + 12], targets[i : i + 12], torch.arange(30)[i : i + 12]) for i in range(0, 30, 12)]


@pytest.mark.parametrize(("loss", "scale"), [(LDAMLoss([9, 5, 2], scale=30.0), 30.0), (CrossEntropyLoss(3), 1.0)])
def test_loss_and_calibration_are_of_the_logits_that_were_trained(loss: nn.Module, scale: float) -> None:
    model = CosineHead(5, 3)
    assert loss.logit_scale == scale
    scores = score(model, batches(), 3, Precision("float32", "cpu"), logit_scale=loss.logit_scale).scores(GROUPS)
    inputs, targets = (torch.cat(parts) for parts in zip(*[(b.inputs, b.targets) for b in batches()], strict=True))
    logits = (scale * model(inputs).double()).detach()
    expected = nn.functional.cross_entropy(logits, targets)
    assert scores.loss == pytest.approx(float(expected), rel=1e-5)
    assert scores.accuracy == pytest.approx(100 * np.mean((logits.argmax(1) == targets).numpy()))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_left_as_it_was(training: bool) -> None:
    model = CosineHead(5, 3).train(training)
    score(model, batches(), 3, Precision("float32", "cpu"))
    assert model.training is training
