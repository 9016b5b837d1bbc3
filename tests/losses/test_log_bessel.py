from __future__ import annotations

import pytest
import torch
from mpmath import besseli, log, loggamma, mp, mpf, sqrt
from scipy.special import ive

from saddlescape.errors import InputError
from saddlescape.losses import log_bessel

ORDERS = [0, 0.5, 1, 2.5, 7, 31, 31.5, 32, 63, 511]
ARGUMENTS = [0.0, 1e-8, 1e-2, 0.7, 3.0, 20.0, 63.0, 500.0, 1e4, 1e5]


@pytest.mark.parametrize("order", ORDERS)
def test_value_and_two_derivatives_against_forty_digits(order: float) -> None:
    y = torch.tensor(ARGUMENTS, dtype=torch.float64).square().requires_grad_()
    value = log_bessel(y, order)
    (first,) = torch.autograd.grad(value.sum(), y, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), y)
    with mp.workdps(40):
        for i in range(len(y)):
            x = sqrt(mpf(y[i].item()))
            if x == 0:
                g = -order * log(2) - loggamma(order + 1)
                q, following = mpf(1) / (2 * order + 2), mpf(1) / (2 * order + 4)
            else:
                g = log(besseli(order, x)) - order * log(x)
                q = besseli(order + 1, x) / (x * besseli(order, x))
                following = besseli(order + 2, x) / (x * besseli(order + 1, x))
            assert value[i].item() == pytest.approx(float(g), rel=1e-13, abs=5e-14)
            assert first[i].item() == pytest.approx(float(q / 2), rel=1e-12)
            assert second[i].item() == pytest.approx(float(q * (following - q) / 4), rel=1e-9)


def test_against_scipy_on_a_grid() -> None:
    x = torch.logspace(-6, 3, 200, dtype=torch.float64)
    for order in (0, 1.5, 15, 63):
        scaled = torch.from_numpy(ive(order, x.numpy()))
        fine = scaled > 1e-300  # scipy underflows where log_bessel does not
        expected = scaled.log() + x - order * x.log()
        torch.testing.assert_close(log_bessel(x.square(), order)[fine], expected[fine], rtol=1e-12, atol=1e-12)
    assert (~fine).any()


def test_derivatives_by_differences_and_single_precision() -> None:
    y = torch.tensor([0.3, 2.0, 50.0], dtype=torch.float64, requires_grad=True)
    for order in (0, 2.5, 63):
        assert torch.autograd.gradcheck(lambda y, nu=order: log_bessel(y, nu), (y,))
        assert torch.autograd.gradgradcheck(lambda y, nu=order: log_bessel(y, nu), (y,))
    single = log_bessel(y.detach().float(), 63)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), log_bessel(y.detach(), 63), rtol=1e-6, atol=1e-4)


def test_a_negative_order_is_refused() -> None:
    with pytest.raises(InputError, match="order is -1"):
        log_bessel(torch.ones(1), -1)
