from __future__ import annotations

import pytest
import torch

from saddlescape.losses import CrossEntropyLoss

Z = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
Y = torch.tensor([0, 1, 2, 3, 4, 0, 0, 1])
W = torch.tensor([0.1, 0.4, 0.9, 1.5, 2.1], dtype=torch.float64)


@pytest.mark.parametrize("weight", [None, W], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_hard_labels_as_torch(reduction: str, weight: torch.Tensor | None) -> None:
    ours = CrossEntropyLoss(weight=weight, reduction=reduction)(Z, Y)  # type: ignore[arg-type]
    theirs = torch.nn.CrossEntropyLoss(weight=weight, reduction=reduction)(Z, Y)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


def test_soft_labels_as_torch_which_divides_by_the_samples() -> None:
    soft = torch.rand(8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(dim=1)
    theirs = torch.nn.CrossEntropyLoss(weight=W)(Z, soft)
    torch.testing.assert_close(CrossEntropyLoss(weight=W, normalization="samples")(Z, soft), theirs)
    over_weights = theirs * 8 / (soft @ W).sum()
    torch.testing.assert_close(CrossEntropyLoss(weight=W)(Z, soft), over_weights)


def test_an_empty_sum_is_zero_and_an_empty_mean_not_a_number_as_in_torch() -> None:
    empty, none = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    assert CrossEntropyLoss(reduction="sum")(empty, none) == 0
    assert CrossEntropyLoss()(empty, none).isnan()
