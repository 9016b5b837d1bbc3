"""SimCLR's colours: hue against the standard library, the rest against Pillow, and how often each happens."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from saddlescape.data.augment.simclr import SimCLRColors, simclr_jitter, turn_hue
from saddlescape.errors import InputError


def by_colorsys(pixels: np.ndarray, turns: float) -> np.ndarray:
    out = np.empty_like(pixels)
    for place in np.ndindex(pixels.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixels[place] / 255))
        out[place] = np.round(255 * np.array(colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)))
    return out


def as_batch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def test_hue_equals_the_standard_library_s() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 9, 3)).astype(np.uint8)
    pixels[0, 0] = 77  # grey
    pixels[0, 1] = np.eye(3, dtype=np.uint8).repeat(3, 0) * 255
    turns = torch.linspace(-0.5, 0.5, 8, dtype=torch.float64)
    got = turn_hue(as_batch(pixels), turns).permute(0, 2, 3, 1).numpy()
    for n in range(8):
        difference = np.abs(got[n].astype(int) - by_colorsys(pixels[n], float(turns[n])))
        assert difference.max() <= 1 and (difference > 0).mean() < 0.02  # halves are rounded either way
    assert torch.equal(turn_hue(as_batch(pixels), torch.zeros(8)), as_batch(pixels))


def test_each_picture_has_its_own_order() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (24, 8, 8, 3)).astype(np.uint8)
    order = torch.rand(24, 4).argsort(1)
    change = (torch.rand(24, 4, dtype=torch.float64) - 0.5) * 0.4
    got = simclr_jitter(as_batch(pixels), order, change).permute(0, 2, 3, 1).numpy()
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for n in range(24):
        picture = pixels[n]
        for which in order[n].tolist():
            amount = float(change[n, which])
            if which == 3:
                picture = by_colorsys(picture, amount)
            else:
                picture = np.array(enhancers[which](Image.fromarray(picture)).enhance(1 + amount))
        assert np.abs(got[n].astype(int) - picture).max() <= 2  # a level of the hue, passed on by what follows


def test_chances_and_left_out_parts() -> None:
    images = torch.randint(0, 256, (4000, 3, 2, 2), dtype=torch.uint8)
    out = SimCLRColors()(images, torch.Generator().manual_seed(0))
    grey = (out[:, :1] == out).all((1, 2, 3))
    untouched = (out == images).all((1, 2, 3))
    assert abs(grey.double().mean() - 0.2) < 0.02
    assert abs(untouched.double().mean() - 0.2 * 0.8) < 0.02
    assert torch.equal(SimCLRColors(jitter=0, grey=0)(images, torch.Generator()), images)
    one = torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8)
    assert torch.equal(SimCLRColors(strength=0, grey=1)(one, torch.Generator()), one)  # neither hue nor grey
    with pytest.raises(InputError, match=r"hue in \[0, 0.5\]"):
        SimCLRColors(hue=0.7)
