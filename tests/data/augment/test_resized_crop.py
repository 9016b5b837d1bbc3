"""Random resized crop: pixels against Pillow, boxes against the rejection loop written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy import stats

from saddlescape.data.augment.resized_crop import ResizedCrop, resized_crop
from saddlescape.errors import InputError


@pytest.mark.parametrize(("height", "width", "size"), [(40, 40, 24), (48, 30, 32)])
def test_pixels_are_pillow_s_to_one_level(height: int, width: int, size: int) -> None:
    rng = np.random.default_rng(0)
    originals = [
        Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8)).filter(
            ImageFilter.GaussianBlur(n % 3)
        )
        for n in range(20)
    ]
    images = torch.from_numpy(np.stack([np.array(image) for image in originals])).permute(0, 3, 1, 2)
    boxes = ResizedCrop(size).draw(20, height, width, torch.Generator().manual_seed(1))
    boxes[0] = torch.tensor([0, 0, height, width])
    boxes[1] = torch.tensor([3, 5, 1, 2])
    got = resized_crop(images, boxes, size).permute(0, 2, 3, 1).numpy().astype(int)
    for n, (top, left, high, wide) in enumerate(boxes.tolist()):
        crop = originals[n].crop((left, top, left + wide, top + high))
        want = np.array(crop.resize((size, size), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(got[n] - want).max() <= 1


def test_boxes_are_drawn_like_the_rejection_loop() -> None:
    height, width, count = 60, 90, 4000
    boxes = ResizedCrop(8).draw(count, height, width, torch.Generator().manual_seed(0))
    rng = np.random.default_rng(5)
    want = []
    for _ in range(count):
        for _ in range(10):
            area = height * width * rng.uniform(0.08, 1)
            ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if wide <= width and high <= height:
                want.append((rng.integers(0, height - high + 1), rng.integers(0, width - wide + 1), high, wide))
                break
        else:
            want.append((0, 5, 60, 80))
    top, left, high, wide = boxes.unbind(1)
    assert (top >= 0).all() and (left >= 0).all() and (top + high <= height).all() and (left + wide <= width).all()
    for ours, theirs in zip(boxes.unbind(1), np.array(want).T, strict=True):
        assert stats.ks_2samp(ours.numpy(), theirs).pvalue > 1e-3


@pytest.mark.parametrize(
    ("height", "width", "want"), [(10, 100, (0, 43, 10, 13)), (100, 10, (43, 0, 13, 10))]  # 4 : 3 of the ten rows
)
def test_where_no_attempt_fits_the_largest_centred_box_is_taken(
    height: int, width: int, want: tuple[int, ...]
) -> None:
    assert ResizedCrop(8).box([[0.999] * 10] * 4, height, width) == want  # all attempts ask for the whole area


def test_output_has_the_asked_size() -> None:
    out = ResizedCrop(12)(torch.zeros(3, 3, 20, 30, dtype=torch.uint8), torch.Generator())
    assert out.shape == (3, 3, 12, 12) and out.dtype == torch.uint8
    with pytest.raises(InputError, match="size >= 1"):
        ResizedCrop(0)


def test_the_box_of_one_image_is_that_of_the_batch_form() -> None:
    crop = ResizedCrop(224)
    generator = torch.Generator().manual_seed(3)
    for height, width in ((375, 500), (500, 375), (10, 100), (30, 30)):
        state = generator.get_state()
        want = crop.draw(500, height, width, generator)
        generator.set_state(state)
        uniform = torch.rand((4, 500, 10), generator=generator, dtype=torch.float64)
        got = [crop.box(uniform[:, n].tolist(), height, width) for n in range(500)]
        assert got == [tuple(box) for box in want.tolist()]
