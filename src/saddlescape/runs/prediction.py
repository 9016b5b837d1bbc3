"""Class probabilities of images, from a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from saddlescape.data.reader import pixels
from saddlescape.errors import InputError
from saddlescape.runs.opened import Opened

BATCH = 64  # images at a time: memory does not grow with their number


@torch.no_grad()
def probabilities(opened: Opened, images: Tensor) -> Tensor:
    """uint8 [N, C, S, S] -> float32 [N, num_classes], in float32 whatever the run was trained in."""
    device = next(opened.model.parameters()).device
    logits = opened.model(opened.preprocess.normalize(images.to(device)))
    return (opened.logit_scale * logits.float()).softmax(dim=1).cpu()


Answer = list[tuple[str, float]]


def predict(opened: Opened, paths: Sequence[Path], top: int = 5) -> list[Answer | InputError]:
    """For each image the ``top`` classes with their probabilities, best first; the error of one that cannot be read."""
    made: list[Answer | InputError] = []
    for begin in range(0, len(paths), BATCH):
        found = [_pixels(opened, path) for path in paths[begin : begin + BATCH]]
        images = [image for image in found if isinstance(image, Tensor)]
        answers = iter(probabilities(opened, torch.stack(images)) if images else ())
        for image in found:
            if isinstance(image, InputError):
                made.append(image)
            else:
                best, order = next(answers).topk(min(top, len(opened.classes)))
                made.append([(opened.classes[c], p) for c, p in zip(order.tolist(), best.tolist(), strict=True)])
    return made


def _pixels(opened: Opened, path: Path) -> Tensor | InputError:
    try:
        return pixels(opened.preprocess, path)
    except InputError as error:
        return error
