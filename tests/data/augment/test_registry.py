"""Every augmentation by name: what all of them promise."""

from __future__ import annotations

import pickle

import pytest
import torch

from saddlescape.data.augment import AUGMENTATIONS, build_augment
from saddlescape.errors import InputError


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_shape_dtype_seed_and_side_effects(name: str, channels: int) -> None:
    images = torch.randint(0, 256, (24, channels, 16, 16), dtype=torch.uint8)
    before, state = images.clone(), torch.get_rng_state()
    augment = build_augment(name, 16)
    out = augment(images, torch.Generator().manual_seed(1))
    assert out.dtype == torch.uint8 and out.shape == images.shape
    assert torch.equal(images, before), "the input was changed"
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert torch.equal(out, augment(images, torch.Generator().manual_seed(1)))
    assert torch.equal(out, pickle.loads(pickle.dumps(augment))(images, torch.Generator().manual_seed(1)))
    if name == "none":
        assert torch.equal(out, images)
    else:
        assert not torch.equal(out, augment(images, torch.Generator().manual_seed(2)))
    last = augment(images.contiguous(memory_format=torch.channels_last), torch.Generator().manual_seed(1))
    assert torch.equal(out, last)


def test_crop_shifts_digits_by_one_pixel_at_most() -> None:
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    image[0, 0, 4, 3] = 255
    out = build_augment("crop", 8)(image.expand(200, -1, -1, -1), torch.Generator().manual_seed(0))
    where = out.nonzero()[:, 2:]
    assert {tuple(place) for place in where.tolist()} == {(r, c) for r in (3, 4, 5) for c in (2, 3, 4)}


def test_cutout_and_padding_scale_with_the_image() -> None:
    white = torch.full((400, 1, 64, 64), 255, dtype=torch.uint8)
    hole = (build_augment("crop-flip-cutout", 64)(white, torch.Generator().manual_seed(0)) == 0).sum((1, 2, 3))
    assert hole.max() > 32 * 32 and hole.min() >= 16 * 16  # hole of 32, border of up to 8


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(InputError, match=r"'mosaic'.*none, flip, crop, crop-flip.*autoaugment-cutout"):
        build_augment("mosaic", 32)
    with pytest.raises(InputError, match="at least 1 pixel"):
        build_augment("crop", 0)
    with pytest.raises(InputError, match=r"uint8 images \[N, C, H, W\], got float32"):
        build_augment("crop", 8)(torch.zeros(2, 3, 8, 8), torch.Generator())
