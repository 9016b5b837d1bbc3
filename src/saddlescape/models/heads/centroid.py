"""Nearest class mean (NCM): Kang et al., "Decoupling Representation and Classifier", ICLR 2020, section 4.2."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from saddlescape.errors import InputError

CentroidMode = Literal["cl2n", "l2n", "raw"]

# mode -> (is the mean of all images subtracted, is the length divided out)
_MODES: dict[str, tuple[bool, bool]] = {"cl2n": (True, True), "l2n": (False, True), "raw": (False, False)}
_ROWS = 8192  # features widened at a time


class CentroidHead(nn.Module):
    """Predict the class whose mean feature is nearest: z_c = -||f - centroid_c||^2, [N, d] -> [N, C].

    f is made of the features h by the mode: "cl2n" (the published default) (h - mean) / ||h - mean||, with the mean of
    all training images; "l2n" h / ||h||; "raw" h. A centroid is the mean of f over a class, not brought to unit length.
    A feature of length zero stays zero.

    The negative squared distance is one of the monotone forms with this argmax; softmax of it is what a cross-entropy
    or a calibration error of this head refers to (a Gaussian of variance 1/2 around each centroid, equal priors).

    A class without images in ``fit`` is never predicted: its logit is minus infinity. Before ``fit`` all logits agree.
    There are no parameters. Buffers, which hold the mode too: ``mean`` [d], ``centroids`` [C, d], ``seen`` [C],
    ``centre`` and ``unit`` (0 or 1). Computed in float32 at least, also under autocast.
    """

    mean: Tensor
    centroids: Tensor
    seen: Tensor
    centre: Tensor
    unit: Tensor

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(in_features))
        self.register_buffer("centroids", torch.zeros(num_classes, in_features))
        self.register_buffer("seen", torch.ones(num_classes, dtype=torch.bool))
        self.register_buffer("centre", torch.tensor(1.0))
        self.register_buffer("unit", torch.tensor(1.0))

    @property
    def mode(self) -> CentroidMode:
        held = (bool(self.centre), bool(self.unit))
        return cast(CentroidMode, next(name for name, flags in _MODES.items() if flags == held))

    @torch.no_grad()
    def set_mode(self, mode: CentroidMode) -> None:
        """Change what is made of the features; ``fit`` has to follow.

        Raises:
            InputError: an unknown mode.
        """
        if mode not in _MODES:
            raise InputError(f"mode is {mode!r}; it must be one of {', '.join(_MODES)}")
        self.centre.fill_(_MODES[mode][0])
        self.unit.fill_(_MODES[mode][1])

    @torch.no_grad()
    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Set mean and centroids from the training images, un-augmented: features [N, d], integer labels [N].

        Sums are taken in float64 (float32 on devices without it).

        Raises:
            InputError: shapes that do not fit, no images, labels out of range, or features that are not finite.
        """
        classes, width = self.centroids.shape
        if features.ndim != 2 or features.shape[1] != width or labels.shape != (len(features),):
            shapes = f"{list(features.shape)} and {list(labels.shape)}"
            raise InputError(f"features and labels must be [N, {width}] and [N], got {shapes}")
        if not len(features):
            raise InputError("there are no images to take class means of")
        labels = labels.to(self.centroids.device, torch.int64)
        if int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise InputError(f"labels run from {int(labels.min())} to {int(labels.max())}, outside 0..{classes - 1}")
        device = self.centroids.device
        wide = torch.float32 if device.type == "mps" else torch.float64
        # A part at a time: a copy of all of them in float64 would be two more of the largest thing there is.
        parts = [part.to(device) for part in features.split(_ROWS)]
        total = torch.zeros(width, dtype=wide, device=device)
        for start, part in zip(range(0, len(features), _ROWS), parts, strict=True):
            finite = part.isfinite().all(dim=1)
            if not bool(finite.all()):
                at = start + int((~finite).nonzero()[0])
                raise InputError(f"features[{at}] is not finite: the network diverged or its input is broken")
            total += part.to(wide).sum(dim=0)
        mean = total / len(features)
        sums = torch.zeros(classes, width, dtype=wide, device=device)
        for part, owners in zip(parts, labels.split(_ROWS), strict=True):
            sums.index_add_(0, owners, self._transform(part.to(wide), mean))
        count = torch.bincount(labels, minlength=classes)
        self.mean.copy_(mean)
        self.centroids.copy_(sums / count.clamp(min=1)[:, None])
        self.seen.copy_(count > 0)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
            f, centroids = self._transform(x.to(dtype), self.mean.to(dtype)), self.centroids.to(dtype)
            squares = f.square().sum(dim=1, keepdim=True) + centroids.square().sum(dim=1)
            return (2 * f @ centroids.T - squares).masked_fill(~self.seen, -torch.inf)

    def _transform(self, features: Tensor, mean: Tensor) -> Tensor:
        shifted = features - self.centre.to(features.dtype) * mean
        length = torch.linalg.vector_norm(shifted, dim=1, keepdim=True)
        return shifted / torch.where(length > 0, length, 1.0) ** self.unit.to(features.dtype)
