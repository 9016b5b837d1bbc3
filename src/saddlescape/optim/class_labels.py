"""Targets and numbers per class, as optimisers that split losses by class need them: checked, in one form."""

from __future__ import annotations

import torch
from torch import Tensor

from saddlescape.errors import InputError


def checked_labels(targets: Tensor, num_classes: int, name: str) -> Tensor:
    """Targets of a batch -> int64 [N], the class each image belongs to.

    Hard labels of any integer dtype, or floats with integer values, of shape [N] or [N, 1]; or soft labels, floating
    point [N, C], of which the largest entry counts (the first of equal ones). Values are looked at on the CPU only:
    on an accelerator that would make the host wait in every step.

    Raises:
        InputError: in the name of the optimiser ``name``: another shape, or on the CPU a label outside 0..C-1 or with a
            fraction.
    """
    if not isinstance(targets, Tensor):
        raise InputError(f"{name}: targets must be a tensor of labels [N], got a {type(targets).__name__}")
    if targets.is_floating_point() and targets.ndim == 2 and targets.shape[1] == num_classes:
        return targets.argmax(dim=1)
    single = targets.ndim == 1 or (targets.ndim == 2 and targets.shape[1] == 1)
    if not single or targets.is_complex():
        raise InputError(
            f"{name}: targets must be labels (shape [N]) or soft labels (float [N, {num_classes}]), "
            f"got {targets.dtype} {list(targets.shape)}"
        )
    given = targets.reshape(-1)
    labels = given.to(torch.int64)
    if labels.device.type == "cpu" and len(labels) and not torch.compiler.is_compiling():
        wrong = (labels < 0) | (labels >= num_classes)
        if given.is_floating_point():
            wrong |= given != labels
        if wrong.any():
            at = int(wrong.nonzero()[0])
            raise InputError(
                f"{name}: targets[{at}] is {given[at].item():g}; labels are whole numbers from 0 to {num_classes - 1}"
            )
    return labels


class PerClass:
    """A weight for each class, from numbers or a mask [C]; called with labels [N] it gives the weights [N], float64.

    The table is kept on every device that has asked, so that a step copies nothing there.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values.to(torch.float64)
        self._there = {values.device: self.values}

    def __call__(self, labels: Tensor) -> Tensor:
        if labels.device not in self._there:
            self._there[labels.device] = self.values.to(labels.device)
        return self._there[labels.device][labels]
