"""ProCo: Du et al., "Probabilistic Contrastive Learning for Long-Tailed Visual Recognition", TPAMI 2024."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from saddlescape.counts import ClassCounts, check_class_counts
from saddlescape.errors import InputError
from saddlescape.losses.log_bessel import log_bessel
from saddlescape.losses.targets import check_targets
from saddlescape.passes import is_repeated

Concentration = Literal["simple", "sra"]

MAX_CONCENTRATION = 1e5


class ProCoLoss(nn.Module):
    """Contrastive loss against infinitely many samples of a distribution fitted to each class, in closed form.

    The projected features of a class, points of the unit sphere of R^p, are taken to follow a von Mises-Fisher
    distribution. With R_c the length of the mean of the class's points and mu_c its direction, the concentration is
    kappa_c = p R_c / (1 - R_c^2), at most 1e5. The expectation of exp(z.v / T) over v of class c is then
    C_p(kappa_c) / C_p(k), with k = ||kappa_c mu_c + z / T|| and C_p the distribution's normaliser, so that with
    g(x) = log I_{p/2-1}(x) - (p/2-1) log x::

        a_c(z) = g(||kappa_c mu_c + z / T||) - g(kappa_c),       l = -log( pi_y exp(a_y) / sum_c pi_c exp(a_c) )

    with pi the frequencies of the training set: cross-entropy with logit adjustment of the logits a_c. Gradients flow
    through z alone; the fitted distributions are constants. The published script adds this loss, on two views, to a
    logit-adjusted cross-entropy of the classifier on a third, and predicts with the classifier alone.

    Means are running means, over the last epoch and what has been seen of this one: call ``start_epoch`` before every
    epoch. A class not seen yet has a mean of length 0.9 in a random direction.

    Args:
        class_counts: training images per class, [C].
        dim: p, length of the projected features, 2 or more.
        temperature: T; 0.1 in the published CIFAR script (0.07 for ImageNet-LT and iNaturalist).
        concentration: "simple" p R / (1 - R^2) as the published code has it, or "sra" R (p - R^2) / (1 - R^2), Sra's
            approximation (2012) to the maximum of the likelihood, by less than 1/p lower.
        seed: of the random directions.

    Buffers, in the state dict, so that training resumes where it was: ``mean`` [C, p] and ``count`` [C], the epoch so
    far; ``last_mean`` and ``last_count``, what the loss uses; ``start`` [C, p], the random directions.

    Numbers are float64 inside (float32 on devices without it), also under autocast, because g is of the size of kappa
    and the logits are differences of it; the losses have the dtype of the features, float32 at least.

    Deviations from the ProCo code:

    1. Bessel functions by a uniform expansion and a recurrence (``log_bessel.py``), there by Miller's recurrence for
       whole orders, i.e. even p, only, which is inaccurate for a large kappa (log I is off by 0.13 at p = 128 and
       kappa = 5,000), so that the losses differ there and ours are the ones of the formula;
       derivatives come from autograd, there by hand and cut off at 1;
    2. the random directions are drawn once, from a seed of their own, there in every epoch;
    3. a class that an epoch did not show keeps its older mean, there it falls back to a random direction;
    4. between processes sums and counts are added up, which gives the same means as there.
    """

    mean: Tensor
    count: Tensor
    last_mean: Tensor
    last_count: Tensor
    start: Tensor
    log_prior: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        dim: int = 128,
        temperature: float = 0.1,
        concentration: Concentration = "simple",
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if dim < 2:
            raise InputError(f"dim is {dim}; a sphere needs 2 or more")
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}; it must be above 0")
        if concentration not in ("simple", "sra"):
            raise InputError(f"concentration is {concentration!r}; it must be 'simple' or 'sra'")
        counts = check_class_counts(class_counts)
        self.num_classes, self.dim = len(counts), dim
        self.temperature, self.concentration = float(temperature), concentration
        generator = torch.Generator().manual_seed(seed)
        directions = F.normalize(torch.randn(len(counts), dim, generator=generator), dim=1)
        self.register_buffer("start", 0.9 * directions)
        for name in ("mean", "last_mean"):
            self.register_buffer(name, self.start.clone())
        for name in ("count", "last_count"):
            self.register_buffer(name, torch.zeros(len(counts)))
        self.register_buffer("log_prior", (counts / counts.sum()).log().float(), persistent=False)
        self._exact_log_prior = (counts / counts.sum()).log()

    @torch.no_grad()
    def start_epoch(self) -> None:
        """Let the running means of the epoch that ends stand for the last one, and begin new ones."""
        seen = self.count > 0
        self.last_mean.copy_(torch.where(seen[:, None], self.mean, self.last_mean))
        self.last_count.copy_(torch.where(seen, self.count, self.last_count))
        self.mean.copy_(self.start)
        self.count.zero_()

    @torch.no_grad()
    def observe(self, features: Tensor, target: Tensor) -> None:
        """Take points [N, p] with labels [N] into the running means. Processes that train together share theirs."""
        features, target = features.detach().to(self.mean.dtype), target.to(torch.int64)
        sums = torch.zeros_like(self.mean).index_add_(0, target, features)
        added = torch.zeros_like(self.count).index_add_(0, target, torch.ones_like(features[:, 0]))
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(sums)
            distributed.all_reduce(added)
        for mean, count in ((self.mean, self.count), (self.last_mean, self.last_count)):
            total = count + added
            moved = (count[:, None] * mean + sums) / total.clamp(min=1)[:, None]
            mean.copy_(torch.where(added[:, None] > 0, moved, mean))
            count.copy_(total)

    @torch.no_grad()
    def concentrations(self) -> Tensor:
        """kappa [C] of the distributions that the loss uses, at most 1e5, which a class of one image has."""
        mean = self._precise(self.last_mean)
        square = mean.square().sum(dim=1)
        length = square.sqrt()
        numerator = self.dim * length if self.concentration == "simple" else length * (self.dim - square)
        # Rounding can bring the length of a mean of equal points to just above 1.
        kappa = numerator / (1 - square).clamp(min=torch.finfo(square.dtype).tiny)
        return kappa.clamp(max=MAX_CONCENTRATION)

    def class_logits(self, features: Tensor) -> Tensor:
        """a_c(z), the logarithms of the expected similarities, without the prior: points [N, p] -> [N, C]."""
        with torch.autocast(features.device.type, enabled=False):
            z = self._precise(features) / self.temperature
            kappa = self.concentrations()
            pole = kappa[:, None] * F.normalize(self._precise(self.last_mean), dim=1)
            own = pole.square().sum(dim=1)  # kappa^2, rounded as its neighbour below
            joint = own + 2 * z @ pole.T + z.square().sum(dim=1, keepdim=True)
            values = log_bessel(torch.cat((joint.clamp(min=0), own[None])), self.dim / 2 - 1)
            return values[:-1] - values[-1]

    def per_sample(self, features: Tensor, target: Tensor, *, observe: bool | None = None) -> Tensor:
        """Losses [N], the mean over the views of an image; see ``forward``."""
        if features.ndim not in (2, 3) or features.shape[-1] != self.dim:
            raise InputError(f"features must be [N, V, {self.dim}] or [N, {self.dim}], got {list(features.shape)}")
        if features.dtype in (torch.float16, torch.bfloat16):
            features = features.float()
        target = check_targets(target, features.new_empty(len(features), self.num_classes))
        if target.ndim == 2:
            raise InputError("ProCoLoss needs one label per image, not soft labels: leave mixing of images out of it")
        losses = []
        for view in features.unbind(dim=1) if features.ndim == 3 else (features,):
            if self.training and not is_repeated() if observe is None else observe:
                self.observe(view, target)
            logits = self.class_logits(view)
            prior = self._exact_log_prior.to(logits) if logits.dtype == torch.float64 else self.log_prior
            losses.append(F.cross_entropy(logits + prior, target, reduction="none"))
        return torch.stack(losses).mean(dim=0).to(features.dtype)

    def forward(self, features: Tensor, target: Tensor, *, observe: bool | None = None) -> Tensor:
        """Loss of a batch, a scalar: the mean over images and views.

        Args:
            features: [N, V, p] or [N, p] (one view), projected and of unit length. Each view is taken into the running
                means before its own loss is computed, one after the other, as in the published code.
            target: integer labels [N].
            observe: whether the running means take these features in; None: in training mode, once a step where an
                optimiser of this library runs a closure several times. In its two-call form, or with another one, a
                further pass over the same batch must say False.

        Raises:
            InputError: shapes, devices or (on the CPU) label values that do not fit.
        """
        return self.per_sample(features, target, observe=observe).mean()

    def extra_repr(self) -> str:
        return (
            f"num_classes={self.num_classes}, dim={self.dim}, temperature={self.temperature:g}, "
            f"concentration={self.concentration!r}"
        )

    @staticmethod
    def _precise(tensor: Tensor) -> Tensor:
        return tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)
