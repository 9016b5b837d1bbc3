"""What a stage means at an epoch: the same for training, curvature and escape, whatever value each field has."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import numpy as np
import pytest
import torch

from saddlescape.data import class_counts, load
from saddlescape.losses.registry import LOSSES
from saddlescape.measure import escape
from saddlescape.measure.subject import training_loss
from saddlescape.records.config import DataConfig, RunConfig, Stage
from saddlescape.records.milestones import beginnings
from saddlescape.report.read import RunData
from saddlescape.runs.config import from_toml, to_toml
from saddlescape.schedules import LR_SCHEDULES
from saddlescape.training.checkpoint import Cursor
from saddlescape.training.epoch import at, total_work
from saddlescape.training.loop import set_epoch
from saddlescape.training.parts import assemble, new_model
from saddlescape.training.precision import Precision

COUNTS = class_counts(10, 120, 20)
EPOCHS = 10
OPTIONS: dict[str, dict[str, float | str]] = {"las": {"smooth_head": 0.3, "smooth_tail": 0.0}}
OWN = {"ce": "weights", "ldam": "weights", "vs": "weights", "la": "weights", "bs": "weights", "las": "weights",
       "focal": "samples", "ib": "samples"}  # as each one's authors divide a weighted sum  # fmt: skip


def choices(field: str) -> tuple[str, ...]:
    words = typing.get_type_hints(Stage, include_extras=True)[field].__metadata__[0].extra["words"]
    assert len(words) > 1
    return tuple(words)


def stage_of(**changes: Any) -> Stage:
    return Stage(epochs=EPOCHS, batch_size=16, **changes)


def expected_weights(reweight: str, epoch: int) -> np.ndarray | None:
    """Cui et al.'s effective numbers from epoch 4 on (drw) or from the start (always), or n^-1.2, each summing to C."""
    counts = np.array(COUNTS, dtype=np.float64)
    if reweight == "none":
        return None
    if reweight == "power":
        raw = counts**-1.2
    elif reweight == "always" or epoch >= 4:
        raw = (1 - 0.9999) / (1 - 0.9999**counts)
    else:
        raw = np.ones(len(counts))
    return raw * len(counts) / raw.sum()


@pytest.fixture(scope="module")
def digits() -> Any:
    dataset = load("digits", imbalance=20.0)
    assert dataset.class_counts == COUNTS
    return dataset


def trained_with(stage: Stage, digits: Any, epoch: int) -> Any:
    """The loss that the training loop uses in ``epoch``."""
    model = new_model("smallcnn", digits, "linear", 0)
    parts = assemble(stage, digits, model, device=torch.device("cpu"), precision=Precision("float32", "cpu"))
    set_epoch(parts, epoch)
    return parts.objective.loss


def curved_with(stage: Stage, epoch: int) -> Any:
    """The loss of ``curvature --loss train`` at the checkpoint after ``epoch``."""
    config = RunConfig(method="ce", model="smallcnn", seed=0, data=DataConfig(name="digits"), stages=(stage,))
    again = from_toml(to_toml(config))
    return training_loss(again, Cursor(0, epoch + 1), COUNTS)


def escaped_with(stage: Stage, epoch: int) -> Any:
    """The loss of every arm of ``escape`` in its last epoch, from the checkpoint after ``epoch``."""
    arm = escape.stage_for(escape.parse_arm("sam@0.1"), stage, 3, 0.01, 7)
    held = escape.held_setting(stage, epoch, COUNTS, arm)
    now = held(2)
    assert (now.lr, now.rho, now.epoch, now.epochs) == (0.01, 0.1, epoch, EPOCHS)
    return now.loss


def check(stage: Stage, digits: Any, epoch: int, loss: str) -> None:
    consumers = [trained_with(stage, digits, epoch), escaped_with(stage, epoch)]
    if loss != "ib":  # its Hessian is not built
        consumers.append(curved_with(stage, epoch))
    wanted = expected_weights(stage.reweight, epoch)
    if wanted is None and loss == "ib":  # which brings weights of its own
        wanted = (1 / np.array(COUNTS)) * len(COUNTS) / (1 / np.array(COUNTS)).sum()
    for found in consumers:
        assert type(found) is LOSSES[loss]
        assert found.normalization == (stage.normalization or OWN[loss])
        if wanted is None:
            assert found.weight is None
        else:
            np.testing.assert_allclose(found.weight.numpy(), wanted, rtol=1e-5)


@pytest.mark.parametrize("reweight", choices("reweight"))
@pytest.mark.parametrize("normalization", choices("normalization"))
@pytest.mark.parametrize("epoch", [0, 3, 4, 9])
def test_class_weights_and_their_mean_are_the_same_for_all(
    reweight: str, normalization: str, epoch: int, digits: Any
) -> None:
    stage = stage_of(reweight=reweight, reweight_start=4, power=1.2, normalization=normalization, loss="focal")
    check(stage, digits, epoch, "focal")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("epoch", [1, 4])
def test_each_loss_and_the_one_before_it_are_the_same_for_all(loss: str, epoch: int, digits: Any) -> None:
    stage = stage_of(loss=loss, loss_options=OPTIONS.get(loss, {}), reweight="drw", reweight_start=4)
    check(stage, digits, epoch, loss)
    later = dataclasses.replace(stage, early_loss="ce", loss_start=3, reweight="none")
    check(later, digits, epoch, "ce" if epoch < 3 else loss)


@pytest.mark.parametrize("schedule", LR_SCHEDULES)
@pytest.mark.parametrize(
    ("rho_schedule", "rho"),
    [("constant", (0.1,)), ("linear", (0.0, 0.9)), ("step", (0.1, 0.2)), ("step", (0.1, 0.2, 0.3, 0.4)),
     ("large-scale-step", (0.1, 0.2, 0.3, 0.4))],
)  # fmt: skip
def test_rate_and_radius_of_the_loop_are_those_of_the_setting(
    schedule: str, rho_schedule: str, rho: tuple[float, ...], digits: Any
) -> None:
    stage = stage_of(optimizer="sam", rho=rho, rho_schedule=rho_schedule, lr_schedule=schedule, rho_start=2)
    model = new_model("smallcnn", digits, "linear", 0)
    parts = assemble(stage, digits, model, device=torch.device("cpu"), precision=Precision("float32", "cpu"))
    for epoch in range(EPOCHS):
        now = at(stage, COUNTS, epoch)
        assert set_epoch(parts, epoch) == (now.lr, now.rho)
        assert {(group["lr"], group["rho"]) for group in parts.optimizer.param_groups} == {(now.lr, now.rho)}
    assert at(stage, COUNTS, 1).rho == 0
    assert at(stage, COUNTS, 9).rho == pytest.approx(rho[-1])


@pytest.mark.parametrize("reweight", choices("reweight"))
@pytest.mark.parametrize("early", ["", "ce"])
@pytest.mark.parametrize("rho_start", [0, 7])
def test_marks_stand_where_the_setting_changes(reweight: str, early: str, rho_start: int, tmp_path: Any) -> None:
    """Every mark of a report is an epoch in which loss, weights or radius are others than in the epoch before."""
    stage = stage_of(reweight=reweight, reweight_start=4, early_loss=early, loss_start=5 if early else 0, loss="focal",
                     optimizer="sam", rho=(0.1,), rho_start=rho_start)  # fmt: skip
    seen = [at(stage, COUNTS, epoch) for epoch in range(EPOCHS)]

    def differ(a: Any, b: Any) -> bool:
        same = a.weights is b.weights is None or torch.equal(a.weights, b.weights)
        return type(a.loss) is not type(b.loss) or a.rho != b.rho or not same

    changes = [epoch for epoch in range(1, EPOCHS) if differ(seen[epoch - 1], seen[epoch])]
    assert [epoch for epoch, _ in beginnings(stage)] == changes
    config = RunConfig(method="focal", model="smallcnn", seed=0, data=DataConfig(name="digits"), stages=(stage,))
    run = RunData(path=tmp_path, name="run", plan=config)
    assert [epoch for epoch, _ in run.marks] == changes


def test_a_normalisation_that_older_files_name_is_the_loss_s_own_unless_it_was_another() -> None:
    def through_a_file(**changes: Any) -> str:
        config = RunConfig(method="x", model="smallcnn", seed=0, data=DataConfig(name="digits"),
                           stages=(stage_of(**changes),))  # fmt: skip
        return from_toml(to_toml(config)).stages[0].normalization

    assert through_a_file(normalization="weights", loss="ldam") == ""
    assert through_a_file(normalization="weights", loss="focal") == "weights"  # what that run was trained with
    assert through_a_file(normalization="weights", loss="ib", early_loss="ce") == "weights"
    assert through_a_file(normalization="samples", loss="ce") == "samples"


def test_curvature_counts_weights_as_training_does() -> None:
    """By hand: the mean of weighted focal losses over images that are not all of one class, divided by N."""
    stage = stage_of(loss="focal", reweight="power", power=1.2)
    loss = curved_with(stage, 5)
    torch.manual_seed(0)
    logits, targets = torch.randn(7, 10, dtype=torch.float64), torch.tensor([0, 0, 3, 4, 4, 9, 1])
    weights = torch.as_tensor(expected_weights("power", 5))[targets]
    ce = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    by_hand = (weights * (1 - (-ce).exp()) * ce).sum() / 7
    torch.testing.assert_close(loss(logits, targets), by_hand, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 10), ({"optimizer": "sam", "rho": (0.1,)}, 20), ({"optimizer": "sam", "rho": (0.1,), "rho_start": 6}, 14),
        ({"optimizer": "partial-sam", "optimizer_options": {"share": 0.5}, "rho": (0.1,)}, 15),
        ({"optimizer": "momentum-sam", "rho": (0.1,)}, 10), ({"optimizer": "imbsam", "rho": (0.1,)}, 80 / 3),
        ({"views": ("crop", "crop")}, 30), ({"views": ("crop",), "partner": "class-balanced"}, 40),
        ({"trainable": "head"}, 10 / 3), ({"sampler_options": {"num_samples": sum(COUNTS) / 2}}, 5),
    ],
)  # fmt: skip
def test_work_counts_passes_over_the_training_set(changes: dict[str, Any], expected: float) -> None:
    assert total_work([stage_of(**changes)], sum(COUNTS)) == pytest.approx(expected)
    fitted = Stage(epochs=1, head_fit="plda")
    assert total_work([stage_of(**changes), fitted], sum(COUNTS)) == pytest.approx(expected + 1 / 3)
