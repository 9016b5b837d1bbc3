"""The peer "DataLoader": a plain torch ``DataLoader`` over image files, Pillow image by image.

What the published ImageNet scripts do with torchvision, written out with Pillow and torch because torchvision is not a
dependency: open, RGB, random resized crop (cut out, then scaled), flip, colour jitter, to a float tensor, normalise;
one sample at a time, in workers. Nothing of ours takes part.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Sample = tuple[Tensor, int]


class TrainTransform:
    """A PIL image -> float32 [3, size, size]: RandomResizedCrop, flip, ColorJitter(0.4, 0.4, 0.4), normalise."""

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float], jitter: bool = True) -> None:
        self.size, self.jitter = size, jitter
        self.mean, self.std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)

    def __call__(self, image: Image.Image) -> Tensor:
        left, top, width, height = random_box(*image.size)
        image = image.crop((left, top, left + width, top + height))
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.jitter:
            enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
            random.shuffle(enhancers)
            for enhancer in enhancers:
                image = enhancer(image).enhance(random.uniform(0.6, 1.4))
        tensor = torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).contiguous().float().div(255)
        return tensor.sub_(self.mean).div_(self.std)


def random_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width, height: 8 to 100 % of the area, aspect 3/4 to 4/3, ten attempts, else the centre."""
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            return random.randint(0, width - wide), random.randint(0, height - high), wide, high
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side, side


class ImageFiles(Dataset[Sample]):
    """``paths`` and ``labels`` as Python lists, as ``ImageFolder`` and the published loaders keep them."""

    def __init__(self, paths: Sequence[str], labels: Sequence[int], transform: TrainTransform) -> None:
        self.samples, self.transform = list(zip(paths, labels, strict=True)), transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        path, label = self.samples[index]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), label


class PlainLoader:
    """``epoch()`` gives batches [images, labels]; workers persist."""

    def __init__(
        self, paths: Sequence[str], labels: Sequence[int], transform: TrainTransform, *, batch_size: int, workers: int
    ) -> None:
        self.loader = DataLoader(
            ImageFiles(paths, labels, transform), batch_size=batch_size, shuffle=True, num_workers=workers,
            persistent_workers=workers > 0,
        )  # fmt: skip

    def epoch(self) -> Iterator[list[Tensor]]:
        return iter(self.loader)
