"""What heads in closed form are made of: features brought to one scale, their class means, and the scatter within."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saddlescape.errors import InputError

_ROWS = 8192  # features widened at a time: a copy of all of them in float64 would be two more of the largest thing


@dataclass(frozen=True)
class Moments:
    """Of features f made of N features h, in float64 (float32 on devices without it).

    ``mean`` [d] of all h; ``centroids`` [C, d], class means of f, zeros for a class without images; ``counts`` [C],
    int64; ``scatter`` [d, d], the sum of (f - centroid)(f - centroid)' over all images, where it was asked for.
    """

    mean: Tensor
    centroids: Tensor
    counts: Tensor
    scatter: Tensor | None


def scaled(features: Tensor, mean: Tensor, centre: bool | Tensor, unit: bool | Tensor) -> Tensor:
    """f of features h [N, d]: h - ``mean`` [d] if ``centre``, divided by its length if ``unit``. Zero stays zero."""
    shifted = features - torch.as_tensor(centre, dtype=features.dtype, device=features.device) * mean
    length = torch.linalg.vector_norm(shifted, dim=1, keepdim=True)
    exponent = torch.as_tensor(unit, dtype=features.dtype, device=features.device)
    return shifted / torch.where(length > 0, length, 1.0) ** exponent


@torch.no_grad()
def class_moments(
    features: Tensor, labels: Tensor, like: Tensor, *, centre: bool, unit: bool, scatter: bool = False
) -> Moments:
    """Moments of the training images, un-augmented: features [N, d], integer labels [N].

    ``like``: a tensor [C, d] that says how many classes and features there are, and on which device to compute.

    Raises:
        InputError: shapes that do not fit, no images, labels out of range, or features that are not finite.
    """
    (classes, width), device = like.shape, like.device
    if features.ndim != 2 or features.shape[1] != width or labels.shape != (len(features),):
        shapes = f"{list(features.shape)} and {list(labels.shape)}"
        raise InputError(f"features and labels must be [N, {width}] and [N], got {shapes}")
    if not len(features):
        raise InputError("there are no images to take class means of")
    features, labels = features.to(device), labels.to(device, torch.int64)
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise InputError(f"labels run from {int(labels.min())} to {int(labels.max())}, outside 0..{classes - 1}")
    wide = torch.float32 if device.type == "mps" else torch.float64
    total = torch.zeros(width, dtype=wide, device=device)
    for start, part in zip(range(0, len(features), _ROWS), features.split(_ROWS), strict=True):
        finite = part.isfinite().all(dim=1)
        if not bool(finite.all()):
            at = start + int((~finite).nonzero()[0])
            raise InputError(f"features[{at}] is not finite: the network diverged or its input is broken")
        total += part.to(wide).sum(dim=0)
    mean = total / len(features)
    sums = torch.zeros(classes, width, dtype=wide, device=device)
    for part, owners in zip(features.split(_ROWS), labels.split(_ROWS), strict=True):
        sums.index_add_(0, owners, scaled(part.to(wide), mean, centre, unit))
    counts = torch.bincount(labels, minlength=classes)
    centroids = sums / counts.clamp(min=1)[:, None]
    if not scatter:
        return Moments(mean, centroids, counts, None)
    within = torch.zeros(width, width, dtype=wide, device=device)
    for part, owners in zip(features.split(_ROWS), labels.split(_ROWS), strict=True):
        apart = scaled(part.to(wide), mean, centre, unit) - centroids[owners]
        within += apart.T @ apart
    return Moments(mean, centroids, counts, within)
