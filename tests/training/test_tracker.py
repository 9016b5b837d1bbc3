"""Curvature followed live: training goes on to the same bits, and what is due is measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from saddlescape.curvature import CurvatureTracker, TrackPoint
from saddlescape.data.types import ArraySplit, Dataset, Preprocess
from saddlescape.records.config import Stage
from saddlescape.training.loop import fit
from saddlescape.training.parts import assemble, new_model
from saddlescape.training.precision import Precision
from saddlescape.training.tracker import CurvatureWatcher

COUNTS = [12, 5, 3]


def dataset() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
    images = torch.randint(0, 256, (len(labels), 1, 8, 8), generator=generator, dtype=torch.uint8)
    split = ArraySplit(images, labels)
    return Dataset(
        name="toy", train=split, test=split, classes=["a", "b", "c"], class_counts=COUNTS,
        groups={"head": [0], "mid": [1], "tail": [2]}, draw_hash="0",
        preprocess=Preprocess(image_size=8, channels=1, mean=(0.5,), std=(0.25,)),
    )  # fmt: skip


DATA = dataset()
INPUTS = DATA.preprocess.normalize(DATA.train.images)  # type: ignore[union-attr]


def trained(stage: Stage, watchers: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any], torch.Tensor, list[float]]:
    """Weights, optimiser state, global random state and training losses at the end."""
    model = new_model("smallcnn", DATA, stage.head, 0)
    parts = assemble(stage, DATA, model, device=torch.device("cpu"), precision=Precision("float32", "cpu"), seed=3)
    torch.manual_seed(5)
    losses: list[float] = []
    fit(
        parts, save=lambda epoch, running: None, record=lambda row: losses.append(row["train_loss"]), watchers=watchers
    )  # fmt: skip
    return model.state_dict(), parts.optimizer.state_dict(), torch.get_rng_state(), losses


@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_training_goes_on_to_the_same_bits(optimizer: str) -> None:
    stage = Stage(
        epochs=3, batch_size=8, lr=0.05, lr_schedule="constant", augment="crop", optimizer=optimizer,
        rho=() if optimizer == "sgd" else (0.1,),
    )  # fmt: skip
    tracker = CurvatureTracker(nn.CrossEntropyLoss(), (INPUTS, DATA.train.labels), products=4)
    seen: list[list[TrackPoint]] = []
    told: list[str] = []
    watcher = CurvatureWatcher(tracker, 2, lambda parts, row, points: seen.append(points), told.append)
    weights, state, random, losses = trained(stage, [watcher])
    bare_weights, bare_state, bare_random, bare_losses = trained(stage, [])
    assert all(torch.equal(weights[name], bare_weights[name]) for name in bare_weights)
    assert losses == bare_losses
    assert torch.equal(random, bare_random)
    for key, value in bare_state["state"].items():
        for name, tensor in value.items():
            assert not isinstance(tensor, torch.Tensor) or torch.equal(tensor, state["state"][key][name])
    assert [points[0].epoch for points in seen] == [1, 2, 3]  # the first, every second, the last
    assert [point.label for point in seen[-1]] == [0, 1, 2]
    assert len(told) == 1
    assert f"{100 * watcher.share:.0f} %" in told[0]
    assert 0 < watcher.share < 1


def test_when_it_is_due() -> None:
    watcher = CurvatureWatcher(lambda model, epoch, force=False: [], 10, lambda parts, row, points: None)
    assert [done for done in range(1, 36) if watcher.is_due(done, 35)] == [1, 10, 20, 30, 35]


def test_share_counts_only_what_was_seen() -> None:
    watcher = CurvatureWatcher(lambda model, epoch, force=False: [], 1, lambda parts, row, points: None)
    assert watcher.share == 0
    watcher.seconds, watcher.training_seconds = 1.0, 3.0
    assert watcher.share == 0.25
