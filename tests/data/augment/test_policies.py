"""AutoAugment and RandAugment against every outcome the papers allow, made with Pillow, and its probability."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy import stats
from torch import Tensor

from saddlescape.data.augment import AutoAugment, RandAugment
from saddlescape.data.augment.policies import CIFAR10_POLICY
from saddlescape.errors import InputError

# Typed from the paper's table of CIFAR-10 sub-policies: operation probability level, twice a line.
PAPER = """
Invert .1 7 Contrast .2 6         | Rotate .7 2 TranslateX .3 9        | Sharpness .8 1 Sharpness .9 3
ShearY .5 8 TranslateY .7 9       | AutoContrast .5 8 Equalize .9 2    | ShearY .2 7 Posterize .3 7
Color .4 3 Brightness .6 7        | Sharpness .3 9 Brightness .7 9     | Equalize .6 5 Equalize .5 1
Contrast .6 7 Sharpness .6 5      | Color .7 7 TranslateX .5 8         | Equalize .3 7 AutoContrast .4 8
TranslateY .4 3 Sharpness .2 6    | Brightness .9 6 Color .2 8         | Solarize .5 2 Invert 0 3
Equalize .2 0 AutoContrast .6 0   | Equalize .2 8 Equalize .6 4        | Color .9 9 Equalize .6 6
AutoContrast .8 4 Solarize .2 8   | Brightness .1 3 Color .7 0         | Solarize .4 5 AutoContrast .9 3
TranslateY .9 9 TranslateY .7 9   | AutoContrast .9 2 Solarize .8 3    | Equalize .8 8 Invert .1 3
TranslateY .7 9 AutoContrast .9 1
"""
GREY = (128, 128, 128)


def example() -> Image.Image:
    noise = np.random.default_rng(2).integers(30, 220, (16, 16, 3)).astype(np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1))


def outcomes(image: Image.Image, name: str, share: float) -> list[Image.Image]:
    """What Pillow makes of ``image`` at ``share`` of full strength: one, or one for each sign."""
    width, height = image.size

    def affine(*matrix: float, resample: Image.Resampling = Image.Resampling.NEAREST) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=GREY)

    fixed = {
        "Identity": lambda: image,
        "Invert": lambda: ImageOps.invert(image),
        "AutoContrast": lambda: ImageOps.autocontrast(image),
        "Equalize": lambda: ImageOps.equalize(image),
    }
    if name in fixed:
        return [fixed[name]()]
    made = []
    for sign in (-1, 1):
        m = sign * share
        if name == "ShearX":
            made.append(affine(1, 0.3 * m, 0, 0, 1, 0, resample=Image.Resampling.BICUBIC))
        elif name == "ShearY":
            made.append(affine(1, 0, 0, 0.3 * m, 1, 0, resample=Image.Resampling.BICUBIC))
        elif name == "TranslateX":
            made.append(affine(1, 0, 150 / 331 * m * width, 0, 1, 0))
        elif name == "TranslateY":
            made.append(affine(1, 0, 0, 0, 1, 150 / 331 * m * height))
        elif name == "Rotate":
            made.append(image.rotate(30 * m, fillcolor=GREY))
        else:
            made.append(getattr(ImageEnhance, name)(image).enhance(1 + 0.9 * m))
    return made


def policy_outcomes(image: Image.Image, name: str, level: int) -> list[Image.Image]:
    if name == "Posterize":
        return [ImageOps.posterize(image, round(8 - 4 * level / 9))]
    if name == "Solarize":
        return [ImageOps.solarize(image, 256 - 256 * level / 9)]
    return outcomes(image, name, level / 9)


def compare(got: Tensor, chances: dict[bytes, float]) -> float:
    """p-value of the observed images under ``chances``; any other image fails outright."""
    seen: dict[bytes, int] = defaultdict(int)
    for image in got.permute(0, 2, 3, 1).contiguous().numpy():
        seen[image.tobytes()] += 1
    assert set(seen) <= set(chances), "an image that no sub-policy gives"
    total = len(got)
    common = [key for key, chance in chances.items() if chance * total >= 5]
    observed = [seen[key] for key in common]
    expected = [chances[key] * total for key in common]
    rare = 1 - sum(chances[key] for key in common)
    if rare * total > 1:
        observed.append(total - sum(observed))
        expected.append(rare * total)
    return float(stats.chisquare(observed, np.array(expected) * sum(observed) / sum(expected)).pvalue)


def batch_of(image: Image.Image, count: int) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).expand(count, -1, -1, -1).contiguous()


def paper() -> list[list[str]]:
    return [line.split() for line in PAPER.replace("\n", "|").split("|") if line.strip()]


def test_the_table_is_the_paper_s() -> None:
    """Double entry: a slip of a tenth in one probability is too small to be seen in a sample."""
    plain = {name.replace("-", ""): name for pair in CIFAR10_POLICY for name, _, _ in pair}
    want = [tuple((plain[row[i].lower()], float(row[i + 1]), int(row[i + 2])) for i in (0, 3)) for row in paper()]
    assert len(want) == 25 and list(CIFAR10_POLICY) == want


def test_autoaugment_follows_the_paper_s_table() -> None:
    policies = paper()
    start = example()
    chances: dict[bytes, float] = defaultdict(float)
    for first, p1, level1, second, p2, level2 in policies:
        after: list[tuple[Image.Image, float]] = [(start, 1 - float(p1))]
        made = policy_outcomes(start, first, int(level1))
        after += [(image, float(p1) / len(made)) for image in made]
        for image, chance in after:
            chances[image.tobytes()] += chance * (1 - float(p2)) / 25
            made = policy_outcomes(image, second, int(level2))
            for final in made:
                chances[final.tobytes()] += chance * float(p2) / len(made) / 25
    assert abs(sum(chances.values()) - 1) < 1e-12
    chances = {key: chance for key, chance in chances.items() if chance > 0}
    got = AutoAugment()(batch_of(start, 8000), torch.Generator().manual_seed(1))
    assert compare(got, chances) > 1e-3


def test_randaugment_draws_the_paper_s_operations_evenly() -> None:
    geometric = ["Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"]
    tonal = ["Brightness", "Color", "Contrast", "Sharpness", "AutoContrast", "Equalize"]
    start = example()
    chances: dict[bytes, float] = defaultdict(float)
    for name in geometric + tonal:
        made = outcomes(start, name, 12 / 30)
        for image in made:
            chances[image.tobytes()] += 1 / 14 / len(made)
    chances[ImageOps.posterize(start, 8 - round(4 * 12 / 30)).tobytes()] += 1 / 14
    chances[ImageOps.solarize(start, 255 - 255 * 12 / 30).tobytes()] += 1 / 14
    got = RandAugment(num_ops=1, magnitude=12)(batch_of(start, 4000), torch.Generator().manual_seed(0))
    assert compare(got, chances) > 1e-3


def test_randaugment_applies_operations_one_after_another() -> None:
    images = batch_of(example(), 64)
    generator = torch.Generator().manual_seed(4)
    twice = RandAugment(num_ops=2)(images, torch.Generator().manual_seed(4))
    once = RandAugment(num_ops=1)
    assert torch.equal(twice, once(once(images, generator), generator))
    assert torch.equal(RandAugment(num_ops=0)(images, generator), images)


def test_randaugment_refuses_strength_off_the_scale() -> None:
    with pytest.raises(InputError, match=r"magnitude in 0\.\.30"):
        RandAugment(magnitude=31)
