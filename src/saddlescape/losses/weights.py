"""Class weights that sum to C."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from saddlescape.errors import InputError
from saddlescape.losses.counts import ClassCounts, check_class_counts


def effective_number_weights(
    class_counts: ClassCounts, beta: float = 0.9999, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019: w_c ~ (1-beta)/(1-beta^n_c).

    Args:
        class_counts: training images per class, [C].
        beta: in [0, 1); 0 gives ones exactly, towards 1 the weights become those of inverse frequency.
        dtype: of the result; the computation is in float64.

    Returns:
        [C], on the CPU, summing to C.

    Raises:
        InputError: a class without images, or beta out of range.
    """
    counts = check_class_counts(class_counts)
    if not 0 <= beta < 1:
        raise InputError(f"beta is {beta}; it must be in [0, 1)")
    # 1 / (1 - beta^n); the factor 1 - beta is common to all classes. expm1 keeps its digits for beta close to 1.
    inverse = -1 / torch.expm1(counts * (math.log(beta) if beta > 0 else -math.inf))
    return (inverse * (len(counts) / inverse.sum())).to(dtype)


def power_weights(class_counts: ClassCounts, exponent: float, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """w_c ~ n_c^-exponent, on the CPU, summing to C: [C].

    0 gives ones exactly, 1/2 the inverse root of the frequency, 1 inverse frequency, more favours the tail further.
    DisAlign's generalised re-weighting (Zhang et al., CVPR 2021) is exponent 1.2 on ImageNet-LT; GLMC's label weighting
    (Du et al., CVPR 2023) is 1.0 to 1.2. Computed in float64.

    Raises:
        InputError: a class without images, or an exponent that is not finite.
    """
    if not math.isfinite(exponent):
        raise InputError(f"exponent is {exponent}; it must be a finite number, usually from 0 to 2")
    counts = check_class_counts(class_counts)
    inverse = (counts / counts.min()) ** -float(exponent)  # a ratio: no power of it overflows
    return (inverse * (len(inverse) / inverse.sum())).to(dtype)


def inverse_frequency_weights(
    class_counts: ClassCounts, power: float = 1.0, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """w_c ~ n_c^-power, on the CPU, summing to C: [C]. ``power_weights`` under the name of its usual case, 1.

    Raises:
        InputError: a class without images.
    """
    return power_weights(class_counts, power, dtype=dtype)
