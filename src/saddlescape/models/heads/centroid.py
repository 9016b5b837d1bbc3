"""Nearest class mean (NCM): Kang et al., "Decoupling Representation and Classifier", ICLR 2020, section 4.2."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from saddlescape.errors import InputError
from saddlescape.models.heads.moments import class_moments, scaled

CentroidMode = Literal["cl2n", "l2n", "raw"]

# mode -> (is the mean of all images subtracted, is the length divided out)
_MODES: dict[str, tuple[bool, bool]] = {"cl2n": (True, True), "l2n": (False, True), "raw": (False, False)}


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
        found = class_moments(features, labels, self.centroids, centre=bool(self.centre), unit=bool(self.unit))
        self.mean.copy_(found.mean)
        self.centroids.copy_(found.centroids)
        self.seen.copy_(found.counts > 0)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
            f, centroids = scaled(x.to(dtype), self.mean.to(dtype), self.centre, self.unit), self.centroids.to(dtype)
            squares = f.square().sum(dim=1, keepdim=True) + centroids.square().sum(dim=1)
            return (2 * f @ centroids.T - squares).masked_fill(~self.seen, -torch.inf)
