"""Mixup and CutMix against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from saddlescape.data.augment.mix import cutmix, cutmix_box, draw_lambda, mixup, one_hot
from saddlescape.errors import InputError


def test_lambda_is_beta_and_reproducible() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_lambda(0.4, generator, 0.8) for _ in range(2000)]
    assert stats.kstest(drawn, stats.beta(0.4, 0.8).cdf).pvalue > 1e-3
    assert draw_lambda(1.0, torch.Generator().manual_seed(3)) == draw_lambda(1.0, torch.Generator().manual_seed(3))
    with pytest.raises(InputError, match="alpha > 0, got 0"):
        draw_lambda(0, generator)


def test_mixup_mixes_inputs_and_labels_alike() -> None:
    first, second = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(mixup(first, second, 0.3), second + 0.3 * (first - second))
    soft = mixup(one_hot(torch.tensor([0, 2]), 3), one_hot(torch.tensor([1, 2]), 3), 0.25)
    assert torch.equal(soft, torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]]))


@pytest.mark.parametrize(("rounding", "round_"), [("floor", math.floor), ("ceil", math.ceil)])
def test_boxes_have_their_size_unless_the_border_cuts_them(rounding: str, round_: object) -> None:
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(300):
        top, bottom, left, right = cutmix_box(20, 31, 0.7, generator, rounding)  # type: ignore[arg-type]
        half_high = round_(20 * math.sqrt(0.3)) // 2  # type: ignore[operator]
        half_wide = round_(31 * math.sqrt(0.3)) // 2  # type: ignore[operator]
        assert 0 <= top < bottom <= 20 and 0 <= left < right <= 31
        assert bottom - top == 2 * half_high or top == 0 or bottom == 20
        assert right - left == 2 * half_wide or left == 0 or right == 31
        seen.add((top, left))
    assert len(seen) > 100


def test_cutmix_pastes_the_box_and_counts_what_is_left() -> None:
    first, second = torch.zeros(2, 3, 10, 8), torch.ones(2, 3, 10, 8)
    mixed, share = cutmix(first, second, (1, 4, 2, 8))
    assert mixed[:, :, 1:4, 2:8].eq(1).all() and mixed.sum() == 2 * 3 * 3 * 6
    assert share == pytest.approx(1 - 18 / 80) and share == pytest.approx(1 - float(mixed.mean()))
    assert first.eq(0).all()
    untouched, whole = cutmix(first, second, cutmix_box(10, 8, 1.0, torch.Generator()))
    assert torch.equal(untouched, first) and whole == 1
