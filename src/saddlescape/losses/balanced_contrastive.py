"""BCL: Zhu et al., "Balanced Contrastive Learning for Long-Tailed Visual Recognition", CVPR 2022."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saddlescape.counts import ClassCounts, check_class_counts
from saddlescape.errors import InputError
from saddlescape.losses.targets import check_targets


class BalancedContrastiveLoss(nn.Module):
    """Supervised contrastive loss in which every class is present and every class counts once.

    The points are V views of each of N images and one prototype per class (class complement: none is missing), all of
    unit length. For an anchor z_i, one of the V N views, with P = all other points of its class, and A_c = all points
    of class c but the anchor, its loss is (class averaging: the sum over a class is divided by its size)::

        l_i = -(1 / |P|) sum_{p in P} log( exp(z_i.z_p / T) / sum_c (1 / |A_c|) sum_{k in A_c} exp(z_i.z_k / T) )

    The published script adds 0.35 times this loss, on two views, to a logit-adjusted cross-entropy on a third.

    Args:
        class_counts: training images per class, [C]; the number of classes is what is used.
        temperature: T; 0.1 is the published loss's default, its ImageNet-LT script has 0.07.

    Deviations from the BCL code: any number of views, two there; no difference in value otherwise. Points are taken as
    they come, of unit length or not, as there. Computed in float32 at least, also under autocast.
    """

    def __init__(self, class_counts: ClassCounts, temperature: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}; it must be above 0")
        self.num_classes = len(check_class_counts(class_counts))
        self.temperature = float(temperature)

    def per_sample(self, features: Tensor, target: Tensor, prototypes: Tensor) -> Tensor:
        """Losses [N], the mean over the views of an image; see ``forward``."""
        features, target, prototypes = self._check(features, target, prototypes)
        images, views = features.shape[:2]
        with torch.autocast(features.device.type, enabled=False):
            anchors = features.transpose(0, 1).flatten(0, 1)  # view by view: [V N, d]
            labels = torch.cat((target.repeat(views), torch.arange(self.num_classes, device=target.device)))
            logits = anchors @ torch.cat((anchors, prototypes)).T / self.temperature
            positive = labels[: len(anchors), None] == labels
            size = (views * torch.bincount(target, minlength=self.num_classes) + 1)[labels]  # of each point's class
            itself = torch.eye(*logits.shape, dtype=torch.bool, device=logits.device)
            # In the anchor's own class one point fewer counts; that point, the anchor, is left out of every sum.
            averaged = (logits - (size - positive.to(size.dtype)).to(logits.dtype).log()).masked_fill(
                itself, -torch.inf
            )
            positive = positive & ~itself
            mean = (logits * positive).sum(dim=1) / positive.sum(dim=1)
            return (averaged.logsumexp(dim=1) - mean).view(views, images).mean(dim=0)

    def forward(self, features: Tensor, target: Tensor, prototypes: Tensor) -> Tensor:
        """Loss of a batch, a scalar: the mean over images and views.

        Args:
            features: [N, V, d] or [N, d] (one view), projected and of unit length.
            target: integer labels [N].
            prototypes: [C, d], of unit length; gradients flow into them.

        Raises:
            InputError: shapes, devices or (on the CPU) label values that do not fit.
        """
        return self.per_sample(features, target, prototypes).mean()

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, temperature={self.temperature:g}"

    def _check(self, features: Tensor, target: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if features.ndim not in (2, 3) or prototypes.shape != (self.num_classes, features.shape[-1]):
            shapes = f"{list(features.shape)} and {list(prototypes.shape)}"
            raise InputError(f"features and prototypes must be [N, V, d] and [{self.num_classes}, d], got {shapes}")
        features = features[:, None] if features.ndim == 2 else features
        dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
        features = features.to(dtype)
        target = check_targets(target, features.new_empty(len(features), self.num_classes))
        if target.ndim == 2:
            raise InputError("BalancedContrastiveLoss needs one label per image, not soft labels: mix no images in it")
        return features, target, prototypes.to(dtype)
