"""What every loss of this library is: losses per sample, weights per sample, and one reduction named once.

A loss says what each image *would* cost under each label, ``class_losses: [N, C]``, and the rest follows: hard labels
pick an entry, soft labels (mixup, CutMix) take the mixture, and class weights multiply before either is summed. So a
new loss is one method::

    class SquaredLoss(ClassLoss):
        def class_losses(self, logits, features=None):
            return (1 - logits.softmax(dim=1)) ** 2
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from saddlescape.errors import InputError
from saddlescape.losses.targets import check_targets

Reduction = Literal["mean", "sum", "none"]
Normalization = Literal["weights", "samples"]


class ClassLoss(nn.Module):
    """Base of the classification losses.

    Args:
        num_classes: C, or None to take whatever comes.
        weight: class weights w [C], or None for none. Held as a buffer; ``set_weight`` changes it between epochs.
        reduction: "mean", "sum" (of w_y l) or "none" (w_y l per sample, [N]).
        normalization: what "mean" divides by. "weights": sum w_y l / sum w_y, as ``torch.nn.CrossEntropyLoss`` does;
            in a batch of one image or of one class the weight then cancels. "samples": sum w_y l / N.

    Soft targets Y [N, C] count as fractions of hard ones: the weighted loss of a sample is sum_c Y_c w_c l_c and its
    weight is sum_c Y_c w_c. Without class weights, or with "samples", the mean over a mixup batch is therefore exactly
    lambda times the loss under the first labels plus (1 - lambda) times that under the second.

    Everything is computed in float32 at least, also from half precision logits or under autocast; float64 logits give
    float64 losses. The state dict is empty: a loss is rebuilt from its arguments.
    """

    uses_cosine_head: ClassVar[bool] = False
    """The loss expects cosines in [-1, 1] as logits (``saddlescape.models.CosineHead``)."""
    needs_features: ClassVar[bool] = False
    """The loss is called with ``features=h``, what the head saw, [N, d]."""

    logit_scale: float = 1.0
    """What makes logits the ones that softmax was trained on; not 1 where the loss scales them itself."""

    weight: Tensor | None

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        weight: Tensor | None = None,
        reduction: Reduction = "mean",
        normalization: Normalization = "weights",
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise InputError(f"reduction is {reduction!r}; it must be 'mean', 'sum' or 'none'")
        if normalization not in ("weights", "samples"):
            raise InputError(f"normalization is {normalization!r}; it must be 'weights' or 'samples'")
        self.num_classes = num_classes
        self.reduction: Reduction = reduction
        self.normalization: Normalization = normalization
        self._exact: dict[str, Tensor] = {}
        self.register_buffer("weight", None, persistent=False)
        self.set_weight(weight)

    def class_losses(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
        """Unweighted loss of every sample under every label: [N, C] -> [N, C], in the dtype of the logits."""
        raise TypeError(f"{type(self).__name__} does not say what its loss is: define class_losses(logits, features)")

    def hard_losses(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """Unweighted losses [N] under int64 labels [N]. A subclass overrides it where there is a cheaper way."""
        return self.class_losses(logits, features).gather(1, target[:, None]).squeeze(1)

    def per_sample(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """Unweighted losses l [N]; soft targets give sum_c Y_c l_c."""
        logits, target, features = self._check(logits, target, features)
        if target.ndim == 1:
            return self.hard_losses(logits, target, features)
        return (target * self.class_losses(logits, features)).sum(dim=1)

    def sample_weights(self, target: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Weights [N]: w_y for hard labels, sum_c Y_c w_c for soft ones, ones without class weights."""
        soft = target.is_floating_point() and target.ndim == 2 and target.shape[1] > 1
        if self.weight is None:
            return torch.ones(len(target), dtype=dtype, device=target.device)
        weight = self._weight_like(target, dtype)
        return target.to(dtype) @ weight if soft else weight[target.reshape(len(target)).to(torch.int64)]

    def terms(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(weighted losses w_y l [N], weights w_y [N]): what any reduction, over any cut into batches, is made of."""
        logits, target, features = self._check(logits, target, features)
        weights = self.sample_weights(target, logits.dtype)
        if target.ndim == 1:
            losses = self.hard_losses(logits, target, features)
            return (losses if self.weight is None else losses * weights), weights
        mixture = target if self.weight is None else target * self._weight_like(target, target.dtype)
        return (mixture * self.class_losses(logits, features)).sum(dim=1), weights

    def forward(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """Loss of a batch.

        Args:
            logits: [N, C], floating point.
            target: integer labels [N] or [N, 1], or soft labels [N, C] (floating point, rows sum to 1).
            features: [N, d], for a loss with ``needs_features``; others ignore it.

        Returns:
            A scalar, or [N] with ``reduction="none"``; float32, or float64 for float64 logits.

        Raises:
            InputError: shapes, devices or (on the CPU) label values that do not fit.
        """
        losses, weights = self.terms(logits, target, features)
        if self.reduction == "none":
            return losses
        if self.reduction == "sum":
            return losses.sum()
        if self.normalization == "samples" or self.weight is None:
            return losses.mean()
        return losses.sum() / weights.sum()

    @torch.no_grad()
    def set_weight(self, weight: Tensor | None) -> None:
        """Change the class weights to w [C], or to none. A present weight is overwritten in place.

        Raises:
            InputError: another shape than [C], or (for a tensor on the CPU) a weight that is negative or not finite.
        """
        if weight is None:
            self.weight = None
            return
        weight = torch.as_tensor(weight).detach()
        if not weight.is_floating_point():
            weight = weight.to(torch.float32)
        wanted = self.num_classes if self.num_classes is not None else weight.numel()
        if weight.shape != (wanted,):
            shape = list(weight.shape)
            raise InputError(f"weight must hold one number for each of {wanted} classes, got shape {shape}")
        if weight.device.type == "cpu" and not bool((torch.isfinite(weight) & (weight >= 0)).all()):
            at = int((~(torch.isfinite(weight) & (weight >= 0))).nonzero()[0])
            raise InputError(f"weight[{at}] is {weight[at].item():g}: a class weight is finite and not negative")
        if self.weight is not None and self.weight.shape == weight.shape:
            if weight.dtype == torch.float64 and self.weight.dtype != torch.float64:
                self.weight = self.weight.to(torch.float64)
            self.weight.copy_(weight)
        else:
            device = next((buffer.device for buffer in self.buffers()), weight.device)
            self.weight = weight.to(device, copy=True)

    def extra_repr(self) -> str:
        weighted = "" if self.weight is None else ", weighted"
        return f"reduction={self.reduction!r}, normalization={self.normalization!r}{weighted}"

    def _hold(self, name: str, values: Tensor) -> None:
        """Keep per-class constants: float32 as a buffer that moves with the module, and the float64 they came from."""
        self._exact[name] = values
        self.register_buffer(name, values.to(torch.float32), persistent=False)

    def _constant(self, name: str, like: Tensor) -> Tensor:
        """Constants in the dtype and on the device of ``like``: float64 logits get the exact ones, unrounded."""
        held = self._exact[name] if like.dtype == torch.float64 else self.get_buffer(name)
        return held.to(like.device, like.dtype)

    def _weight_like(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """Class weights beside ``tensor``. A weight left on another device moves there for good, not in every step."""
        assert self.weight is not None
        if self.weight.device != tensor.device:
            self.weight = self.weight.to(tensor.device)
        return self.weight.to(dtype)

    def _check(self, logits: Tensor, target: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        target = check_targets(target, logits)
        if self.num_classes is not None and logits.shape[1] != self.num_classes:
            raise InputError(
                f"logits have {logits.shape[1]} columns; this {type(self).__name__} is for {self.num_classes} classes"
            )
        if self.weight is not None and logits.shape[1] != len(self.weight):
            raise InputError(f"logits have {logits.shape[1]} columns but the class weights are {len(self.weight)}")
        if features is not None:
            features = features.to(logits.dtype)
        elif self.needs_features:
            raise InputError(f"{type(self).__name__} needs what the head saw: call it with features=model.features(x)")
        return logits, target, features
