"""Every operation against Pillow, bit for bit: colour and grey, square and oblong, noisy, smooth and flat images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from saddlescape.data.augment import geometry, tone
from saddlescape.data.augment.ops import NAMES, OPERATIONS, apply_grouped
from saddlescape.errors import InputError

COUNT = 36


def examples(mode: str, height: int, width: int) -> list[Image.Image]:
    rng = np.random.default_rng(7)
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    made = []
    for n in range(COUNT):
        low, high = [(0, 256), (90, 150), (200, 203)][n % 3]
        noise = Image.fromarray(rng.integers(low, high, shape).astype(np.uint8))
        made.append(noise.filter(ImageFilter.GaussianBlur(n % 4)))
    made[0] = Image.new(mode, (width, height), 77 if mode == "L" else (77, 0, 255))  # a flat one
    made[1].paste(255 if mode == "L" else (255, 255, 255), (0, 0, width // 2, height))  # most pixels in one bin
    return made


def as_tensor(images: list[Image.Image]) -> Tensor:
    arrays = np.stack([np.array(image) for image in images])
    return torch.from_numpy(arrays if arrays.ndim == 4 else arrays[..., None]).permute(0, 3, 1, 2)


def affine(*matrix: float, resample: int = 0) -> Callable[[Image.Image], Image.Image]:
    def run(image: Image.Image) -> Image.Image:
        fill = 128 if image.mode == "L" else (128, 128, 128)
        return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=fill)

    return run


def rotated(degrees: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.rotate(degrees, fillcolor=128 if image.mode == "L" else (128, 128, 128))


rng = np.random.default_rng(11)
SHEAR = rng.uniform(-0.3, 0.3, COUNT)
PIXELS = np.concatenate([rng.uniform(-14, 14, COUNT - 4), [0.5, -0.5, 3.0, 100.0]])
DEGREES = np.concatenate([rng.uniform(-30, 30, COUNT - 3), [0.0, 45.0, -89.0]])
FACTOR = np.concatenate([rng.uniform(0, 2, COUNT - 3), [0.0, 1.0, 1.9]])
THRESHOLD = np.concatenate([rng.uniform(0, 256, COUNT - 2), [0.0, 256.0]])
BITS = rng.integers(1, 9, COUNT)
BICUBIC = int(Image.Resampling.BICUBIC)

CASES: dict[str, tuple[Callable[..., Tensor], np.ndarray | None, Callable[[float], Callable[..., Image.Image]]]] = {
    "shear_x": (geometry.shear_x, SHEAR, lambda m: affine(1, m, 0, 0, 1, 0, resample=BICUBIC)),
    "shear_y": (geometry.shear_y, SHEAR, lambda m: affine(1, 0, 0, m, 1, 0, resample=BICUBIC)),
    "translate_x": (geometry.translate_x, PIXELS, lambda m: affine(1, 0, m, 0, 1, 0)),
    "translate_y": (geometry.translate_y, PIXELS, lambda m: affine(1, 0, 0, 0, 1, m)),
    "rotate": (geometry.rotate, DEGREES, rotated),
    "invert": (tone.invert, None, lambda m: ImageOps.invert),
    "solarize": (tone.solarize, THRESHOLD, lambda m: lambda image: ImageOps.solarize(image, m)),
    "posterize": (tone.posterize, BITS, lambda m: lambda image: ImageOps.posterize(image, int(m))),
    "autocontrast": (tone.autocontrast, None, lambda m: ImageOps.autocontrast),
    "equalize": (tone.equalize, None, lambda m: ImageOps.equalize),
    "brightness": (tone.brightness, FACTOR, lambda m: lambda image: ImageEnhance.Brightness(image).enhance(m)),
    "color": (tone.color, FACTOR, lambda m: lambda image: ImageEnhance.Color(image).enhance(m)),
    "contrast": (tone.contrast, FACTOR, lambda m: lambda image: ImageEnhance.Contrast(image).enhance(m)),
    "sharpness": (tone.sharpness, FACTOR, lambda m: lambda image: ImageEnhance.Sharpness(image).enhance(m)),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("mode", "height", "width"), [("RGB", 32, 32), ("RGB", 21, 34), ("L", 8, 8), ("L", 40, 17)])
@pytest.mark.parametrize("name", CASES)
def test_equals_pillow(name: str, mode: str, height: int, width: int, layout: torch.memory_format) -> None:
    ours, magnitude, pillow = CASES[name]
    images = examples(mode, height, width)
    tensor = as_tensor(images).contiguous(memory_format=layout)
    before = tensor.clone()
    got = ours(tensor) if magnitude is None else ours(tensor, torch.from_numpy(magnitude))
    amounts = np.zeros(COUNT) if magnitude is None else magnitude
    want = as_tensor([pillow(float(m))(image) for image, m in zip(images, amounts, strict=True)])
    assert got.dtype == torch.uint8
    assert torch.equal(got, want)
    assert torch.equal(tensor, before)


def test_grouped_application_gives_each_image_its_own_operation() -> None:
    images = as_tensor(examples("RGB", 32, 32))
    choice = torch.arange(COUNT) % (len(NAMES) + 1) - 1  # -1: left alone
    magnitude = torch.full((COUNT,), 0.25, dtype=torch.float64)
    magnitude[choice == NAMES.index("posterize")] = 3
    got = apply_grouped(images, choice, magnitude)
    for n in range(COUNT):
        one = images[n : n + 1]
        want = one if choice[n] < 0 else OPERATIONS[NAMES[choice[n]]](one, magnitude[n : n + 1])
        assert torch.equal(got[n : n + 1], want)


def test_two_channels_have_no_grey() -> None:
    with pytest.raises(InputError, match="1 or 3 channels, got 2"):
        tone.contrast(torch.zeros(1, 2, 4, 4, dtype=torch.uint8), torch.ones(1))
