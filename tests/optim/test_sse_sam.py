"""SSE-SAM: the head climbs until a share of the steps is made. Its formula is held in test_split_sam.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saddlescape.optim import SSESAM, ImbSAM

COUNTS = [200, 150, 8, 3]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4)).double()


def step(optimizer: SSESAM | ImbSAM, model: nn.Module) -> int:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 4, (20,), generator=generator)
    passes = []

    def closure() -> Tensor:
        passes.append(1)
        return F.cross_entropy(model(x), y, reduction="none")

    optimizer.step(closure, targets=y)
    return len(passes)


@pytest.mark.parametrize(("total", "gamma", "expected"), [
    (10, 0.7, [3] * 7 + [2] * 3), (None, 0.7, [3] * 10), (10, 0.0, [2] * 10), (10, 1.0, [3] * 10),
])  # fmt: skip
def test_the_head_stops_climbing_after_its_share(total: int | None, gamma: float, expected: list[int]) -> None:
    model = net()
    optimizer = SSESAM(torch.optim.SGD(model.parameters(), lr=0.1), COUNTS, total_steps=total, gamma=gamma)
    announced = []
    passes = []
    for _ in range(10):
        announced.append(optimizer.passes_per_step)
        passes.append(step(optimizer, model))
    assert passes == announced == expected
    assert optimizer.steps == 10


def test_the_second_stage_is_imbsam_without_its_weight() -> None:
    ours, plain = net(), net()
    sse = SSESAM(torch.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9), COUNTS, 0.3, head_ratio=0)
    imb = ImbSAM(torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9), COUNTS, 0.3, tail_weight=1)
    assert sse.tail.tolist() == imb.tail.tolist() == [False, False, True, True]
    for _ in range(4):
        step(sse, ours)
        step(imb, plain)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)


def test_the_stage_is_part_of_the_state() -> None:
    model = net()
    options = {"total_steps": 4, "gamma": 0.5}
    optimizer = SSESAM(torch.optim.SGD(model.parameters(), lr=0.1), COUNTS, **options)  # type: ignore[arg-type]
    assert [step(optimizer, model) for _ in range(3)] == [3, 3, 2]
    other = SSESAM(torch.optim.SGD(net().parameters(), lr=0.1), COUNTS, **options)  # type: ignore[arg-type]
    other.load_state_dict(optimizer.state_dict())
    assert other.steps == 3
    assert other.passes_per_step == 2
