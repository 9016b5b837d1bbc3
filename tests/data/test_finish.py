"""Picture by picture equals batch by batch, to the bit: flip and jitter from the same draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from saddlescape.data.augment import ColorJitter, Compose, Cutout, build_augment
from saddlescape.data.augment.crop_flip import CropFlip
from saddlescape.data.finish import Finish


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_those_of_the_batch(channels: int) -> None:
    steps = (CropFlip(padding=0), ColorJitter(0.4, 0.3, 0.2))
    pixels = np.random.default_rng(0).integers(0, 256, (24, 13, 17, channels)).astype(np.uint8)
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    want = Compose(steps)(batch, torch.Generator().manual_seed(7)).permute(0, 2, 3, 1).numpy()
    finish = Finish.of(Compose(steps))
    assert finish is not None
    draws = finish.draw(24, torch.Generator().manual_seed(7))
    for row in range(24):
        picture = Image.fromarray(pixels[row] if channels == 3 else pixels[row, ..., 0])
        got = np.asarray(finish.apply(picture, draws, row)).reshape(13, 17, channels)
        assert np.array_equal(got, want[row])
    assert not np.array_equal(want, pixels)


def test_only_what_it_knows() -> None:
    assert Finish.of(None) == Finish(()) == Finish.of(Compose())
    assert Finish.of(ColorJitter()) == Finish((ColorJitter(),))
    assert Finish.of(CropFlip(padding=4)) is None
    assert Finish.of(Compose((CropFlip(padding=0), Cutout(4)))) is None
    registered = build_augment("resized-crop-flip-jitter", 32)
    assert isinstance(registered, Compose) and Finish.of(Compose(registered.steps[1:])) is not None
    assert Finish.of(registered) is None  # the crop is no step of a single finished picture
