"""Named systems: what their stages say, published numbers, and what can be added to them."""

from __future__ import annotations

from typing import Any

import pytest

from saddlescape.errors import InputError
from saddlescape.losses.registry import LOSSES
from saddlescape.methods.recipe import Facts
from saddlescape.methods.resolve import canonical, read, resolve
from saddlescape.methods.rows import listing
from saddlescape.methods.systems import SYSTEMS, ours
from saddlescape.models.heads import HEADS
from saddlescape.published import system_recipe, systems
from saddlescape.records.config import Stage
from saddlescape.schedules import lr_schedule
from saddlescape.training.objectives import OBJECTIVES

COUNTS = {
    "cifar10": (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50),
    "cifar100": tuple(int(500 * 0.01 ** (c / 99)) for c in range(100)),
    "digits": (140, 90, 60, 38, 25, 16, 10, 7, 4, 3),
    "imagenet-lt": (1280, 100, 5),
    "inat2018": (1000, 100, 2),
    "own": (400, 100, 20),
}


def facts(dataset: str = "cifar10", counts: tuple[int, ...] | None = None) -> Facts:
    size = {"digits": 8, "imagenet-lt": 224, "inat2018": 224}.get(dataset, 32)
    return Facts(dataset=dataset, class_counts=counts or COUNTS[dataset], image_size=size, augment="crop-flip")


def stages(method: str, dataset: str = "cifar10", **kw: Any) -> tuple[Stage, ...]:
    counts = kw.pop("counts", None)
    return resolve(method, facts(dataset, counts), **kw).stages


@pytest.mark.parametrize("dataset", COUNTS)
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_has_stages_on_every_data_set(name: str, dataset: str) -> None:
    recipe = resolve(name, facts(dataset))
    assert recipe.method == name == canonical(name.upper())
    names = [stage.name for stage in recipe.stages]
    assert len(set(names)) == len(names)
    for number, stage in enumerate(recipe.stages):
        assert stage.head in HEADS and stage.loss in LOSSES and stage.objective in OBJECTIVES
        assert stage.epochs >= 1
        lr_schedule(stage.lr_schedule, stage.epochs, stage.lr)(0)
        assert not (number and stage.trainable == "all"), "a later stage that trains everything"
        objective: Any = OBJECTIVES[stage.objective]
        assert len(stage.views) >= getattr(objective, "views_needed", 0)


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "ours"])  # which has other stages then
def test_all_lengths_stretch_with_the_first_stage(name: str) -> None:
    whole, short = stages(name), stages(name, epochs=20)
    assert [stage.epochs for stage in short] == [
        20 if number == 0 else 1 if stage.head_fit else max(1, round(stage.epochs / 10))
        for number, stage in enumerate(whole)
    ]
    assert short[0].rho_start == whole[0].rho_start // 10


def test_the_words_are_listed_with_their_sources() -> None:
    lines = {line.name: line for line in listing() if line.kind == "system"}
    assert list(lines) == list(SYSTEMS)
    assert all(line.text and line.source for line in lines.values())
    assert set(systems()) == set(SYSTEMS)


# What can be added.


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "cc-sam"])
def test_an_optimiser_is_for_the_first_stage(name: str) -> None:
    built = stages(f"{name}+sam")
    assert built[0].optimizer == "sam" and built[0].rho
    assert [stage.optimizer for stage in built[1:]] == ["sgd"] * (len(built) - 1)
    assert resolve(f"sam+{name}", facts()).method == f"{name}+sam"


def test_which_first_stages_a_system_takes() -> None:
    for name, system in SYSTEMS.items():
        if system.any_sum:
            assert read(f"{name}+vs+drw+sam")[1].row == "vs+drw"
        else:
            with pytest.raises(InputError, match=f"{name} has a first stage of its own; only an optimiser"):
                read(f"{name}+vs")
    with pytest.raises(InputError, match="both systems; name one"):
        read("crt+lws")
    with pytest.raises(InputError, match="did you mean the system 'mislas'"):
        read("mislass")
    with pytest.raises(InputError, match="cc-sam brings its own optimiser: leave sam out"):
        stages("cc-sam+sam")
    first, second = stages("crt+ldam+drw")
    assert (first.head, first.loss, second.head, second.loss) == ("cosine", "ldam", "linear", "ce")


# What can be changed in them; their numbers are held in test_recipes.py.


def test_published_variants_are_settings() -> None:
    assert stages("disalign", settings=["classifier.head=disalign-cvpods"])[1].head == "disalign-cvpods"
    dro_lt = stages("dro-lt", settings=["representation.objective_options.form=code"])
    assert dro_lt[1].objective_options["form"] == "code"
    assert resolve("glmc", facts()).model == "resnet32-wide"
    assert resolve("glmc", facts(), model="resnet34-cifar").model == "resnet34-cifar"
    rates = lr_schedule(stages("proco")[0].lr_schedule, 200, 0.3)
    assert [rates(t) for t in (0, 4, 159, 160, 180)] == pytest.approx([0.06, 0.3, 0.3, 0.03, 0.003])


def test_ours_and_each_of_its_terms() -> None:
    recipe = resolve("ours", facts())
    stage, last = recipe.stages
    assert recipe.model == "resnet32"
    assert (stage.loss, stage.augment, stage.objective, stage.objective_options, stage.lr_schedule) == (
        "la", "autoaugment-cutout", "mixup", {"alpha": 1.0}, "cosine",
    )  # fmt: skip
    assert (stage.optimizer, stage.optimizer_options, stage.rho_start, stage.epochs) == (
        "partial-sam", {"share": 0.25}, 0, 200,
    )  # fmt: skip
    assert (last.head, last.head_fit, last.head_fit_options, last.epochs) == ("plda", "plda", {"shrinkage": 0.1}, 1)
    assert any("our own recipe" in note for note in recipe.notes)
    assert stages("ours+sam")[0].optimizer == "sam"
    terms = [
        "train.loss=ce", "train.augment=crop-flip", "train.optimizer=sgd", "train.rho_start=100",
        "train.optimizer_options.class_aware=0", "train.objective=contrastive", "train.head=contrastive",
        "train.objective_options.kind=proco", "train.views=simclr,simclr",
    ]  # fmt: skip
    for term in (*terms, "train.objective=classify"):
        assert f"--set {term}" in str(ours.__doc__)
    plain = stages("ours", settings=["train.objective=classify"])[0]
    assert (plain.objective, plain.objective_options) == ("classify", {})
    changed = stages("ours", settings=terms)[0]
    assert changed.views == ("simclr", "simclr") and changed.objective_options == {"kind": "proco"}


def test_terms_of_ours_depend_on_its_length() -> None:
    (short,), long = stages("ours", budget=40), stages("ours", epochs=200)
    assert (short.epochs, short.objective, short.optimizer, short.lr_schedule) == (40, "classify", "sgd", "linear")
    few = stages("ours", "own", epochs=40)[0]  # batch and rate stay what follows from a person's own images
    assert (few.lr_schedule, few.batch_size, few.lr) == ("linear", 32, 0.025) and short.batch_size == 64
    assert short.nesterov and short.loss == "la" and stages("ours", epochs=40) == (short,)
    assert (long[0].objective, long[0].optimizer, long[1].head_fit) == ("mixup", "partial-sam", "plda")
    assert [stage.name for stage in stages("ours", "digits", epochs=10)] == [stage.name for stage in long]


@pytest.mark.parametrize(
    ("method", "expected"),
    [("ce+drw", [40]), ("ce+drw+sam", [20]), ("ce+drw+latesam", [32]), ("proco", [13]), ("mislas", [39, 2])],
)
def test_a_budget_is_stretched_to(method: str, expected: list[int]) -> None:
    recipe = resolve(method, facts(), budget=40)
    assert [stage.epochs for stage in recipe.stages] == expected
    assert any(note.startswith("budget 40: ") for note in recipe.notes)
    with pytest.raises(InputError, match="leave one of them out"):
        resolve(method, facts(), budget=40, epochs=20)


def test_numbers_of_a_data_set_and_its_imbalance_lie_over_the_defaults() -> None:
    assert system_recipe("glmc", "digits", 100)["consistency"] == 4
    assert system_recipe("glmc", "cifar10", 100.4)["consistency"] == 1
    assert system_recipe("glmc", "cifar10", 10)["consistency"] == 2
    assert system_recipe("glmc", "imagenet-lt", 256)["first"] == {
        "lr": 0.1, "lr_schedule": "cosine", "weight_decay": 2e-4, "batch_size": 120, "rho": [0.05], "epochs": 135,
        "augment": "simclr",
    }  # fmt: skip
