"""AutoAugment's policy for CIFAR-10 (Cubuk et al., CVPR 2019, arXiv 1805.09501, appendix) and RandAugment (Cubuk et
al., NeurIPS 2020, arXiv 1909.13719), one draw per image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saddlescape.data.augment.ops import NAMES, apply_grouped
from saddlescape.errors import InputError

# Magnitude at full strength, in the units of ``ops.OPERATIONS``, of the operations for which a sign is drawn.
FULL_STRENGTH = {
    "shear-x": 0.3, "shear-y": 0.3, "translate-x": 150 / 331, "translate-y": 150 / 331, "rotate": 30.0,
    "brightness": 0.9, "color": 0.9, "contrast": 0.9, "sharpness": 0.9,
}  # fmt: skip
_SIGNED = torch.tensor([name in FULL_STRENGTH for name in NAMES])
RANDOM = NAMES[:14]  # the paper's 14 operations of RandAugment

# A sub-policy is two steps (operation, probability, level 0..9).
Step = tuple[str, float, int]
CIFAR10_POLICY: tuple[tuple[Step, Step], ...] = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate-x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear-y", 0.5, 8), ("translate-y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear-y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate-x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate-y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate-y", 0.9, 9), ("translate-y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate-y", 0.7, 9), ("autocontrast", 0.9, 1)),
)


def _level(name: str, level: int) -> float:
    """Magnitude of AutoAugment's level 0..9, unsigned."""
    scale = {"posterize": np.round(np.linspace(8, 4, 10)), "solarize": np.linspace(256, 0, 10)}
    return float(scale.get(name, np.linspace(0, FULL_STRENGTH.get(name, 0.0), 10))[level])


def _table() -> tuple[Tensor, Tensor, Tensor]:
    """The policy as tensors [25, 2]: operation, probability and magnitude."""
    steps = [step for pair in CIFAR10_POLICY for step in pair]
    shape = (len(CIFAR10_POLICY), 2)
    return (
        torch.tensor([NAMES.index(name) for name, _, _ in steps]).view(shape),
        torch.tensor([probability for _, probability, _ in steps], dtype=torch.float64).view(shape),
        torch.tensor([_level(name, level) for name, _, level in steps], dtype=torch.float64).view(shape),
    )


@dataclass(frozen=True)
class AutoAugment:
    """One of 25 sub-policies for every image, each of its two steps taken with that step's own probability.

    Against the authors' code and the widely used PyTorch port:

    1. every image of a batch has its own sub-policy, steps and signs (some batch libraries draw once per batch);
    2. enhancement strengths are ``1 +- level * 0.1`` with a random sign, and posterize counts the bits kept, as in
       the PyTorch port; the authors' TensorFlow code has ``0.1 + 1.8 * level / 10`` for the former;
    3. pixels that come from outside are grey 128; shear is bicubic, translate and rotate take the nearest pixel.
    """

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        operation, probability, magnitude = _table()
        count = len(images)
        policy = torch.randint(0, len(CIFAR10_POLICY), (count,), generator=generator)
        taken = torch.rand(count, 2, generator=generator, dtype=torch.float64) < probability[policy]
        sign = torch.randint(0, 2, (count, 2), generator=generator) * 2 - 1
        choice = torch.where(taken, operation[policy], -1)
        amount = magnitude[policy] * torch.where(_SIGNED[operation[policy]], sign, 1)
        for step in range(2):
            images = apply_grouped(images, choice[:, step], amount[:, step])
        return images


@dataclass(frozen=True)
class RandAugment:
    """``num_ops`` operations in a row, each drawn evenly from the paper's 14, all at strength ``magnitude`` / 30.

    The scale is torchvision's (31 bins, 9 by default). Deviations from it: 1. shear is bicubic, not nearest; 2. new
    pixels are grey 128, not black.
    """

    num_ops: int = 2
    magnitude: float = 9.0

    def __post_init__(self) -> None:
        if self.num_ops < 0 or not 0 <= self.magnitude <= 30:
            raise InputError(
                f"RandAugment needs num_ops >= 0 and a magnitude in 0..30, got {self.num_ops} and {self.magnitude}"
            )

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        strength = torch.tensor([self._amount(name) for name in RANDOM], dtype=torch.float64)
        for _ in range(self.num_ops):
            choice = torch.randint(0, len(RANDOM), (len(images),), generator=generator)
            sign = torch.randint(0, 2, (len(images),), generator=generator) * 2 - 1
            images = apply_grouped(images, choice, strength[choice] * torch.where(_SIGNED[choice], sign, 1))
        return images

    def _amount(self, name: str) -> float:
        if name == "posterize":
            return 8 - round(4.0 * self.magnitude / 30)
        if name == "solarize":
            return 255 - 255.0 * self.magnitude / 30
        return FULL_STRENGTH.get(name, 0.0) * self.magnitude / 30
