"""From a word and a place to numbers: the published ones, flags and --set over them, own data with reasons."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from saddlescape.errors import InputError
from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.resolve import resolve
from saddlescape.methods.systems import SYSTEMS
from saddlescape.records.config import Stage
from saddlescape.schedules import lr_schedule
from saddlescape.training.epoch import _rho


def facts(dataset: str = "cifar10", counts: tuple[int, ...] = (5000, 500, 50), size: int = 32, **kw: Any) -> Facts:
    return Facts(dataset=dataset, class_counts=counts, image_size=size, augment="crop-flip", **kw)


def only(recipe: Recipe) -> Stage:
    assert len(recipe.stages) == 1
    return recipe.stages[0]


@pytest.mark.parametrize("epochs", [2, 3, 7, 20, 60, 90, 400])
def test_stretched_runs_start_reweighting_with_the_first_drop(epochs: int) -> None:
    stage = only(resolve("ce+drw", facts(), epochs=epochs))
    lr = lr_schedule(stage.lr_schedule, epochs, stage.lr)
    drop = next(epoch for epoch in range(1, epochs) if lr(epoch) < lr(epoch - 1))
    assert stage.epochs == epochs
    assert stage.reweight_start == drop
    if epochs == 20:
        assert drop == 16
    if epochs == 60:
        assert drop == 48


def test_a_start_beyond_the_end_is_said() -> None:
    late = [
        resolve("ce+drw", facts(), epochs=1),
        resolve("ce+drw", facts(), settings=["train.reweight_start=200"]),
        resolve("ce+drw", facts(), settings=["train.epochs=20"]),
    ]
    for recipe in late:
        assert sum("never begins" in note for note in recipe.notes) == 1
    assert not any("never begins" in note for note in resolve("ce+drw", facts()).notes)
    assert any("never begins" in note for note in resolve("ib", facts(), settings=["train.loss_start=900"]).notes)


def test_every_family_gets_the_numbers_of_its_kind() -> None:
    asam = resolve("ce+drw+asam", facts())
    assert only(asam).rho == (5.0,)
    assert any("10 times SAM's" in note for note in asam.notes)
    assert only(resolve("ce+msam", facts())).rho == (1.5,)
    assert only(resolve("ce+msam", facts())).optimizer == "momentum-sam"
    pgd = only(resolve("ce+drw+pgd", facts()))
    assert (pgd.optimizer, pgd.rho, pgd.optimizer_options) == ("pgd", (0.05,), {"t_thr": 100.0})
    unpublished = resolve("bs+sam", facts())
    assert any("no published value" in note for note in unpublished.notes)
    assert only(resolve("ce+rs", facts())).sampler == "effective-number"
    assert only(resolve("ce+rw", facts())).reweight == "always"
    ib = only(resolve("ib", facts()))
    assert (ib.early_loss, ib.loss_start, ib.lr_schedule) == ("ce", 100, "ib")


def test_flags_override_every_stage() -> None:
    flags = {"lr": 0.3, "rho": (0.25,), "weight_decay": 5e-4, "batch_size": 64, "augment": None}
    stage = only(resolve("ce+drw+sam", facts(), flags=flags))
    assert (stage.lr, stage.rho, stage.weight_decay, stage.batch_size) == (0.3, (0.25,), 5e-4, 64)
    assert stage.augment == "crop-flip"
    plain = only(resolve("ce+drw+sam", facts()))
    assert dataclasses.replace(stage, lr=0.1, rho=(0.5,), weight_decay=2e-4, batch_size=128) == plain
    with pytest.raises(InputError, match=r"--rho has no meaning for ce\+drw"):
        resolve("ce+drw", facts(), flags={"rho": (0.1,)})
    assert resolve("ce", facts(), model="resnet20").model == "resnet20"


def test_settings_reach_every_field() -> None:
    settings = [
        "train.momentum=0.95", "train.nesterov=true", "train.loss_options.max_margin=0.3",
        "train.rho=0.05, 0.1 0.5,0.6",
        "train.rho_schedule=step", "train.accumulate=4", "train.augment=none",
    ]  # fmt: skip
    stage = only(resolve("ldam+drw+sam", facts(), settings=settings))
    assert (stage.momentum, stage.nesterov, stage.accumulate, stage.augment) == (0.95, True, 4, "none")
    assert stage.loss_options == {"max_margin": 0.3, "scale": 30.0}
    assert stage.rho == (0.05, 0.1, 0.5, 0.6)
    rho = _rho(stage)
    assert [rho(epoch) for epoch in (4, 5, 159, 160, 179, 180)] == [0.05, 0.1, 0.1, 0.5, 0.5, 0.6]
    assert only(resolve("ce", facts(), flags={"lr": 0.3}, settings=["train.lr=0.4"])).lr == 0.4


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.momentum", "expected stage.field=value"),
        ("momentum=0.9", "expected stage.field=value"),
        ("head.momentum=0.9", "no stage 'head'; this method has train"),
        ("train.momentun=0.9", "no field 'momentun'"),
        ("train.epochs=many", "'many' is not a int"),
        ("train.epochs=1.5", "'1.5' is not a int"),
        ("train.nesterov=maybe", "'maybe' is not a bool"),
        ("train.lr.x=1", "lr is a single value, not a group"),
        ("train.rho=a,b", "is not a"),
        ("train.lr_factors.head=x", "'x' is not a float"),
    ],
)
def test_a_bad_setting_is_one_line(setting: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve("ce+sam", facts(), settings=[setting])
    assert said in str(caught.value)
    assert setting in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_epochs_is_refused() -> None:
    for epochs in (0, -3):
        with pytest.raises(InputError, match="at least one epoch"):
            resolve("ce", facts(), epochs=epochs)


@pytest.mark.parametrize(
    ("counts", "method", "why"),
    [
        ((100, 90), "ce", "nearly balanced"),
        ((500, 3), "plda", "imbalance 167"),
        ((500, 50, 10), "plda", "imbalance 50"),
    ],
)
def test_own_data_choose_their_method_with_a_reason(counts: tuple[int, ...], method: str, why: str) -> None:
    recipe = resolve(None, facts("photos", counts))
    assert recipe.method == method
    assert any(why in note and method in note for note in recipe.notes)


@pytest.mark.parametrize(
    ("size", "model"), [(8, "smallcnn"), (16, "smallcnn"), (32, "resnet32"), (64, "resnet32"), (224, "resnet18")]
)
def test_own_data_choose_their_network_by_the_size_of_images(size: int, model: str) -> None:
    recipe = resolve("ce", facts("photos", (100, 50), size))
    assert recipe.model == model
    assert any(model in note and f"{size} x {size}" in note for note in recipe.notes)


def test_own_data_get_about_sixteen_steps_an_epoch_and_lr_in_proportion() -> None:
    for images in (30, 300, 1000, 4000, 100_000):
        stage = only(resolve("ce+drw", facts("photos", (images // 2, images - images // 2))))
        assert stage.lr == pytest.approx(0.1 * stage.batch_size / 128)
        assert stage.batch_size == 16 or images >= 16 * stage.batch_size
        assert 10 <= stage.epochs <= 200
        assert 0 < stage.reweight_start < stage.epochs
        assert stage.freeze_bn_stats is True


def test_no_reason_is_given_for_what_the_person_decided() -> None:
    everything = resolve("ce", facts("photos", (100, 50)))
    assert len(everything.notes) == 4  # three reasons, and the line of loss, weights and sampler
    decided = resolve("ce", facts("photos", (100, 50)), epochs=7, flags={"lr": 0.2}, model="resnet20")
    assert decided.notes == ("stage 'train': loss ce; class weights none; sampler instance-balanced",)


def test_named_data_default_to_the_papers_method() -> None:
    assert resolve(None, facts("cifar10")).method == "ce+drw+sam"


def test_another_name_begins_without_the_options_of_the_one_before() -> None:
    order = ["train.loss_options.tau=2", "train.loss=la"]
    for settings in (order, order[::-1]):
        (stage,) = resolve("ldam+drw", facts(), settings=settings).stages
        assert (stage.loss, stage.loss_options) == ("la", {"tau": 2.0})
    (same,) = resolve("ldam+drw", facts(), settings=["train.loss=ldam"]).stages
    assert same == resolve("ldam+drw", facts()).stages[0]


@pytest.mark.parametrize(
    ("method", "settings", "named"),
    [
        ("la+rs", (), ("logit adjustment (loss la)", "sampler effective-number")),
        ("vs", ("train.sampler=class-aware",), ("vector scaling (loss vs)", "sampler class-aware")),
        ("bs+rs", (), ("balanced softmax (loss bs)", "sampler effective-number")),
        ("ce+drw", ("train.sampler=class-aware",), ("class weights (reweight drw)", "sampler class-aware")),
        ("la+drw", (), ("logit adjustment (loss la)", "class weights (reweight drw)")),
        ("crt", ("classifier.loss=la",), ("logit adjustment (loss la)", "sampler class-aware")),
    ],
)
def test_two_corrections_run_with_a_warning_that_names_both(
    method: str, settings: tuple[str, ...], named: tuple[str, ...]
) -> None:
    (warning,) = [note for note in resolve(method, facts(), settings=settings).notes if note.startswith("warning:")]
    assert all(words in warning for words in named)


@pytest.mark.parametrize("method", ["ce", "ce+drw+sam", "ldam+drw", "vs+sam", "ce+rs", "ib", *SYSTEMS])
def test_published_methods_correct_once_and_say_loss_weights_and_sampler_on_a_line(method: str) -> None:
    recipe = resolve(method, facts())
    assert not [note for note in recipe.notes if note.startswith("warning:")]
    for stage in recipe.stages:
        lines = [note for note in recipe.notes if note.startswith(f"stage {stage.name!r}: loss ")]
        assert len(lines) == (0 if stage.head_fit else 1)
        assert all("class weights" in line and f"sampler {stage.sampler}" in line for line in lines)


def test_sam_that_never_begins_is_said() -> None:
    notes = resolve("ce+sam", facts(), settings=["train.rho_start=200"]).notes
    assert "SAM starts at epoch 200 but the run ends after 200 epochs: it never begins" in notes
    assert any("ends after 1 epoch:" in note for note in resolve("ce+drw", facts(), epochs=1).notes)


def test_a_method_without_a_radius_keeps_the_schedule_of_former_runs() -> None:
    """So that their folders can be resumed."""
    assert resolve("ce", facts()).stages[0].rho_schedule == "constant"
