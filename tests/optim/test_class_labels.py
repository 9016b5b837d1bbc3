"""Targets as people have them."""

from __future__ import annotations

import pytest
import torch

from saddlescape.errors import InputError
from saddlescape.optim.class_labels import PerClass, checked_labels

Y = [0, 2, 1]


@pytest.mark.parametrize("targets", [
    torch.tensor(Y, dtype=torch.int32),
    torch.tensor(Y, dtype=torch.uint8),
    torch.tensor(Y, dtype=torch.float32),
    torch.tensor(Y)[:, None],
    torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2]]),
])  # fmt: skip
def test_every_form_of_target(targets: torch.Tensor) -> None:
    labels = checked_labels(targets, 3, "SAM")
    assert labels.dtype == torch.int64
    assert labels.tolist() == Y


@pytest.mark.parametrize(("targets", "words"), [
    (torch.tensor([0, -1, 2]), r"targets\[1\] is -1"),
    (torch.tensor([0, 1, 3]), r"targets\[2\] is 3; labels are whole numbers from 0 to 2"),
    (torch.tensor([0.5, 1, 2]), r"targets\[0\] is 0.5"),
    (torch.tensor([float("nan"), 1, 2]), r"targets\[0\] is nan"),
    (torch.zeros(3, 3, dtype=torch.int64), r"torch.int64 \[3, 3\]"),
    (torch.zeros(3, 2), r"\[3, 2\]"),
    (torch.zeros(()), r"\[\]"),
    (torch.zeros(3, dtype=torch.complex64), "complex64"),
    ([0, 1, 2], "got a list"),
])  # fmt: skip
def test_bad_targets_are_one_line(targets: torch.Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        checked_labels(targets, 3, "ImbSAM")
    assert str(caught.value).startswith("ImbSAM: ")
    assert "\n" not in str(caught.value)


def test_a_table_by_class() -> None:
    table = PerClass(torch.tensor([0.5, 2.0]))
    assert table(torch.tensor([1, 0, 1])).tolist() == [2.0, 0.5, 2.0]
    elsewhere = torch.zeros(4, dtype=torch.int64, device="meta")
    assert table(elsewhere).is_meta and table(elsewhere).dtype == torch.float64 and table(elsewhere).shape == (4,)
