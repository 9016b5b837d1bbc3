"""What a curvature is measured of: which images, which classes, which loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from saddlescape.errors import InputError
from saddlescape.measure.subject import Subject, parse_classes, training_loss
from saddlescape.training.checkpoint import Cursor


def test_images_are_those_of_the_class_unaugmented(subject: Subject, class_images: Callable[..., Any]) -> None:
    images, targets = class_images(subject, 7)
    mine, labels = subject.samples([7])[0]
    assert torch.equal(labels, targets)
    assert torch.allclose(mine.double(), images, atol=1e-6)


def test_more_images_than_fit_into_memory_are_refused_with_a_way_out(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saddlescape.measure.subject.HELD", 4 * 64 * 20)  # twenty of the digits
    with pytest.raises(InputError, match=r"images of 8 x 8 pixels would take .*--samples-per-group"):
        subject.samples(subject.dataset.groups["head"])
    assert len(subject.samples(subject.dataset.groups["head"], most=20)[0][1]) == 20


def test_the_hessian_of_the_influence_balanced_loss_is_not_built(subject: Subject) -> None:
    """Which loss a run has at an epoch is held in tests/training/test_epoch.py."""
    config = subject.opened.config
    ib = dataclasses.replace(config, stages=(dataclasses.replace(config.stages[0], loss="ib"),))
    with pytest.raises(InputError, match="--loss ce"):
        training_loss(ib, Cursor(0, 3), subject.dataset.class_counts)


def test_classes_by_name_number_and_group(subject: Subject) -> None:
    dataset = dataclasses.replace(subject.dataset, classes=[f"n{i}" for i in range(9)] + ["0"])
    assert parse_classes(["0", "n1", "1", "2"], dataset) == [9, 1, 2]  # a name goes before a number
    assert parse_classes(["tail", "0"], subject.dataset) == [5, 6, 7, 8, 9, 0]
    with pytest.raises(InputError, match="--classes cat"):
        parse_classes(["cat"], dataset)
