"""Colour jitter against Pillow, factor by factor in each picture's own order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from saddlescape.data.augment.jitter import ColorJitter, color_jitter
from saddlescape.errors import InputError


def test_equals_pillow_in_each_picture_s_order() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 12, 12, 3)).astype(np.uint8)
    order, change = ColorJitter(0.4, 0.3, 0.2).draw(30, torch.Generator().manual_seed(0))
    got = color_jitter(torch.from_numpy(pixels).permute(0, 3, 1, 2), order, change).permute(0, 2, 3, 1).numpy()
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for n in range(30):
        picture = Image.fromarray(pixels[n])
        for which in order[n].tolist():
            picture = enhancers[which](picture).enhance(1 + float(change[n, which]))
        assert np.array_equal(got[n], np.array(picture))


def test_draws_cover_all_orders_and_their_range() -> None:
    order, change = ColorJitter(0.4, 0.3, 0.2).draw(3000, torch.Generator().manual_seed(0))
    assert len(order.unique(dim=0)) == 6 and (order.sort(1).values == torch.arange(3)).all()
    for column, strength in enumerate((0.4, 0.3, 0.2)):
        assert abs(change[:, column].max() - strength) < 0.01 and abs(change[:, column].min() + strength) < 0.01
        assert abs(change[:, column].mean()) < 0.05 * strength


def test_call_is_draw_and_apply_and_zero_strength_does_nothing() -> None:
    images = torch.randint(0, 256, (6, 3, 9, 9), dtype=torch.uint8)
    jitter = ColorJitter()
    want = color_jitter(images, *jitter.draw(6, torch.Generator().manual_seed(2)))
    assert torch.equal(jitter(images, torch.Generator().manual_seed(2)), want)
    assert torch.equal(ColorJitter(0, 0, 0)(images, torch.Generator()), images)
    with pytest.raises(InputError, match=r"strengths in \[0, 1\]"):
        ColorJitter(1.5)
