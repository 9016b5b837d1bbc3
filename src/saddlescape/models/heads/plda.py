"""Probabilistic linear discriminant analysis as a classifier: Ioffe, "Probabilistic Linear Discriminant Analysis",
ECCV 2006."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from saddlescape.errors import InputError
from saddlescape.models.heads.moments import Moments, class_moments, scaled

SHRINKAGES = (0.03, 0.1, 0.3, 0.5, 0.7, 0.9)


def check_shrinkage(shrinkage: float) -> None:
    """Raises InputError outside (0, 1]."""
    if not 0 < shrinkage <= 1:
        raise InputError(f"shrinkage is {shrinkage:g}; it must be above 0 and at most 1")


class PLDAHead(nn.Module):
    """Bayes' rule for Gaussian classes whose means are known from few images, [N, d] -> [N, C].

    Of the features h come f = (h - mean) / ||h - mean||, with the mean of all training images, and::

        f | c  ~  N(mu_c, S)        one covariance S for all classes: the tail borrows its shape from the head
        mu_c   ~  N(mu, T)          classes lie around the middle of all, far in some directions, near in others

    In the coordinates k in which S is the unit matrix and T = diag(B_1, B_2, ...), a class with n_c images has::

        m_ck  =  mu_k + r_ck (mean of f over class c - mu)_k,     r_ck = B_k / (B_k + 1 / n_c)
        v_ck  =  1 + r_ck / n_c                         variance of a new image: its own, and that of the mean
        z_c   =  -1/2 sum_k ((f_k - m_ck)^2 / v_ck + log v_ck)     log-likelihood, all classes equally likely

    so the mean of a class of two images is drawn to the middle and held to be uncertain, and that of a thousand is
    taken as it is. S is the pooled covariance within classes, S_w = scatter / (N - C), drawn to a sphere:
    (1 - shrinkage) S_w + shrinkage tr(S_w) / d I. The B_k are estimated by moments: eigenvalues of the covariance
    (over C - 1) of the class means in whitened coordinates, less the mean of 1 / n_c, not below 0. There are at most
    C - 1 of them; in all other directions classes agree.

    A class without images in ``fit`` is never predicted: its logit is minus infinity. Before ``fit`` all logits agree.
    There are no parameters. Buffers, with R = min(d, C - 1): ``mean`` [d], ``projection`` [R, d] and ``middle`` [R]
    (f to its coordinates, from the middle on), ``centroids`` [C, R] (m), ``variance`` [C, R] (v), ``seen`` [C].
    Computed in float32 at least, under autocast too.
    """

    mean: Tensor
    projection: Tensor
    middle: Tensor
    centroids: Tensor
    variance: Tensor
    seen: Tensor

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        rank = min(in_features, num_classes - 1)
        self.register_buffer("mean", torch.zeros(in_features))
        self.register_buffer("projection", torch.zeros(rank, in_features))
        self.register_buffer("middle", torch.zeros(rank))
        self.register_buffer("centroids", torch.zeros(num_classes, rank))
        self.register_buffer("variance", torch.ones(num_classes, rank))
        self.register_buffer("seen", torch.ones(num_classes, dtype=torch.bool))

    @torch.no_grad()
    def fit(self, features: Tensor, labels: Tensor, shrinkage: float = 0.1) -> Tensor:
        """Set everything from the training images, un-augmented: features [N, d], integer labels [N].

        Returns the B_k, [R], float64, largest first. Sums are taken in float64 (float32 on devices without it), the
        matrices of d x d numbers are taken apart on the CPU in float64.

        Raises:
            InputError: shapes that do not fit, no images, labels out of range, features that are not finite, no class
                with two different images, or a ``shrinkage`` outside (0, 1].
        """
        check_shrinkage(shrinkage)
        return self._set(self._moments(features, labels), shrinkage)

    @torch.no_grad()
    def choose(self, features: Tensor, labels: Tensor) -> float:
        """The shrinkage of ``SHRINKAGES`` with the best balanced accuracy on every fifth image of each class, which the
        fit does not see; the smallest where no class has five images. Leaves the head fitted to the other images."""
        labels = labels.to(features.device)
        held = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
        for label in labels.unique():
            held[(labels == label).nonzero().flatten()[4::5]] = True
        found = self._moments(features[~held], labels[~held])
        counts = torch.bincount(labels[held], minlength=len(self.centroids)).clamp(min=1)
        reached = []
        for shrinkage in SHRINKAGES:
            self._set(found, shrinkage)
            right = labels[held][self(features[held]).argmax(dim=1) == labels[held]]
            reached.append(float((torch.bincount(right, minlength=len(counts)) / counts).sum()))
        return SHRINKAGES[max(range(len(reached)), key=reached.__getitem__)]

    def _moments(self, features: Tensor, labels: Tensor) -> Moments:
        like = self.mean.new_empty(1).expand(len(self.centroids), len(self.mean))
        return class_moments(features, labels, like, centre=True, unit=True, scatter=True)

    def _set(self, found: Moments, shrinkage: float) -> Tensor:
        (rank, width), classes = self.projection.shape, len(self.centroids)
        assert found.scatter is not None
        seen, scatter = (found.counts > 0).cpu(), found.scatter.cpu().double()
        counts, means = found.counts.cpu()[seen].double(), found.centroids.cpu()[seen].double()
        if not float(scatter.trace()) > 0:
            raise InputError("no class has two different images: the covariance within classes cannot be estimated")
        within = scatter / (counts.sum() - len(counts))
        unit = torch.eye(width, dtype=torch.float64)
        lower = torch.linalg.cholesky((1 - shrinkage) * within + shrinkage * within.trace() / width * unit)
        whitening = torch.linalg.solve_triangular(lower, unit, upper=False)
        middle = means.mean(dim=0)
        apart = (means - middle) @ whitening.T
        # As eigenvectors of the covariance of the means, [d, d], but in the time that C vectors take; 0 beyond them.
        _, roots, found_directions = torch.linalg.svd(apart, full_matrices=False)
        roots, found_directions = roots[:rank], found_directions[:rank]
        values, directions = torch.zeros(rank).double(), torch.zeros(width, rank).double()
        values[: len(roots)] = roots.square() / max(len(means) - 1, 1)
        directions[:, : len(roots)] = found_directions.T
        between = (values - (1 / counts).mean()).clamp(min=0)
        share = between / (between + 1 / counts[:, None])
        self.mean.copy_(found.mean)
        self.projection.copy_(directions.T @ whitening)
        self.middle.copy_(directions.T @ whitening @ middle)
        centroids, variance = torch.zeros(classes, rank).double(), torch.ones(classes, rank).double()
        centroids[seen] = share * (apart @ directions)
        variance[seen] = 1 + share / counts[:, None]
        self.centroids.copy_(centroids)
        self.variance.copy_(variance)
        self.seen.copy_(seen)
        return between

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
            f = scaled(x.to(dtype), self.mean.to(dtype), True, True)
            f = f @ self.projection.to(dtype).T - self.middle.to(dtype)
            centroids, precision = self.centroids.to(dtype), 1 / self.variance.to(dtype)
            constant = (centroids.square() * precision - precision.log()).sum(dim=1)
            squares = f.square() @ precision.T - 2 * f @ (centroids * precision).T + constant
            return (-squares / 2).masked_fill(~self.seen, -math.inf)
