"""Crop and flip against a slow per-image version, and against the distribution that is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy import stats
from torch import Tensor

from saddlescape.data.augment.crop_flip import CropFlip, crop_flip
from saddlescape.errors import InputError


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def coordinates(count: int, size: int) -> Tensor:
    """Channel 0 holds each pixel's row + 1, channel 1 its column + 1, so that a pixel tells where it came from."""
    grid = torch.arange(1, size + 1, dtype=torch.uint8)
    rows, columns = grid.view(-1, 1).expand(size, size), grid.expand(size, size)
    return torch.stack((rows, columns, rows)).expand(count, 3, size, size).contiguous()


@pytest.mark.parametrize(("channels", "height", "width", "padding"), [(3, 32, 32, 4), (1, 8, 8, 1), (3, 7, 5, 2)])
def test_equals_pillow_image_by_image(channels: int, height: int, width: int, padding: int) -> None:
    images = noise(40, channels, height, width)
    rng = np.random.default_rng(1)
    top, left = rng.integers(0, 2 * padding + 1, (2, 40))
    flip = rng.random(40) < 0.5
    got = crop_flip(images, torch.from_numpy(top), torch.from_numpy(left), torch.from_numpy(flip), padding)
    for n in range(40):
        for channel in range(channels):
            image = Image.fromarray(images[n, channel].numpy())
            if flip[n]:
                image = ImageOps.mirror(image)
            frame = ImageOps.expand(image, padding, fill=0)
            want = frame.crop((int(left[n]), int(top[n]), int(left[n]) + width, int(top[n]) + height))
            assert np.array_equal(got[n, channel].numpy(), np.array(want))


def test_every_image_has_its_own_even_draw() -> None:
    count, padding, size = 20_000, 2, 9
    out = CropFlip(padding)(coordinates(count, size), torch.Generator().manual_seed(3))
    row = out[:, 0, size // 2, size // 2].long() - 1 - size // 2  # shift by which the centre was moved
    column = out[:, 1, size // 2, size // 2].long() - 1 - size // 2
    mirrored = out[:, 1, 4, 3] > out[:, 1, 4, 5]
    assert row.abs().max() == padding and column.abs().max() == padding
    cell = ((row + padding) * 5 + column + padding) * 2 + mirrored
    frequency = torch.bincount(cell, minlength=50)
    assert stats.chisquare(frequency.numpy()).pvalue > 1e-3
    # Neighbours in the batch are independent: the pairs of (shift, mirror) are even as well.
    pairs = torch.bincount(cell[:-1:2] * 50 + cell[1::2], minlength=2500)
    assert stats.chisquare(pairs.numpy()).pvalue > 1e-3


def test_flip_alone_mirrors_about_half_and_moves_nothing() -> None:
    images = coordinates(2000, 6)
    out = CropFlip(0)(images, torch.Generator().manual_seed(0))
    mirrored = out[:, 1, 0, 0] == 6
    assert torch.equal(out[mirrored], images[mirrored].flip(3)) and torch.equal(out[~mirrored], images[~mirrored])
    assert abs(mirrored.float().mean() - 0.5) < 0.05


def test_crop_alone_never_mirrors() -> None:
    out = CropFlip(1, flip_probability=0.0)(coordinates(500, 8), torch.Generator().manual_seed(0))
    assert (out[:, 1, 4, 3] < out[:, 1, 4, 5]).all()


def test_layout_does_not_matter_and_the_input_stays() -> None:
    images = noise(10, 3, 12, 12)
    before = images.clone()
    planar = CropFlip(3)(images, torch.Generator().manual_seed(5))
    last = CropFlip(3)(images.to(memory_format=torch.channels_last), torch.Generator().manual_seed(5))
    assert torch.equal(planar, last) and torch.equal(images, before)
    assert planar.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(planar, CropFlip(3)(images, torch.Generator().manual_seed(6)))


def test_negative_padding_is_refused() -> None:
    with pytest.raises(InputError, match="padding >= 0"):
        CropFlip(-1)
