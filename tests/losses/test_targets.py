from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saddlescape.errors import InputError
from saddlescape.losses import CrossEntropyLoss, LDAMLoss

LOGITS = torch.tensor([[0.5, -0.2, 0.1], [0.3, 0.9, -0.7]])
LABELS = torch.tensor([2, 1])
DTYPES = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.float32, torch.float64, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2,), (2, 1)])
@pytest.mark.parametrize("loss", [CrossEntropyLoss(), CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3]))], ids=str)
def test_labels_of_any_dtype_and_both_shapes_mean_the_same(
    loss: CrossEntropyLoss, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    expected = torch.nn.functional.cross_entropy(LOGITS, LABELS, weight=loss.weight)
    target = LABELS.to(dtype).reshape(shape)
    torch.testing.assert_close(loss(LOGITS, target), expected)
    torch.testing.assert_close(
        loss.sample_weights(target), torch.ones(2) if loss.weight is None else loss.weight[LABELS]
    )


def test_boolean_labels_mean_0_and_1() -> None:
    logits, labels = LOGITS[:, :2], torch.tensor([True, False])
    assert CrossEntropyLoss()(logits, labels) == CrossEntropyLoss()(logits, labels.long())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([0, -1]), r"target\[1\] is -1, outside 0\.\.2 for 3 classes$"),
        (torch.tensor([3, 0]), r"target\[0\] is 3, outside 0\.\.2 for 3 classes$"),
        (torch.tensor([1, 3]), r"target\[1\] is 3.*labels count from 0, subtract 1"),
        (torch.tensor([0, 255], dtype=torch.uint8), r"target\[1\] is 255"),
        (torch.tensor([0.0, -100.0]), r"target\[1\] is -100"),
        (torch.tensor([0.0, 1.5]), r"target\[1\] is 1.5; labels are whole numbers"),
        (torch.tensor([0.0, float("nan")]), r"target\[1\] is nan; labels are whole numbers"),
        (torch.tensor([0]), r"must hold 2 labels"),
        (torch.tensor([0, 1, 2]), r"must hold 2 labels"),
        (torch.tensor([[0, 1, 0], [1, 0, 0]]), r"must hold 2 labels.*or soft labels \(float \[2, 3\]\)"),
        (torch.tensor([[0.5, 0.5], [1.0, 0.0]]), r"must hold 2 labels"),
        (torch.tensor([[0.5, 0.5, 1.0], [1.0, 0.0, 0.0]]), r"soft target 0 is not a distribution"),
        (torch.tensor([[1.0, 0.0, 0.0], [1.5, -0.5, 0.0]]), r"soft target 1 is not a distribution"),
        (torch.tensor([[1.0, 0.0, 0.0], [float("nan"), 0.0, 1.0]]), r"soft target 1 is not a distribution"),
        (torch.tensor([0, 1], device="meta"), "logits are on cpu but target is on meta"),
    ],
)
@pytest.mark.parametrize("loss", [CrossEntropyLoss(), LDAMLoss([5, 3, 2])], ids=["ce", "ldam"])
def test_a_wrong_target_is_one_line_with_its_place(loss: CrossEntropyLoss, target: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        loss(LOGITS, target)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("logits", [torch.zeros(3), torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64)])
def test_wrong_logits_are_one_line(logits: Tensor) -> None:
    with pytest.raises(InputError, match="logits must be floating point"):
        CrossEntropyLoss()(logits, LABELS)


def test_another_number_of_classes_than_the_loss_was_built_for() -> None:
    with pytest.raises(InputError, match="logits have 3 columns; this LDAMLoss is for 2 classes"):
        LDAMLoss([5, 3])(LOGITS, LABELS)
    with pytest.raises(InputError, match="logits have 3 columns but the class weights are 2"):
        CrossEntropyLoss(weight=torch.ones(2))(LOGITS, LABELS)
