"""Class probabilities of pictures, from a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from saddlescape.data.reader import pixels
from saddlescape.runs.opened import Opened

BATCH = 64  # pictures at a time: memory does not grow with their number


@torch.no_grad()
def probabilities(opened: Opened, images: Tensor) -> Tensor:
    """uint8 [N, C, S, S] -> float32 [N, num_classes], in float32 whatever the run was trained in."""
    device = next(opened.model.parameters()).device
    logits = opened.model(opened.preprocess.normalize(images.to(device)))
    return (opened.logit_scale * logits.float()).softmax(dim=1).cpu()


def predict(opened: Opened, paths: Sequence[Path], top: int = 5) -> list[list[tuple[str, float]]]:
    """For each picture the ``top`` classes with their probabilities, best first.

    Raises:
        InputError: a file that is not a picture; the message names it.
    """
    parts = []
    for begin in range(0, len(paths), BATCH):
        images = torch.stack([pixels(opened.preprocess, path) for path in paths[begin : begin + BATCH]])
        parts.append(probabilities(opened, images))
    best, order = torch.cat(parts).topk(min(top, len(opened.classes)), dim=1)
    return [
        [(opened.classes[c], p) for c, p in zip(row_order.tolist(), row.tolist(), strict=True)]
        for row, row_order in zip(best, order, strict=True)
    ]
