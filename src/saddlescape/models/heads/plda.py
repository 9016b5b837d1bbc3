"""Probabilistic linear discriminant analysis as a classifier: Ioffe, "Probabilistic Linear Discriminant Analysis",
ECCV 2006 (in its two-covariance form)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from saddlescape.errors import InputError
from saddlescape.models.heads.moments import class_moments, scaled


class PLDAHead(nn.Module):
    """Bayes' rule for Gaussian classes whose means are known from few images, [N, d] -> [N, C].

    Of the features h come f = (h - mean) / ||h - mean||, with the mean of all training images, and::

        f | c  ~  N(mu_c, S)        one covariance S for all classes: the tail borrows its shape from the head
        mu_c   ~  N(mu, B S)        class means scatter around the middle of all, B times as far as images do
        m_c    =  mu + r_c (mean of f over class c - mu),     r_c = B / (B + 1 / n_c)
        v_c    =  1 + r_c / n_c                               variance of a new image: its own, and the mean's
        z_c    =  -||f - m_c||_S^2 / (2 v_c) - d/2 log v_c    log-likelihood of a new image, classes equally likely

    so the mean of a class of two images is drawn to the middle and held to be uncertain, and that of a thousand is
    taken as it is. S is the pooled covariance within classes, S_w = scatter / (N - C), drawn to a sphere:
    (1 - shrinkage) S_w + shrinkage tr(S_w) / d I. B is estimated by moments: the mean square of the whitened class
    means around their mean, per dimension (over C - 1), less the mean of 1 / n_c; not below 0.

    A class without images in ``fit`` is never predicted: its logit is minus infinity. Before ``fit`` all logits agree.
    There are no parameters. Buffers: ``mean`` [d], ``whitening`` [d, d] (takes f to where S is the unit matrix),
    ``centroids`` [C, d] (m_c there), ``variance`` [C], ``seen`` [C]. Computed in float32 at least, under autocast too.
    """

    mean: Tensor
    whitening: Tensor
    centroids: Tensor
    variance: Tensor
    seen: Tensor

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(in_features))
        self.register_buffer("whitening", torch.eye(in_features))
        self.register_buffer("centroids", torch.zeros(num_classes, in_features))
        self.register_buffer("variance", torch.ones(num_classes))
        self.register_buffer("seen", torch.ones(num_classes, dtype=torch.bool))

    @torch.no_grad()
    def fit(self, features: Tensor, labels: Tensor, shrinkage: float = 0.1) -> float:
        """Set everything from the training images, un-augmented: features [N, d], integer labels [N]; returns B.

        Sums are taken in float64 (float32 on devices without it), the matrices inverted on the CPU in float64.

        Raises:
            InputError: shapes that do not fit, no images, labels out of range, features that are not finite, no class
                with two different images, or a ``shrinkage`` outside (0, 1].
        """
        if not 0 < shrinkage <= 1:
            raise InputError(f"shrinkage is {shrinkage:g}; it must be above 0 and at most 1")
        width = len(self.mean)
        found = class_moments(features, labels, self.centroids, centre=True, unit=True, scatter=True)
        assert found.scatter is not None
        seen = (found.counts > 0).cpu()
        scatter, counts = found.scatter.double().cpu(), found.counts.double().cpu()[seen]
        spread = float(scatter.trace()) / width
        if not spread > 0:
            raise InputError("no class has two different images: the covariance within classes cannot be estimated")
        within = scatter / (len(features) - int(seen.sum()))
        sphere = torch.eye(width, dtype=torch.float64) * (within.trace() / width)
        lower = torch.linalg.cholesky((1 - shrinkage) * within + shrinkage * sphere)
        whitening = torch.linalg.solve_triangular(lower, torch.eye(width, dtype=torch.float64), upper=False)
        means = found.centroids.double().cpu()[seen] @ whitening.T
        middle = means.mean(dim=0)
        between = float((means - middle).square().sum()) / (width * max(len(means) - 1, 1))
        between = max(between - float((1 / counts).mean()), 0.0)
        share = between / (between + 1 / counts)
        self.mean.copy_(found.mean)
        self.whitening.copy_(whitening)
        self.centroids.zero_()
        self.variance.fill_(1.0)
        where = seen.to(self.centroids.device)
        self.centroids[where] = (middle + share[:, None] * (means - middle)).to(self.centroids)
        self.variance[where] = (1 + share / counts).to(self.variance)
        self.seen.copy_(seen)
        return between

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
            f = scaled(x.to(dtype), self.mean.to(dtype), True, True) @ self.whitening.to(dtype).T
            centroids, variance = self.centroids.to(dtype), self.variance.to(dtype)
            squares = f.square().sum(dim=1, keepdim=True) + centroids.square().sum(dim=1) - 2 * f @ centroids.T
            spread = 0.5 * len(self.mean) * variance.log()
            return (-squares / (2 * variance) - spread).masked_fill(~self.seen, -math.inf)
