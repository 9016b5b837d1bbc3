"""Random colours: factors against Pillow and hue against the standard library, in each image's own order."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from saddlescape.data.augment import ColorJitter, Compose, CropFlip, SimCLRColors
from saddlescape.data.augment.jitter import jitter
from saddlescape.data.augment.tone import hue

ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def by_colorsys(pixels: np.ndarray, turns: float) -> np.ndarray:
    out = np.empty_like(pixels)
    for place in np.ndindex(pixels.shape[:2]):
        angle, saturation, value = colorsys.rgb_to_hsv(*(pixels[place] / 255))
        out[place] = np.round(255 * np.array(colorsys.hsv_to_rgb((angle + turns) % 1, saturation, value)))
    return out


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def as_batch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("columns", [3, 4])
def test_equals_pillow_in_each_image_s_order(columns: int) -> None:
    pixels = noise(24, 8, 8, 3)
    order = torch.rand(24, columns).argsort(1)
    change = (torch.rand(24, columns, dtype=torch.float64) - 0.5) * torch.tensor([0.8, 0.6, 0.4, 0.2])[:columns]
    got = jitter(as_batch(pixels), order, change).permute(0, 2, 3, 1).numpy()
    for n in range(24):
        image = pixels[n]
        for which in order[n].tolist():
            amount = float(change[n, which])
            if which == 3:
                image = by_colorsys(image, amount)
            else:
                image = np.array(ENHANCERS[which](Image.fromarray(image)).enhance(1 + amount))
        # A level of the hue, passed on by what follows.
        assert np.abs(got[n].astype(int) - image).max() <= (2 if columns == 4 else 0)


@pytest.mark.parametrize("channels", [1, 3])
def test_flip_and_jitter_image_by_image_equal_the_batch_to_the_bit(channels: int) -> None:
    steps = (CropFlip(padding=0), ColorJitter())
    pixels = noise(24, 13, 17, channels)
    want = Compose(steps)(as_batch(pixels), torch.Generator().manual_seed(7)).permute(0, 2, 3, 1).numpy()
    generator = torch.Generator().manual_seed(7)
    draws = [step.draw(24, generator) for step in steps]
    for row in range(24):
        image = Image.fromarray(pixels[row] if channels == 3 else pixels[row, ..., 0])
        for step, drawn in zip(steps, draws, strict=True):
            image = step.on_image(image, drawn, row)
        assert np.array_equal(np.asarray(image).reshape(13, 17, channels), want[row])
    assert not np.array_equal(want, pixels)


def test_draws_cover_all_orders_and_their_range() -> None:
    order, change = ColorJitter().draw(3000, torch.Generator().manual_seed(0))
    assert len(order.unique(dim=0)) == 6 and (order.sort(1).values == torch.arange(3)).all()
    assert ((change.amax(0) - 0.4).abs() < 0.01).all() and ((change.amin(0) + 0.4).abs() < 0.01).all()
    assert (change.mean(0).abs() < 0.02).all()


def test_hue_equals_the_standard_library_s() -> None:
    pixels = noise(8, 9, 9, 3)
    pixels[0, 0] = 77  # grey
    pixels[0, 1] = np.eye(3, dtype=np.uint8).repeat(3, 0) * 255
    turns = torch.linspace(-0.5, 0.5, 8, dtype=torch.float64)
    got = hue(as_batch(pixels), turns).permute(0, 2, 3, 1).numpy()
    for n in range(8):
        difference = np.abs(got[n].astype(int) - by_colorsys(pixels[n], float(turns[n])))
        assert difference.max() <= 1 and (difference > 0).mean() < 0.02  # halves are rounded either way
    assert torch.equal(hue(as_batch(pixels), torch.zeros(8)), as_batch(pixels))
    assert torch.equal(hue(as_batch(noise(8, 4, 4, 1)), turns), as_batch(noise(8, 4, 4, 1)))


def test_chances_of_simclr_s_colours() -> None:
    images = torch.randint(0, 256, (4000, 3, 2, 2), dtype=torch.uint8)
    out = SimCLRColors()(images, torch.Generator().manual_seed(0))
    grey = (out[:, :1] == out).all((1, 2, 3))
    untouched = (out == images).all((1, 2, 3))
    assert abs(grey.double().mean() - 0.2) < 0.02
    assert abs(untouched.double().mean() - 0.2 * 0.8) < 0.02
