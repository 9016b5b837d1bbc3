from __future__ import annotations

import numpy as np
import pytest
import torch

from saddlescape import losses
from saddlescape.errors import InputError
from saddlescape.schedules import DeferredReweighting

MESSAGE = "class 2 has no training images; give every class at least one image or leave the class out of the data set"
EMPTY = [100, 10, 0]
TAKERS = {
    "ldam": lambda: losses.LDAMLoss(EMPTY),
    "vs": lambda: losses.VSLoss(EMPTY),
    "la": lambda: losses.LogitAdjustedLoss(EMPTY),
    "bs": lambda: losses.BalancedSoftmaxLoss(EMPTY),
    "ib": lambda: losses.InfluenceBalancedLoss(EMPTY),
    "las": lambda: losses.LabelAwareSmoothingLoss(EMPTY, 0.3, 0.0),
    "ce by name": lambda: losses.build_loss("ce", EMPTY),
    "focal by name": lambda: losses.build_loss("focal", EMPTY),
    "post hoc": lambda: losses.post_hoc_adjust(torch.zeros(1, 3), EMPTY),
    "effective number": lambda: losses.effective_number_weights(EMPTY),
    "inverse frequency": lambda: losses.inverse_frequency_weights(EMPTY),
    "drw": lambda: DeferredReweighting(EMPTY, 160),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_a_class_without_images_is_the_same_error_everywhere(taker: str) -> None:
    with pytest.raises(InputError) as caught:
        TAKERS[taker]()
    assert str(caught.value) == MESSAGE


def test_several_empty_classes_are_all_named() -> None:
    with pytest.raises(InputError, match="classes 0, 2 have no training images"):
        losses.check_class_counts([0, 5, 0])


@pytest.mark.parametrize("counts", [[5, 3], (5, 3), np.array([5, 3]), torch.tensor([5, 3]), torch.tensor([5.0, 3.0])])
def test_counts_may_be_any_list_of_numbers(counts: object) -> None:
    checked = losses.check_class_counts(counts)  # type: ignore[arg-type]
    assert checked.dtype == torch.float64
    assert checked.tolist() == [5.0, 3.0]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([], "two or more classes"),
        ([5], "two or more classes"),
        ([[5, 3]], "two or more classes"),
        ([5, -1], r"class_counts\[1\] is -1"),
        ([5, float("nan")], r"class_counts\[1\] is nan"),
        ([float("inf"), 5], r"class_counts\[0\] is inf"),
        ("ab", "list of numbers"),
        (["5", "x"], "list of numbers"),
        (None, "list of numbers"),
    ],
)
def test_what_is_no_list_of_counts_is_refused(counts: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        losses.check_class_counts(counts)  # type: ignore[arg-type]
