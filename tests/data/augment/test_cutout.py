"""Cutout against a per-image loop of the authors' rule."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from saddlescape.data.augment.cutout import Cutout, cutout
from saddlescape.errors import InputError


@pytest.mark.parametrize(("size", "length"), [(32, 16), (9, 4), (8, 5), (6, 20)])
def test_equals_a_loop_over_images(size: int, length: int) -> None:
    images = torch.randint(1, 256, (50, 3, size, size), dtype=torch.uint8)
    row, column = torch.randint(0, size, (2, 50))
    got = cutout(images, row, column, length)
    for n in range(50):
        want = images[n].clone()
        y, x = int(row[n]), int(column[n])
        top, bottom = max(y - length // 2, 0), min(y + length // 2, size)
        left, right = max(x - length // 2, 0), min(x + length // 2, size)
        want[:, top:bottom, left:right] = 0
        assert torch.equal(got[n], want)


def test_the_centre_is_any_pixel_evenly_so_the_hole_overhangs() -> None:
    out = Cutout(2)(torch.full((12_800, 1, 8, 8), 9, dtype=torch.uint8), torch.Generator().manual_seed(0))
    hole = out[:, 0] == 0
    # The hole ends at its centre, so its last row and column are one before it; none if the centre is on row 0.
    last_row = (hole.any(2) * torch.arange(1, 9)).amax(1)
    assert set((hole.sum((1, 2))).tolist()) == {1, 2, 4}  # corner, edge, whole
    assert stats.chisquare(torch.bincount(last_row, minlength=9)[1:].numpy()).pvalue > 1e-3


def test_bad_length_is_refused() -> None:
    with pytest.raises(InputError, match="length >= 0"):
        Cutout(-1)
