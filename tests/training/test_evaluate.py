"""Scoring a network: the mode it leaves, and the scale that LDAM's cosines need before they are probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from saddlescape.data.types import Batch
from saddlescape.losses import CrossEntropyLoss, LDAMLoss
from saddlescape.models import CosineHead
from saddlescape.training.evaluate import evaluate
from saddlescape.training.precision import Precision

GROUPS = {"head": [0], "mid": [1], "tail": [2]}


def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(30, 5, generator=generator)
    targets = torch.randint(0, 3, (30,), generator=generator)
    return [Batch(inputs[i : i + 12], targets[i : i + 12], torch.arange(30)[i : i + 12]) for i in range(0, 30, 12)]


@pytest.mark.parametrize(("loss", "scale"), [(LDAMLoss([9, 5, 2], scale=30.0), 30.0), (CrossEntropyLoss(3), 1.0)])
def test_loss_and_calibration_are_of_the_logits_that_were_trained(loss: nn.Module, scale: float) -> None:
    model = CosineHead(5, 3)
    assert loss.logit_scale == scale
    scores = evaluate(model, batches(), 3, GROUPS, Precision("float32", "cpu"), logit_scale=loss.logit_scale)
    inputs, targets = (torch.cat(parts) for parts in zip(*[(b.inputs, b.targets) for b in batches()], strict=True))
    logits = (scale * model(inputs).double()).detach()
    expected = nn.functional.cross_entropy(logits, targets)
    assert scores.loss == pytest.approx(float(expected), rel=1e-5)
    assert scores.accuracy == pytest.approx(100 * np.mean((logits.argmax(1) == targets).numpy()))


def test_adjustment_comes_after_the_scale() -> None:
    model = CosineHead(5, 3)
    seen: list[float] = []

    def adjust(logits: torch.Tensor) -> torch.Tensor:
        seen.append(float(logits.abs().max()))
        return logits

    evaluate(model, batches(), 3, GROUPS, Precision("float32", "cpu"), adjust, logit_scale=30.0)
    assert max(seen) > 1


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_left_as_it_was(training: bool) -> None:
    model = CosineHead(5, 3).train(training)
    evaluate(model, batches(), 3, GROUPS, Precision("float32", "cpu"))
    assert model.training is training
