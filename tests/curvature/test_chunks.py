"""Batches cut to fit the cache: the same operator, and never cut where that would be another one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import saddlescape.curvature.chunks as chunks
from saddlescape.curvature import build_operator
from saddlescape.curvature.operator import cuts

IMAGES = 40


class Small(nn.Module):
    def __init__(self, middle: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Linear(6, 3)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(F.relu(self.norm(self.conv(x)))).mean((2, 3)))


def data(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(IMAGES, 1, 8, 8, generator=generator, dtype=dtype), torch.arange(IMAGES) % 3


def size(model: nn.Module, loss: Callable[..., Tensor] = F.cross_entropy, **options: object) -> int:
    return build_operator(model.eval(), loss, data(), method="traced", **options).batch_size  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that holds ten of the largest activation: 6 channels of 8 x 8 in float32."""
    monkeypatch.setattr(chunks, "_CACHE", 10 * 6 * 8 * 8 * 4)


def test_the_largest_activation_fits_and_batch_size_is_a_bound() -> None:
    torch.manual_seed(0)
    assert size(Small()) == 10
    assert size(Small(), batch_size=9) == 9
    assert size(Small(), batch_size=5) == 5


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_the_product_is_the_same(dtype: torch.dtype, allowed: float, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Small().to(dtype).eval()
    cut = build_operator(model, F.cross_entropy, data(dtype), method="traced")
    monkeypatch.setattr(chunks, "_CACHE", 2**40)
    whole = build_operator(model, F.cross_entropy, data(dtype), method="traced")
    assert cut.batch_size < whole.batch_size == 256
    v = torch.randn(cut.dim, dtype=dtype)
    expected = whole(v)
    assert float((cut(v) - expected).norm() / expected.norm()) < allowed
    assert float(cut.loss()) == pytest.approx(float(whole.loss()), rel=1e-5)


def test_images_that_look_at_each_other_are_not_cut() -> None:
    torch.manual_seed(0)
    assert size(Small(lambda x: x - x.mean(0, keepdim=True))) == 256
    model = Small()
    model.norm.track_running_stats, model.norm.running_mean, model.norm.running_var = False, None, None
    assert size(model) == 256
    assert build_operator(Small(), F.cross_entropy, data(), method="traced", mode="train").batch_size == 256


def test_a_loss_without_values_per_sample_is_not_cut() -> None:
    torch.manual_seed(0)
    assert size(Small(), lambda logits, target: F.cross_entropy(logits, target)) == 256


def test_no_convolution_no_cut() -> None:
    torch.manual_seed(0)
    assert size(nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 3))) == 256


def test_large_weights_ask_for_large_chunks() -> None:
    """Each chunk sums a gradient as large as the weights: activations must outweigh it."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(128, 400), nn.Tanh(), nn.Linear(400, 3)
    )
    assert size(model, batch_size=30) == 30


@pytest.mark.parametrize("alike", [True, False])
def test_every_sample_counts_once(alike: bool) -> None:
    for number in range(1, 130):
        for at_most in range(1, 40):
            parts = cuts(number, at_most, alike=alike)
            assert [fresh for _, fresh, _ in parts] == [0, *(stop for _, _, stop in parts[:-1])]
            assert parts[0][0] == 0 and parts[-1][2] == number and len(parts) == -(-number // at_most)
            sizes = {stop - start for start, _, stop in parts}
            assert max(sizes) <= at_most and all(0 <= start <= fresh < stop for start, fresh, stop in parts)
            if alike:
                assert len(sizes) == 1 and len(parts) * max(sizes) <= max(1.1 * number, number + len(parts) - 1)
            else:
                assert max(sizes) - min(sizes) <= 1 and all(start == fresh for start, fresh, _ in parts)


def test_one_trace_serves_batches_and_classes_of_many_sizes() -> None:
    torch.manual_seed(0)
    model, (x, y) = Small().eval(), data()
    first = build_operator(model, F.cross_entropy, (x, y), method="traced", batch_size=10)
    v = torch.randn(first.dim)
    first(v)
    other = type(first)(first.function, first.samples.take(slice(0, 38)), method="traced", batch_size=10)
    plain = build_operator(model, F.cross_entropy, (x[:38], y[:38]), method="double_backward")
    assert float((other(v) - plain(v)).norm() / plain(v).norm()) < 1e-6
    assert len(first.function._traces) == 1
