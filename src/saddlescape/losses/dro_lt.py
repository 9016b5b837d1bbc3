"""DRO-LT: Samuel and Chechik, "Distributional Robustness Loss for Long-tail Learning", ICCV 2021."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from saddlescape.counts import ClassCounts, check_class_counts
from saddlescape.errors import InputError
from saddlescape.losses.targets import check_targets

RobustForm = Literal["paper", "code"]


class DROLTLoss(nn.Module):
    """Pull features to the centroid of their class, as if they were worse by the radius of that class.

    For a batch of features h_i with labels y_i and centroids mu_c, with the temperature T::

        u_ci = -(||mu_c - h_i|| + [c = y_i] r_i) / T
        l_i  = -u_{y_i i} + log sum_j exp(u_{y_i j})        j runs over the whole batch, for the centroid of y_i
        L    = mean over the classes in the batch of the mean of l_i over that class

    The radius r_i belongs to the class: "paper" (default) has r_i = 2 eps_{y_i}, the worst case within a ball of
    radius eps around a centroid; "code" is what the published code computes: r = eps, and with eps mixed up, because
    entries sorted by class are paired there with labels in the order of the batch (the k-th image when sorted by class
    gets eps of the k-th label of the batch). With all eps equal, as they are at first, only the factor 2 differs.

    Args:
        class_counts: training images per class, [C]; the number of classes is what is used.
        temperature: T; 1 in the published script.
        form: "paper" or "code".
        radius: first value of every eps; 1 in the published script.

    Parameter: ``eps`` [C], learned along with the features, unconstrained. It needs a place in the optimiser.

    In a batch of one image the loss is 0. Computed in float32 at least, also under autocast.

    Deviations from the DRO-LT code beside ``form``: it has the mean of the loss over classes by class weights as an
    option that its script leaves unused. The factor 2 is recalled from the paper, not re-read.
    """

    def __init__(
        self, class_counts: ClassCounts, temperature: float = 1.0, form: RobustForm = "paper", *, radius: float = 1.0
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}; it must be above 0")
        if form not in ("paper", "code"):
            raise InputError(f"form is {form!r}; it must be 'paper' or 'code'")
        self.num_classes = len(check_class_counts(class_counts))
        self.temperature, self.form = float(temperature), form
        self.eps = nn.Parameter(torch.full((self.num_classes,), float(radius)))

    def terms(self, features: Tensor, target: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
        """(w_i l_i [N], w_i [N]) with w_i one over the size of the class of i in the batch: the loss is sum over sum.

        The l_i of a batch depend on each other, so the loss of a set does depend on how it is cut into batches.
        """
        features, target, centroids = self._check(features, target, centroids)
        with torch.autocast(features.device.type, enabled=False):
            same = target[:, None] == target
            # Row i: all images of the batch as the centroid of y_i sees them. Differences, not products, so that a
            # feature on its centroid has distance 0; the norm has derivative 0 there.
            distance = torch.linalg.vector_norm(centroids[target][:, None] - features, dim=2)
            logits = -(distance + same * self._radius(target, features.dtype)) / self.temperature
            losses = torch.logsumexp(logits, dim=1) - logits.diagonal()
            weights = 1 / same.sum(dim=1).to(losses.dtype)
            return weights * losses, weights

    def forward(self, features: Tensor, target: Tensor, centroids: Tensor) -> Tensor:
        """Loss of a batch, a scalar.

        Args:
            features: [N, d], what the head sees.
            target: integer labels [N].
            centroids: [C, d], class means of the features; constants, usually those of the last epoch.

        Raises:
            InputError: shapes, devices or (on the CPU) label values that do not fit.
        """
        losses, weights = self.terms(features, target, centroids)
        return losses.sum() / weights.sum()

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, temperature={self.temperature:g}, form={self.form!r}"

    def _radius(self, target: Tensor, dtype: torch.dtype) -> Tensor:
        eps = self.eps.to(dtype)
        if self.form == "paper":
            return 2 * eps[target]
        # Image order[k] is the k-th when sorted by class, and gets eps of the k-th label of the batch.
        order = target.argsort(stable=True)
        return torch.zeros(len(target), dtype=dtype, device=target.device).index_copy(0, order, eps[target])

    def _check(self, features: Tensor, target: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if features.ndim != 2 or centroids.shape != (self.num_classes, features.shape[1]):
            shapes = f"{list(features.shape)} and {list(centroids.shape)}"
            raise InputError(f"features and centroids must be [N, d] and [{self.num_classes}, d], got {shapes}")
        if features.dtype in (torch.float16, torch.bfloat16):
            features = features.float()
        target = check_targets(target, features.new_empty(len(features), self.num_classes))
        if target.ndim == 2:
            raise InputError("DROLTLoss needs one label per image, not soft labels: leave mixing of images out")
        return features, target, centroids.detach().to(features.dtype)
