"""log of the modified Bessel function I_nu without its singularity, for any size of argument, in plain torch.

The normaliser of a von Mises-Fisher distribution on the sphere of R^p is kappa^nu / ((2 pi)^(p/2) I_nu(kappa)) with
nu = p/2 - 1. What is needed is therefore

    g(y) = log I_nu(x) - nu log x,   y = x^2,

which is smooth in y on [0, inf), 0 included: g' = q/2 with q = I_{nu+1}(x) / (x I_nu(x)).

Debye's uniform expansion in 1/mu (DLMF 10.41.3) with s = sqrt(mu^2 + y), t = mu / s::

    log I_mu(x) - mu log x = s - mu log(mu + s) - log(2 pi s) / 2 + log sum_k U_k(t) mu^-k

is exact to the last digits from mu = 32 on. Smaller orders are reached from there, downwards, which is the stable way,
by the three-term recurrence in the form  1/q_nu = 2 (nu + 1) + y q_{nu+1}  and  g_nu = g_{nu+1} - log q_nu.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import torch
from torch import Tensor

from saddlescape.errors import InputError

_LEAST_ORDER = 32
_TERMS = 9


def log_bessel(y: Tensor, order: float) -> Tensor:
    """g(y) = log I_order(sqrt(y)) - order * log(sqrt(y)), elementwise, differentiable any number of times.

    Args:
        y: squared arguments, floating point, 0 or more, any shape. float64 for full precision.
        order: nu, 0 or more, whole or not.

    Returns:
        The shape and dtype of ``y``.

    Raises:
        InputError: a negative order.
    """
    if not 0 <= order < math.inf:
        raise InputError(f"order is {order}; it must be 0 or more")
    steps = max(0, math.ceil(_LEAST_ORDER - order))
    high = order + steps
    value = _debye(y, high)
    if not steps:
        return value
    ratio = (_debye(y, high + 1) - value).exp()  # q_high: both parts are of the size of log I, which is small here
    for step in range(1, steps + 1):
        ratio = 1 / (2 * (high - step + 1) + y * ratio)
        value = value - ratio.log()
    return value


def _debye(y: Tensor, mu: float) -> Tensor:
    s = (mu * mu + y).sqrt()
    t = mu / s
    series = torch.zeros_like(y)
    for coefficients in reversed(_polynomials()):
        series = series / mu + _horner(coefficients, t)
    return s - mu * (mu + s).log() - 0.5 * (2 * math.pi * s).log() + series.log()


def _horner(coefficients: tuple[float, ...], t: Tensor) -> Tensor:
    """t^k * (c_0 + c_1 t^2 + c_2 t^4 + ...), which is the form of U_k; k = len - 1."""
    square = t * t
    value = torch.full_like(t, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * square + coefficient
    return value * t ** (len(coefficients) - 1)


@functools.cache
def _polynomials() -> tuple[tuple[float, ...], ...]:
    """Coefficients of U_0, U_1, ... (DLMF 10.41.9): U_{k+1} = t^2 (1 - t^2) U_k' / 2 + int_0^t (1 - 5 r^2) U_k dr / 8.

    U_k has the powers k, k + 2, ..., 3k; only their coefficients are kept. Exact fractions until the end.
    """
    dense = [Fraction(1)]
    found = []
    for k in range(_TERMS):
        found.append(tuple(float(dense[power]) for power in range(k, 3 * k + 1, 2)))
        following = [Fraction(0)] * (len(dense) + 3)
        for power, c in enumerate(dense):
            following[power + 1] += c * Fraction(power, 2) + c / (8 * (power + 1))
            following[power + 3] += -c * Fraction(power, 2) - 5 * c / (8 * (power + 3))
        dense = following
    return tuple(found)
