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


@pytest.mark.parametrize("name", SYSTEMS)
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


# Published numbers, as the authors' public code has them; test_recipes.py names the repositories.


def test_decoupled() -> None:
    _, crt = stages("crt", "imagenet-lt")
    assert (crt.epochs, crt.lr, crt.lr_schedule, crt.batch_size) == (10, 0.1, "cosine", 256)  # 0.2 at batch 512
    assert (crt.reset_head, crt.trainable, crt.sampler, crt.sampler_options) == (True, "head", "class-aware", {"k": 4})
    assert stages("crt", "inat2018")[1].epochs == 30
    _, lws = stages("lws", "imagenet-lt")
    assert (lws.epochs, lws.head, lws.trainable, lws.reset_head) == (5, "lws", "head.scale", False)
    for name in ("tau-norm", "ncm", "plda"):
        assert stages(name)[1].head == stages(name)[1].head_fit == name
        assert stages(name)[1].trainable == "none"
    assert stages("ncm")[1].head_fit_options == {"mode": "cl2n"}
    assert stages("plda")[1].head_fit_options == {"shrinkage": 0.1}


@pytest.mark.parametrize(
    ("dataset", "imbalance", "smooth", "factor", "shifted"),
    [
        ("cifar10", 100, (0.3, 0.0), 0.5, False),
        ("cifar10", 50, (0.2, 0.0), 0.2, False),
        ("cifar10", 10, (0.1, 0.0), 0.2, False),
        ("cifar100", 100, (0.4, 0.1), 0.2, True),
        ("cifar100", 50, (0.3, 0.0), 0.1, True),
        ("cifar100", 10, (0.2, 0.0), 0.1, True),
        ("imagenet-lt", 256, (0.3, 0.0), 0.05, True),
        ("inat2018", 500, (0.3, 0.0), 0.05, True),
    ],
)
def test_mislas(dataset: str, imbalance: int, smooth: tuple[float, float], factor: float, shifted: bool) -> None:
    counts = (imbalance * 5, imbalance, 5)
    first, second = stages("mislas", dataset, counts=counts)
    small = dataset.startswith("cifar")
    assert first.objective == "mixup" and first.objective_options == {"alpha": 1.0 if small else 0.2}
    assert first.lr_schedule == ("mislas" if small else "cosine")
    assert (first.epochs, first.lr, first.batch_size) == (
        180 if dataset == "imagenet-lt" else 200,
        0.1,
        second.batch_size,
    )
    assert (second.epochs, second.lr, second.loss, second.head) == (10, 0.1, "las", "lws")
    assert (second.loss_options["smooth_head"], second.loss_options["smooth_tail"]) == smooth
    assert second.lr_factors == {"head.linear": factor}
    assert second.backbone_mode == ("train" if shifted else "eval")
    assert second.weight_decay == first.weight_decay
    assert not second.reset_head


def test_disalign() -> None:
    second = stages("disalign", "imagenet-lt")[1]
    assert (second.epochs, second.lr, second.batch_size, second.weight_decay) == (10, 0.1, 256, 5e-4)
    assert (second.reweight, second.power, second.sampler) == ("power", 1.2, "instance-balanced")
    assert (second.head, second.trainable) == ("disalign", "head.alpha,head.beta,head.confidence")
    released = stages("disalign", settings=["classifier.head=disalign-cvpods"])[1]
    assert released.head == "disalign-cvpods"


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_dro_lt(dataset: str) -> None:
    first, representation, last = stages("dro-lt", dataset)
    assert [stage.epochs for stage in (first, representation, last)] == [200, 80, 20]
    assert {stage.weight_decay for stage in (first, representation, last)} == {1e-4}
    assert {stage.augment for stage in (first, representation, last)} == {"autoaugment-cutout"}
    assert (representation.lr, last.lr) == (0.005, 0.01)
    assert {representation.lr_schedule, last.lr_schedule} == {"constant"}
    assert representation.objective == "dro-lt"
    assert representation.objective_options == {"temperature": 1.0, "form": "paper"}
    assert (representation.reweight, representation.power) == ("power", -1.0)
    assert (representation.trainable, representation.backbone_mode) == ("backbone", "train")
    assert (last.objective, last.trainable, last.backbone_mode, last.reset_head) == ("classify", "head", "eval", False)
    for stage in (representation, last):
        assert stage.sampler_options == {"k": 4, "num_samples": max(COUNTS[dataset]) * len(COUNTS[dataset])}
    assert (
        stages("dro-lt", settings=["representation.objective_options.form=code"])[1].objective_options["form"] == "code"
    )


@pytest.mark.parametrize(("dataset", "phi", "cap"), [("cifar10", 0.3, 1.0), ("cifar100", 0.5, 0.3)])
def test_cc_sam(dataset: str, phi: float, cap: float) -> None:
    first, second = stages("cc-sam", dataset)
    assert (first.optimizer, first.rho, first.optimizer_options) == ("cc-sam", (1e-6,), {"phi": phi})
    assert (first.objective, first.objective_options) == ("mixup", {"alpha": 1.0})
    assert (first.epochs, first.batch_size, first.lr, first.lr_schedule) == (200, 64, 0.1, "mislas")
    assert (second.epochs, second.lr, second.lr_schedule, second.optimizer) == (30, 0.01, "constant", "sgd")
    assert (second.objective, second.objective_options) == ("adversarial-features", {"cap": cap})
    assert (second.sampler, second.trainable, second.reset_head) == ("class-aware", "head", False)


@pytest.mark.parametrize(
    ("dataset", "imbalance", "r", "k", "eta"),
    [
        ("cifar10", 100, 0.0, 1.2, 1),
        ("cifar10", 50, 0.0, 1.2, 1),
        ("cifar10", 10, 0.2, 1.0, 2),
        ("cifar100", 100, 0.0, 1.2, 4),
        ("cifar100", 50, 0.0, 1.2, 4),  # the command of GLMC + SAM; GLMC alone has 0.2 and 6
        ("cifar100", 10, 0.2, 1.2, 4),
    ],
)
def test_glmc(dataset: str, imbalance: int, r: float, k: float, eta: float) -> None:
    recipe = resolve("glmc+sam", facts(dataset, (imbalance * 5, imbalance, 5)))
    (stage,) = recipe.stages
    assert recipe.model == "resnet32-wide"
    assert (stage.lr, stage.lr_schedule, stage.weight_decay, stage.batch_size, stage.epochs) == (
        0.01, "cosine", 5e-3, 64, 200,
    )  # fmt: skip
    assert (stage.rho, stage.freeze_bn_stats) == ((0.05,), False)
    assert stage.objective_options == {"consistency": eta, "label_power": k}
    assert (stage.partner, stage.partner_options) == ("power", {"q": pytest.approx(1 - r)})
    assert stage.views == ("crop-flip",) and stage.head == "glmc"
    assert resolve("glmc", facts(dataset), model="resnet34-cifar").model == "resnet34-cifar"


def test_contrastive() -> None:
    (proco,) = stages("proco", "cifar100")
    assert (proco.batch_size, proco.lr, proco.weight_decay, proco.epochs) == (256, 0.3, 2e-4, 200)
    assert (proco.augment, proco.views, proco.head, proco.loss) == (
        "autoaugment-cutout", ("simclr", "simclr"), "contrastive", "la",
    )  # fmt: skip
    assert proco.objective_options == {"kind": "proco", "weight": 1.0, "classify_weight": 1.0, "temperature": 0.1}
    rates = lr_schedule(proco.lr_schedule, 200, proco.lr)
    assert [rates(t) for t in (0, 4, 159, 160, 180)] == pytest.approx([0.06, 0.3, 0.3, 0.03, 0.003])
    (bcl,) = stages("bcl", "cifar100")
    assert (bcl.head, bcl.objective_options["kind"], bcl.lr, bcl.weight_decay) == ("bcl", "bcl", 0.15, 5e-4)
    assert stages("proco", "imagenet-lt")[0].objective_options["temperature"] == 0.07


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


def test_numbers_of_a_data_set_and_its_imbalance_lie_over_the_defaults() -> None:
    assert system_recipe("glmc", "digits", 100)["consistency"] == 4
    assert system_recipe("glmc", "cifar10", 100.4)["consistency"] == 1
    assert system_recipe("glmc", "cifar10", 10)["consistency"] == 2
    assert system_recipe("glmc", "imagenet-lt", 256)["first"] == {
        "lr": 0.1, "lr_schedule": "cosine", "weight_decay": 2e-4, "batch_size": 120, "rho": [0.05], "epochs": 135,
        "augment": "simclr",
    }  # fmt: skip
