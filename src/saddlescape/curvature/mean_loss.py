"""A loss given as a mean over a batch, taken apart so that the mean over a set does not depend on how it was cut.

A user's loss is ``loss_fn(logits, target) -> scalar``, a mean over the batch. The mean over a set is not the mean of
its batch means unless all batches are alike. So: where the loss can give per-sample values (an attribute or argument
``reduction``), these are used, together with the normaliser that its own mean uses, found by trying: the number of
samples, or torch's sum of class weights ``weight[target]``. Else each batch mean counts as often as it has samples,
after a check on a first batch that halves add up.

The loss itself, a matter of [N, C] numbers, is computed in float64 where device and loss allow it, whatever the network
is computed in. At a sample that is fitted the slope p - 1 and the curvature p (1 - p) of the cross-entropy are what is
left when two numbers near 1 are subtracted: in float32 a class with a loss of 1e-3 has a Hessian that is wrong in its
fourth figure however exact the network's own derivatives are.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from saddlescape.errors import InputError


class MeanLoss:
    """``total(logits, targets, weights)`` is ``sum_i weights_i * loss_i``; ``normalisers(targets)`` what a mean
    divides by.

    ``name`` states which normaliser was found: ``"samples"`` or ``"class weights"``. ``per_sample`` says whether
    values per sample exist; if not, all weights of one call must be equal.
    """

    def __init__(self, loss_fn: Callable[..., Any], logits: Tensor, targets: Any) -> None:
        """``logits``, ``targets``: a first batch, to find out what ``loss_fn`` returns.

        Raises:
            InputError: a loss that is not a scalar, is NaN, or is not a mean over samples.
        """
        self.loss_fn, self._dtype = loss_fn, logits.dtype
        with torch.no_grad():
            mean = _scalar(loss_fn, logits, targets)
            self._values = _per_sample(loss_fn, logits, targets)
            self._class_weights = _class_weights(loss_fn)
            self._widens = _widens(self._values or loss_fn, logits, targets)
            self.name = "samples"
            if self._values is not None:
                self._choose_normaliser(mean, logits, targets)
            if self._values is None:
                self._check_halves(mean, logits, targets)

    @property
    def per_sample(self) -> bool:
        return self._values is not None

    @property
    def eps(self) -> float:
        """Rounding of the numbers that the loss is computed in; the slope p - 1 of a sample is off by as much."""
        return float(torch.finfo(torch.float64 if self._widens else self._dtype).eps)

    def _choose_normaliser(self, mean: Tensor, logits: Tensor, targets: Tensor) -> None:
        values = self._values(logits, targets)  # type: ignore[misc]
        if self._class_weights is not None:
            sum_of_weights = self._weights_of(targets, values).sum()
            if sum_of_weights > 0 and _close(mean, values.sum() / sum_of_weights):
                self.name = "class weights"
                return
        if not _close(mean, values.mean()):
            self._values = None

    def _check_halves(self, mean: Tensor, logits: Tensor, targets: Any) -> None:
        n = len(logits)
        if n < 2 or not isinstance(targets, Tensor):
            return
        half = n // 2
        first = _scalar(self.loss_fn, logits[:half], targets[:half])
        second = _scalar(self.loss_fn, logits[half:], targets[half:])
        if not _close(mean, (first * half + second * (n - half)) / n):
            average = float((first * half + second * (n - half)) / n)
            raise InputError(
                f"loss_fn is not a mean over samples: {float(mean):.6g} on a batch of {n}, but its halves average to"
                f" {average:.6g}; give an nn.Module with weight= and reduction=, or a loss with reduction='mean'"
            )

    def normalisers(self, targets: Any, count: int, like: Tensor) -> Tensor:
        """What each sample adds to the denominator of the mean, [N]."""
        if self.name == "class weights":
            return self._weights_of(targets, like)
        return torch.ones(count, dtype=like.dtype, device=like.device)

    def _weights_of(self, targets: Tensor, like: Tensor) -> Tensor:
        assert self._class_weights is not None
        weights = self._class_weights.to(device=like.device, dtype=like.dtype)
        if targets.is_floating_point():  # probabilities: torch divides by the number of samples
            return torch.ones(len(targets), dtype=like.dtype, device=like.device)
        return weights[targets]

    def total(self, logits: Tensor, targets: Any, weights: Tensor) -> Tensor:
        """``sum_i weights_i * loss_i``, a scalar of the dtype of ``logits`` that can be differentiated twice."""
        function = self._values or self.loss_fn
        if self._widens:
            values = _in_float64(function, logits, targets)
            weights = weights.double()
        else:
            values = function(logits, targets)
        total = values * weights.sum() if self._values is None else (values * weights).sum()
        return total.to(logits.dtype)


def _scalar(loss_fn: Callable[..., Any], logits: Tensor, targets: Any) -> Tensor:
    value = loss_fn(logits, targets)
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"loss_fn must return the mean loss as one number, but returned {shape}: use reduction='mean'")
    value = value.reshape(())
    if not bool(torch.isfinite(value)):
        raise InputError(f"the loss of the first batch is {float(value)}: check weights, inputs and targets for NaN")
    reduction = getattr(loss_fn, "reduction", None) or _keywords(loss_fn).get("reduction")
    if reduction in ("sum", "none"):
        raise InputError(f"loss_fn has reduction={reduction!r}: curvature is that of a mean loss, use reduction='mean'")
    return value


def _per_sample(loss_fn: Callable[..., Any], logits: Tensor, targets: Any) -> Callable[[Tensor, Any], Tensor] | None:
    """``loss_fn`` with reduction "none" (a copy: the user's own object is not touched), if it obeys."""
    if isinstance(loss_fn, nn.Module) and isinstance(getattr(loss_fn, "reduction", None), str):
        values: Callable[..., Any] = copy.copy(loss_fn)
        values.reduction = "none"  # type: ignore[attr-defined]
    elif _takes_reduction(loss_fn):
        values = functools.partial(loss_fn, reduction="none")
    else:
        return None
    result = values(logits, targets)
    if not isinstance(result, Tensor) or result.dim() == 0 or result.shape[0] != len(logits):
        return None
    if result.dim() == 1:
        return values
    return lambda z, t: values(z, t).flatten(1).mean(1)


def _widens(function: Callable[..., Any], logits: Tensor, targets: Any) -> bool:
    """Whether the loss can be had in float64 and is the same there, to what float32 resolves."""
    if logits.dtype == torch.float64 or logits.device.type == "mps":
        return False
    try:
        wide = _in_float64(function, logits, targets)
    except Exception:  # somebody's own function, most likely with tensors of another dtype that nobody can reach
        return False
    narrow = function(logits, targets)
    return wide.dtype == torch.float64 and bool(_close(narrow.double().sum(), wide.sum(), 1e-3))


def _in_float64(function: Callable[..., Any], logits: Tensor, targets: Any) -> Tensor:
    """``function`` of float64 logits; its tensors are read at every call, so a change of them is seen."""
    arguments = logits.double(), _wide(targets)
    if isinstance(function, nn.Module):
        own = {name: _wide(value) for name, value in (*function.named_parameters(), *function.named_buffers())}
        result = torch.func.functional_call(function, own, arguments) if own else function(*arguments)
    elif isinstance(function, functools.partial):
        keywords = {name: _wide(value) for name, value in function.keywords.items()}
        result = function.func(*map(_wide, function.args), *arguments, **keywords)
    else:
        result = function(*arguments)
    return result


def _wide(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _takes_reduction(loss_fn: Callable[..., Any]) -> bool:
    try:
        return "reduction" in inspect.signature(loss_fn).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return False


def _keywords(loss_fn: Callable[..., Any]) -> dict[str, Any]:
    return dict(loss_fn.keywords) if isinstance(loss_fn, functools.partial) else {}


def _class_weights(loss_fn: Callable[..., Any]) -> Tensor | None:
    weight = getattr(loss_fn, "weight", None)
    if weight is None:
        weight = _keywords(loss_fn).get("weight")
    return weight.detach() if isinstance(weight, Tensor) and weight.dim() == 1 else None


def _close(a: Tensor, b: Tensor, tolerance: float | None = None) -> bool:
    if tolerance is None:
        tolerance = 1e-9 if a.dtype == torch.float64 else 1e-4
    return bool((a - b).abs() <= tolerance * (a.abs() + b.abs()) + 1e-12)
