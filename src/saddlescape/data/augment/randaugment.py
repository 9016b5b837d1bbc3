"""RandAugment (Cubuk et al., NeurIPS 2020, arXiv 1909.13719), one draw per picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saddlescape.data.augment.compose import check_images
from saddlescape.data.augment.ops import apply_grouped
from saddlescape.errors import InputError

# Magnitude at full strength, and whether a sign is drawn; in the units of ops.OPERATIONS.
FULL_STRENGTH: dict[str, tuple[float, bool]] = {
    "identity": (0.0, False),
    "shear-x": (0.3, True),
    "shear-y": (0.3, True),
    "translate-x": (150 / 331, True),
    "translate-y": (150 / 331, True),
    "rotate": (30.0, True),
    "brightness": (0.9, True),
    "color": (0.9, True),
    "contrast": (0.9, True),
    "sharpness": (0.9, True),
    "posterize": (4.0, False),
    "solarize": (255.0, False),
    "autocontrast": (0.0, False),
    "equalize": (0.0, False),
}
_NAMES = tuple(FULL_STRENGTH)


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
        check_images(images)
        strength = torch.tensor([self.amount(name) for name in _NAMES], dtype=torch.float64)
        signed = torch.tensor([is_signed for _, is_signed in FULL_STRENGTH.values()])
        for _ in range(self.num_ops):
            choice = torch.randint(0, len(_NAMES), (len(images),), generator=generator)
            sign = torch.randint(0, 2, (len(images),), generator=generator) * 2 - 1
            amount = strength[choice] * torch.where(signed[choice], sign, 1)
            images = apply_grouped(images, _NAMES, choice, amount)
        return images

    def amount(self, name: str) -> float:
        """Magnitude of operation ``name`` at this strength, unsigned."""
        full = FULL_STRENGTH[name][0] * self.magnitude / 30
        if name == "posterize":
            return 8 - round(full)
        return 255 - full if name == "solarize" else full
