"""The operations that augmentation policies are made of, by name, and the way to apply many of them to one batch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from saddlescape.data.augment import geometry, tone

Operation = Callable[[Tensor, Tensor], Tensor]
"""(uint8 [N, C, H, W], one magnitude per image, float64 [N]) -> uint8 [N, C, H, W]"""

# Units of the magnitude: shear: pixels per row. translate: fraction of the width or height. rotate: degrees.
# brightness, color, contrast, sharpness: factor - 1. posterize: bits kept. solarize: threshold. hue: turns of the
# circle of colours. The rest: none.
OPERATIONS: dict[str, Operation] = {
    "identity": lambda images, m: images,
    "shear-x": geometry.shear_x,
    "shear-y": geometry.shear_y,
    "translate-x": lambda images, m: geometry.translate_x(images, m * images.shape[3]),
    "translate-y": lambda images, m: geometry.translate_y(images, m * images.shape[2]),
    "rotate": geometry.rotate,
    "brightness": lambda images, m: tone.brightness(images, 1 + m),
    "color": lambda images, m: tone.color(images, 1 + m),
    "contrast": lambda images, m: tone.contrast(images, 1 + m),
    "sharpness": lambda images, m: tone.sharpness(images, 1 + m),
    "posterize": tone.posterize,
    "solarize": tone.solarize,
    "autocontrast": lambda images, m: tone.autocontrast(images),
    "equalize": lambda images, m: tone.equalize(images),
    "invert": lambda images, m: tone.invert(images),
    "hue": tone.hue,
}
NAMES = tuple(OPERATIONS)


def apply_grouped(images: Tensor, choice: Tensor, magnitude: Tensor) -> Tensor:
    """Apply operation ``NAMES[choice[n]]`` with ``magnitude[n]`` to image n; a negative choice leaves it alone.

    ``images`` uint8 [N, C, H, W]; ``choice`` int64 [N] and ``magnitude`` float64 [N] on the host. Images that got
    the same operation are worked on together, so a batch costs a handful of tensor operations per *kind* of
    operation and every image still has its own.
    """
    out = images.clone()
    for number in choice[choice >= 0].unique().tolist():
        members = (choice == number).nonzero().squeeze(1)
        on_device = members.to(images.device)
        changed = OPERATIONS[NAMES[number]](images.index_select(0, on_device), magnitude[members])
        out.index_copy_(0, on_device, changed)
    return out
