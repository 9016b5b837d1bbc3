"""Targets as people have them -> int64 labels [N] or soft labels [N, C], checked where looking costs nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from saddlescape.errors import InputError


def check_targets(target: Tensor, logits: Tensor) -> Tensor:
    """Bring targets into one of two forms that fit ``logits`` [N, C].

    Hard labels of any integer dtype, or floats with integer values, of shape [N] or [N, 1] -> int64 [N].
    Soft labels, floating point [N, C] with rows that sum to 1 -> [N, C] in the dtype of the logits.

    Values are looked at only on the CPU: on an accelerator that would make the host wait in every step, so there the
    data set's own check of its labels has to do.

    Raises:
        InputError: shapes or devices that do not fit; on the CPU also a label outside 0..C-1 (named with its
            position), a fractional label, or soft labels that are negative or do not sum to 1.
    """
    if logits.ndim != 2 or not logits.is_floating_point():
        raise InputError(f"logits must be floating point [N, C], got {logits.dtype} {list(logits.shape)}")
    samples, classes = logits.shape
    if target.device != logits.device:
        raise InputError(f"logits are on {logits.device} but target is on {target.device}; move one of them")
    if target.is_floating_point() and target.shape == logits.shape and target.ndim == 2 and classes > 1:
        if _can_look(target):
            _check_soft(target)
        return target.to(logits.dtype)
    if target.shape not in {(samples,), (samples, 1)} or target.is_complex():
        raise InputError(
            f"target must hold {samples} labels (shape [{samples}]) or soft labels (float [{samples}, {classes}]), "
            f"got {target.dtype} {list(target.shape)}"
        )
    labels = target.reshape(samples).to(torch.int64)
    if _can_look(target) and samples:
        _check_hard(target.reshape(samples), labels, classes)
    return labels


def values_readable() -> bool:
    """Whether tensors have values that the host may ask for: not under ``torch.compile`` nor in ``torch.func``."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is None


def _can_look(target: Tensor) -> bool:
    return target.device.type == "cpu" and values_readable()


def _check_hard(target: Tensor, labels: Tensor, classes: int) -> None:
    if target.is_floating_point():
        fractional = (target != labels).nonzero()
        if len(fractional):
            at = int(fractional[0])
            raise InputError(f"target[{at}] is {target[at].item():g}; labels are whole numbers from 0 to {classes - 1}")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        at = int(((labels < 0) | (labels >= classes)).nonzero()[0])
        hint = "; labels count from 0, subtract 1" if lowest == 1 and highest == classes else ""
        raise InputError(f"target[{at}] is {int(labels[at])}, outside 0..{classes - 1} for {classes} classes{hint}")


def _check_soft(target: Tensor) -> None:
    wrong = ~((target.sum(dim=1, dtype=torch.float32) - 1).abs() <= 1e-2) | (target < 0).any(dim=1)
    if wrong.any():
        at = int(wrong.nonzero()[0])
        raise InputError(
            f"soft target {at} is not a distribution: entries must be >= 0 and sum to 1, divide by the sum"
        )
