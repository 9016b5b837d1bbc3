"""AutoAugment's policy for CIFAR-10 (Cubuk et al., CVPR 2019, arXiv 1805.09501, appendix), one draw per picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saddlescape.data.augment.compose import check_images
from saddlescape.data.augment.ops import apply_grouped

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

# Magnitude of each level, in the units of ops.OPERATIONS.
LEVELS: dict[str, np.ndarray] = {
    "shear-y": np.linspace(0, 0.3, 10),
    "translate-x": np.linspace(0, 150 / 331, 10),
    "translate-y": np.linspace(0, 150 / 331, 10),
    "rotate": np.linspace(0, 30, 10),
    "brightness": np.linspace(0, 0.9, 10),
    "color": np.linspace(0, 0.9, 10),
    "contrast": np.linspace(0, 0.9, 10),
    "sharpness": np.linspace(0, 0.9, 10),
    "posterize": np.round(np.linspace(8, 4, 10)),
    "solarize": np.linspace(256, 0, 10),
    "autocontrast": np.zeros(10),
    "equalize": np.zeros(10),
    "invert": np.zeros(10),
}
SIGNED = {"shear-y", "translate-x", "translate-y", "rotate", "brightness", "color", "contrast", "sharpness"}

_NAMES = tuple(LEVELS)


def _table() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The policy as tensors [25, 2]: operation, probability, magnitude, and whether its sign is drawn."""
    steps = [step for pair in CIFAR10_POLICY for step in pair]
    shape = (len(CIFAR10_POLICY), 2)
    return (
        torch.tensor([_NAMES.index(name) for name, _, _ in steps]).view(shape),
        torch.tensor([probability for _, probability, _ in steps], dtype=torch.float64).view(shape),
        torch.tensor([float(LEVELS[name][level]) for name, _, level in steps], dtype=torch.float64).view(shape),
        torch.tensor([name in SIGNED for name, _, _ in steps]).view(shape),
    )


@dataclass(frozen=True)
class AutoAugment:
    """One of 25 sub-policies for every picture, each of its two steps taken with that step's own probability.

    Against the authors' code and the widely used PyTorch port:
    1. every picture of a batch has its own sub-policy, steps and signs (some batch libraries draw once per batch);
    2. enhancement strengths are ``1 +- level * 0.1`` with a random sign, and posterize counts the bits kept, as in
       the PyTorch port; the authors' TensorFlow code has ``0.1 + 1.8 * level / 10`` for the former;
    3. pixels that come from outside are grey 128; shear is bicubic, translate and rotate take the nearest pixel.
    """

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        check_images(images)
        operation, probability, magnitude, signed = _table()
        count = len(images)
        policy = torch.randint(0, len(CIFAR10_POLICY), (count,), generator=generator)
        taken = torch.rand(count, 2, generator=generator, dtype=torch.float64) < probability[policy]
        sign = torch.randint(0, 2, (count, 2), generator=generator) * 2 - 1
        choice = torch.where(taken, operation[policy], -1)
        amount = magnitude[policy] * torch.where(signed[policy], sign, 1)
        for step in range(2):
            images = apply_grouped(images, _NAMES, choice[:, step], amount[:, step])
        return images
