from __future__ import annotations

import numpy as np
import pytest
import torch
from mpmath import mp, mpf

from saddlescape.errors import InputError
from saddlescape.losses import effective_number_weights, inverse_frequency_weights, power_weights

CIFAR10 = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
CIFAR100 = [int(500 * 0.01 ** (c / 99)) for c in range(100)]


def test_effective_number_against_published_split() -> None:
    expected = [0.050611, 0.076900, 0.121134, 0.195037, 0.318805, 0.524590, 0.868349, 1.442627, 2.409223, 3.992724]
    np.testing.assert_allclose(effective_number_weights(CIFAR10).numpy(), expected, atol=1e-6)
    weights = effective_number_weights(CIFAR100)
    np.testing.assert_allclose(weights[:3].numpy(), [0.0448757, 0.0469859, 0.0492040], atol=1e-7)
    assert weights[-1].item() == pytest.approx(4.3783126, abs=1e-6)


def test_inverse_frequency_against_published_split() -> None:
    expected = [0.040236, 0.067128, 0.112017, 0.186799, 0.311911, 0.519851, 0.867166, 1.447356, 2.423885, 4.023650]
    np.testing.assert_allclose(inverse_frequency_weights(CIFAR10).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999, 0.9999, 1 - 1e-12])
def test_effective_number_against_fifty_digits(beta: float) -> None:
    with mp.workdps(50):
        inverse = [(1 - mpf(beta)) / (1 - mpf(beta) ** n) for n in CIFAR10]
        expected = [float(10 * w / sum(inverse)) for w in inverse]
    weights = effective_number_weights(CIFAR10, beta, dtype=torch.float64)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-12)
    assert weights.sum().item() == pytest.approx(10, rel=1e-14)


def test_beta_zero_gives_ones_exactly_and_beta_near_one_inverse_frequency() -> None:
    assert torch.equal(effective_number_weights(CIFAR10, 0.0), torch.ones(10))
    torch.testing.assert_close(
        effective_number_weights(CIFAR10, 1 - 1e-13), inverse_frequency_weights(CIFAR10), rtol=1e-6, atol=0
    )


def test_powers_of_the_frequency() -> None:
    assert torch.equal(inverse_frequency_weights(CIFAR10, 0.0), torch.ones(10))
    root = inverse_frequency_weights([400, 100], 0.5, dtype=torch.float64)
    torch.testing.assert_close(root, torch.tensor([2 / 3, 4 / 3], dtype=torch.float64))


def test_generalised_reweighting_of_disalign() -> None:
    expected = [0.018275, 0.033775, 0.062438, 0.115335, 0.213377, 0.393882, 0.727836, 1.345865, 2.498766, 4.590450]
    np.testing.assert_allclose(power_weights(CIFAR10, 1.2).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.2, 3.0, -1.0])
def test_power_weights_against_fifty_digits(exponent: float) -> None:
    with mp.workdps(50):
        inverse = [mpf(n) ** -mpf(exponent) for n in CIFAR10]
        expected = [float(10 * w / sum(inverse)) for w in inverse]
    np.testing.assert_allclose(power_weights(CIFAR10, exponent, dtype=torch.float64).numpy(), expected, rtol=1e-12)
    assert torch.equal(power_weights(CIFAR10, 1.0), inverse_frequency_weights(CIFAR10))


def test_power_weights_at_the_edges() -> None:
    assert torch.isfinite(power_weights([10**9, 1], 40.0)).all()
    for exponent in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="exponent is"):
            power_weights(CIFAR10, exponent)
    with pytest.raises(InputError, match="class 1 has no training images"):
        power_weights([5, 0], 1.0)


@pytest.mark.parametrize("beta", [-0.1, 1.0, 2.0, float("nan")])
def test_beta_out_of_range(beta: float) -> None:
    with pytest.raises(InputError, match="must be in"):
        effective_number_weights(CIFAR10, beta)
