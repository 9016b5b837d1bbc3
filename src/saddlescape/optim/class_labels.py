"""Class counts and targets, as optimisers that split losses by class need them: checked, in one form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from saddlescape.errors import InputError

ClassCounts = Sequence[int] | Sequence[float] | np.ndarray | Tensor


def checked_counts(class_counts: ClassCounts) -> Tensor:
    """Number of training images per class -> float64 [C] on the CPU.

    Raises InputError: no list of two or more finite numbers, or a class without images. The rule and its words are
    those of the losses and samplers.
    """
    try:
        counts = torch.as_tensor(class_counts, dtype=torch.float64).detach().cpu().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"class_counts must be a list of numbers, one per class, got {class_counts!r}") from error
    if counts.ndim != 1 or len(counts) < 2:
        raise InputError(f"class_counts must list two or more classes, one number each, got shape {list(counts.shape)}")
    wrong = ~torch.isfinite(counts) | (counts < 0)
    if wrong.any():
        label = int(wrong.nonzero()[0])
        raise InputError(f"class_counts[{label}] is {counts[label].item():g}: a count is a finite number of images")
    empty = [int(label) for label in (counts == 0).nonzero().flatten()]
    if empty:
        names = f"{', '.join(map(str, empty[:5]))}{' and more' if len(empty) > 5 else ''}"
        subject = f"class {names} has" if len(empty) == 1 else f"classes {names} have"
        raise InputError(
            f"{subject} no training images; give every class at least one image or leave the class out of the data set"
        )
    return counts


def checked_labels(targets: Tensor, num_classes: int, name: str) -> Tensor:
    """Targets of a batch -> int64 [N], the class each image belongs to.

    Hard labels of any integer dtype, or floats with integer values, of shape [N] or [N, 1]; or soft labels, floating
    point [N, C], of which the largest entry counts (the first of equal ones). Values are looked at on the CPU only:
    on an accelerator that would make the host wait in every step.

    Raises InputError, in the name of the optimiser ``name``: another shape, or on the CPU a label outside 0..C-1 or
    with a fraction.
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
    """A number for each class; called with labels [N] it gives each image its class's number [N].

    The table is kept on every device that has asked, so that a step copies nothing there.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self._elsewhere: dict[torch.device, Tensor] = {}

    def __call__(self, labels: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        if labels.device == self.values.device:
            return self.values[labels].to(dtype)
        if labels.device not in self._elsewhere:
            self._elsewhere[labels.device] = self.values.to(labels.device)
        return self._elsewhere[labels.device][labels].to(dtype)
