"""The one rule for class counts: every class has at least one training image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from saddlescape.errors import InputError

ClassCounts = Sequence[int] | Sequence[float] | np.ndarray | Tensor


def check_class_counts(class_counts: ClassCounts) -> Tensor:
    """Number of training images per class -> the same as float64 [C] on the CPU.

    Raises:
        InputError: no list of two or more finite numbers, or a class without images. A margin, a log-prior or an
            inverse frequency of zero images is infinite, so there is no quiet way on; the message names the class.
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
        raise InputError(empty_class_message(empty))
    return counts


def empty_class_message(empty: list[int]) -> str:
    """One line that names the classes without training images."""
    if len(empty) == 1:
        subject = f"class {empty[0]} has"
    else:
        subject = f"classes {', '.join(map(str, empty[:5]))}{' and more' if len(empty) > 5 else ''} have"
    return f"{subject} no training images; give every class at least one image or leave the class out of the data set"
