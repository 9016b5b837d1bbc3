"""The benchmark of the SAM family: each optimiser makes the passes it is timed for, and its JSON is whole."""

from __future__ import annotations

import json
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from saddlescape.optim import registry

SCRIPT = "sam_family"
# Images forward through the body in a step on a batch of 16, of which PartialSAM sees a quarter twice.
IMAGES = {
    "sgd": 16, "sam": 32, "asam": 32, "sam-on": 32, "momentum-sam": 16,
    "imbsam": 32, "focal-sam": 32, "sse-sam": 48, "partial-sam": 20, "cc-sam": 16,
}  # fmt: skip


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return self.head(self.norm(x).mean(dim=(2, 3)))


def test_every_wrapper_but_the_one_for_balls_is_timed(script: types.ModuleType) -> None:
    assert set(script.OPTIMIZERS) == set(IMAGES) == set(registry.OPTIMIZERS) - {"pgd"}


@pytest.mark.parametrize("name", IMAGES)
def test_a_step_makes_the_passes_it_is_timed_for(script: types.ModuleType, name: str) -> None:
    torch.manual_seed(0)
    network = Small()
    images, _ = script.long_tailed_batch(16, 4, torch.device("cpu"))
    labels = torch.tensor([0] * 8 + [1] * 4 + [8, 8, 9, 9])  # four of the tail: a quarter of the batch
    step = script.stepper(name, network, images, labels)
    before = [p.detach().clone() for p in network.parameters()]
    loss = step()
    assert network.seen == IMAGES[name]
    assert torch.isfinite(loss)
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_the_json_tells_where_it_was_taken_and_every_row(script: types.ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "sam_family.json"
    argv = ["--model", "smallcnn", "--batch", "4", "--pixels", "8", "--steps", "1", "--warm-up", "1", "--threads", "1"]
    assert script.main([*argv, "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert [row["name"] for row in result["rows"]] == [f"{name} step, in sgd steps" for name in IMAGES]
    for name, row in zip(IMAGES, result["rows"], strict=True):
        assert row["value"] == pytest.approx(result["timings"][name]["median_s"] / result["timings"]["sgd"]["median_s"])
