"""The loop around a tiny network: what changes at each epoch, where it stops, how it goes on."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saddlescape.data.types import ArraySplit, Dataset, Preprocess
from saddlescape.errors import InputError
from saddlescape.records.config import Stage
from saddlescape.schedules import DeferredReweighting
from saddlescape.training.loop import fit
from saddlescape.training.objective import Objective
from saddlescape.training.parts import Parts, assemble, build_stage_optimizer, new_head, new_model
from saddlescape.training.precision import Precision
from saddlescape.training.running import Running

COUNTS = [20, 9, 4]
CPU = torch.device("cpu")


def dataset() -> Dataset:
    generator = torch.Generator().manual_seed(0)

    def split(counts: list[int]) -> ArraySplit:
        labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
        images = torch.randint(0, 256, (len(labels), 1, 8, 8), generator=generator, dtype=torch.uint8)
        return ArraySplit(images, labels)

    return Dataset(
        name="toy", train=split(COUNTS), test=split([3, 3, 3]), classes=["a", "b", "c"], class_counts=COUNTS,
        groups={"head": [0], "mid": [1], "tail": [2]}, draw_hash="0",
        preprocess=Preprocess(image_size=8, channels=1, mean=(0.5,), std=(0.25,)),
    )  # fmt: skip


DATA = dataset()
STAGE = Stage(epochs=3, batch_size=8, lr=0.05, lr_schedule="constant", augment="crop")


def build(model: nn.Module | None = None, data: Dataset = DATA, **changes: Any) -> Parts:
    stage = dataclasses.replace(STAGE, **changes)
    model = model if model is not None else new_model("smallcnn", data, stage.head, 0)
    return assemble(
        stage, data, model, device=CPU, precision=Precision("float32", "cpu"), eval_every=changes.get("epochs", 3)
    )


class Kept:
    """What ``save`` and ``record`` were told; a saved state is a deep copy."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.rows: list[dict[str, Any]] = []
        self.saved: list[tuple[int, Running | None]] = []
        self.states: list[Any] = []

    def save(self, epoch: int, running: Running | None) -> None:
        self.saved.append((epoch, copy.deepcopy(running)))
        self.states.append(copy.deepcopy((self.parts.model.state_dict(), self.parts.optimizer.state_dict())))

    def record(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


def train(parts: Parts, **kw: Any) -> Kept:
    kept = Kept(parts)
    fit(parts, save=kept.save, record=kept.record, **kw)
    return kept


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal_bits(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


def test_rows_hold_what_was_used_and_evaluation_comes_every_so_often() -> None:
    parts = build(epochs=5, optimizer="sam", rho=(0.1, 0.3), rho_schedule="linear")
    parts.eval_every = 2
    kept = train(parts)
    assert [row["epoch"] for row in kept.rows] == [0, 1, 2, 3, 4]
    assert [row["rho"] for row in kept.rows] == pytest.approx([0.1, 0.15, 0.2, 0.25, 0.3])
    assert [row["lr"] for row in kept.rows] == [0.05] * 5
    assert ["test" in row for row in kept.rows] == [False, True, False, True, True]
    assert [row["images"] for row in kept.rows] == [33] * 5
    assert kept.saved == [(epoch, None) for epoch in range(1, 6)]
    scores = kept.rows[-1]["test"]
    assert {"accuracy", "head", "mid", "tail", "per_class", "ece", "balanced_accuracy", "loss"} <= scores.keys()
    assert scores["head"] == scores["per_class"][0]


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_a_frozen_backbone_keeps_its_bits(mode: str, optimizer: str) -> None:
    model = new_model("smallcnn", DATA, "linear", 0)
    before = weights(model)
    rho = (0.1,) if optimizer == "sam" else ()
    train(build(model, trainable="head", backbone_mode=mode, optimizer=optimizer, rho=rho))
    after = weights(model)
    head = {name for name in before if name.startswith("linear.")}
    statistics = {name for name in before if "running" in name or "tracked" in name}
    for name in before:
        moves = name in head or (mode == "train" and name in statistics)
        assert torch.equal(before[name], after[name]) != moves, name


def test_saving_in_mid_epoch_whenever_asked_changes_no_bit() -> None:
    asked = iter(range(1, 100))
    kept = train(build(), should_save=lambda: next(asked) in (2, 4, 6))  # of 12 steps; the 4th ends an epoch
    at = [(epoch, 0 if running is None else running.batch) for epoch, running in kept.saved]
    assert at == [(0, 2), (1, 0), (1, 2), (2, 0), (3, 0)]
    whole, resumed = train(build()), build()
    resumed.model.load_state_dict(kept.states[2][0])
    resumed.optimizer.load_state_dict(kept.states[2][1])
    later = train(resumed, start_epoch=1, running=Running(**kept.saved[2][1].state()))  # type: ignore[union-attr]
    assert_equal_bits(weights(whole.parts.model), weights(kept.parts.model))
    assert_equal_bits(weights(whole.parts.model), weights(resumed.model))
    assert without_times(kept.rows[:1] + later.rows) == without_times(whole.rows)


def test_accumulated_micro_batches_equal_big_batches() -> None:
    """Without augmentation and norm layers the cut must not show; the last group of an epoch is a partial one."""

    class Plain(nn.Module):
        feature_dim = 64

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.flatten, self.head = nn.Flatten(), nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.flatten(x))

    common = {"augment": "none", "reweight": "always", "optimizer": "sam", "rho": (0.1,)}
    big, small = build(Plain(), batch_size=12, **common), build(Plain(), batch_size=4, accumulate=3, **common)
    rows = [train(parts).rows for parts in (big, small)]
    for name, tensor in big.model.state_dict().items():
        torch.testing.assert_close(small.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    for one, two in zip(*rows, strict=True):
        assert one["train_loss"] == pytest.approx(two["train_loss"], rel=1e-5)


def test_a_loss_that_is_not_finite_stops_with_one_line_and_nothing_is_saved_after() -> None:
    parts = build(optimizer="sam", rho=(0.1,), augment="none")
    calls = iter(range(1000))
    whole = parts.objective.__call__

    def spoiled(model: Any, batch: Any) -> Any:
        losses = whole(model, batch)
        return losses._replace(per_sample=losses.per_sample * float("nan")) if next(calls) >= 12 else losses

    parts.objective = Wrapped(parts.objective, spoiled)
    kept = Kept(parts)
    with pytest.raises(InputError) as caught:
        fit(parts, save=kept.save, record=kept.record)
    message = str(caught.value)
    assert "\n" not in message
    # Two passes a step and four steps an epoch: call 12 is the third step of the second epoch.
    assert "epoch 2, step 3" in message
    assert "rho 0.1" in message
    assert "learning rate 0.05" in message
    assert kept.saved == [(1, None)]
    assert len(kept.rows) == 1


class Wrapped(Objective):
    """An objective with ``call`` in the place of its forward."""

    def __init__(self, objective: Objective, call: Callable[..., Any]) -> None:
        super().__init__(objective.loss)
        self.call = call

    def forward(self, model: Any, batch: Any) -> Any:
        return self.call(model, batch)


def test_weights_spoiled_by_the_last_step_of_an_epoch_are_not_saved() -> None:
    """The loss of that step is still finite: it was computed before the weights moved."""
    parts = build(augment="none")

    class Spoil:
        def on_step(self, parts: Parts, epoch: int, running: Running) -> None:
            if epoch == 1 and running.batch == len(parts.loader):
                with torch.no_grad():
                    next(parts.model.parameters())[0] = float("inf")

        def on_epoch(self, parts: Parts, row: dict[str, Any]) -> None:
            assert row["epoch"] == 0

    kept = Kept(parts)
    with pytest.raises(InputError, match="the weights are no longer finite at epoch 2, step 4"):
        fit(parts, save=kept.save, record=kept.record, watchers=[Spoil()])
    assert kept.saved == [(1, None)]


def test_watchers_are_told_of_every_step_and_epoch_after_it_was_saved() -> None:
    parts, events = build(epochs=2), []

    class Watch:
        def on_step(self, parts: Parts, epoch: int, running: Running) -> None:
            events.append((epoch, running.batch, running.images))

        def on_epoch(self, parts: Parts, row: dict[str, Any]) -> None:
            events.append(("epoch", row["epoch"], len(kept.saved)))

    kept = Kept(parts)
    fit(parts, save=kept.save, record=kept.record, watchers=[Watch()])
    steps = [(1, 8), (2, 16), (3, 24), (4, 33)]
    assert events == [
        *((0, *step) for step in steps), ("epoch", 0, 1), *((1, *step) for step in steps), ("epoch", 1, 2),
    ]  # fmt: skip


def test_the_mean_loss_of_an_epoch_is_the_weighted_mean_over_its_images() -> None:
    """With the weights standing still the row must equal one pass over the whole training set."""
    parts = build(epochs=1, lr=1e-30, augment="none", reweight="always")
    model = copy.deepcopy(parts.model)
    (row,) = train(parts).rows
    model.train()
    total = mass = 0.0
    weight = DeferredReweighting(COUNTS, 0).weights(0).double()
    for batch in parts.loader.epoch(0):
        losses = nn.functional.cross_entropy(model(batch.inputs).detach().double(), batch.targets, reduction="none")
        total += float((weight[batch.targets] * losses).sum())
        mass += float(weight[batch.targets].sum())
    assert row["train_loss"] == pytest.approx(total / mass, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trainable": "neck"}, "trainable is 'neck'"),
        ({"backbone_mode": "off"}, "backbone_mode is 'off'"),
        ({"normalization": "mean"}, "normalization is 'mean'"),
        ({"reweight": "sometimes"}, "reweight is 'sometimes'"),
        ({"objective": "guess"}, "unknown objective 'guess'"),
        ({"rho": (0.1,), "optimizer": "sam", "rho_schedule": "linear"}, "needs two numbers"),
        ({"optimizer": "sma"}, "unknown optimiser 'sma'"),
        ({"loss": "cee"}, "unknown loss 'cee'"),
        ({"lr_schedule": "cosin"}, "did you mean cosine"),
    ],
)
def test_words_nobody_knows_are_refused_when_a_stage_is_built(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        build(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("optimizer", ["sgd", "sam", "asam", "momentum-sam", "pgd"])
def test_every_optimiser_trains_with_the_options_of_its_stage(optimizer: str) -> None:
    options = {"t_thr": 2.0} if optimizer == "pgd" else {}
    rho = () if optimizer == "sgd" else (0.1,)
    for clip in (0.0, 1.0):
        parts = build(epochs=1, optimizer=optimizer, rho=rho, optimizer_options=options, clip_grad_norm=clip)
        before = weights(parts.model)
        train(parts)
        assert not torch.equal(before["conv1.weight"], parts.model.state_dict()["conv1.weight"])


def test_clipping_without_sam_is_one_pass_of_the_base_optimiser() -> None:
    model = new_model("smallcnn", DATA, "linear", 0)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    assert build_stage_optimizer(STAGE, base, model) is base
    wrapped = build_stage_optimizer(dataclasses.replace(STAGE, clip_grad_norm=0.5), base, model)
    assert wrapped.passes_per_step == 1  # type: ignore[attr-defined]


def test_networks_and_heads_are_functions_of_the_seed() -> None:
    one, two = (new_model("smallcnn", DATA, "linear", seed) for seed in (3, 3))
    assert_equal_bits(weights(one), weights(two))
    assert not torch.equal(one.conv1.weight, new_model("smallcnn", DATA, "linear", 4).conv1.weight)
    torch.rand(5)
    assert torch.equal(new_head("cosine", one, 3, 7).weight, new_head("cosine", two, 3, 7).weight)
