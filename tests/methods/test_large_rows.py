"""The tables for ImageNet-LT and iNaturalist 2018: published numbers, and where milestones go at other lengths."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest

from saddlescape.methods.recipe import Facts
from saddlescape.methods.resolve import resolve
from saddlescape.methods.rows import LARGE_ROWS
from saddlescape.records.config import Stage
from saddlescape.training.epoch import _rho

# val-iisc/Saddle-LongTail, imnet_train*.py, inat_train*.py and run.sh: learning rate, weight decay of CE and of LDAM,
# radii of CE + DRW + SAM and LDAM + DRW + SAM.
PUBLISHED = {
    "imagenet-lt": (0.2, 2e-4, 2e-4, (0.05, 0.1, 0.5, 0.5), (0.05, 0.1, 0.5, 0.5)),
    "inat2018": (0.1, 2e-4, 1e-4, (0.05, 0.1, 0.1, 0.2), (0.05, 0.1, 0.5, 0.5)),
}
COUNTS = {"imagenet-lt": (1280, 100, 5), "inat2018": (1000, 100, 2)}
SETS = tuple(PUBLISHED)


def train_stage(dataset: str, method: str, epochs: int | None = None) -> Stage:
    facts = Facts(
        dataset=dataset, class_counts=COUNTS[dataset], image_size=224, augment="resized-crop-flip-jitter"
    )  # fmt: skip
    recipe = resolve(method, facts, epochs=epochs)
    assert recipe.model == "resnet50"
    return recipe.stages[0]


def moved(milestone: int, epochs: int) -> int:
    """A milestone of 90 epochs in a run of ``epochs``: to the nearest epoch, never onto an end of the run."""
    return min(max(math.floor(Fraction(milestone * epochs, 90) + Fraction(1, 2)), 1), epochs - 1)


@pytest.mark.parametrize("dataset", SETS)
@pytest.mark.parametrize("method", LARGE_ROWS)
def test_the_rows_hold_the_published_numbers(dataset: str, method: str) -> None:
    stage = train_stage(dataset, method)
    lr, decay, ldam_decay, ce_radii, ldam_radii = PUBLISHED[dataset]
    ldam, sam = method.startswith("ldam"), method.endswith("+sam")
    assert (stage.epochs, stage.batch_size, stage.lr, stage.momentum) == (90, 256, lr, 0.9)
    assert stage.weight_decay == (ldam_decay if ldam else decay)
    assert (stage.lr_schedule, stage.augment, stage.sampler) == (
        "cosine", "resized-crop-flip-jitter", "instance-balanced",
    )  # fmt: skip
    assert (stage.head, stage.loss) == (("cosine", "ldam") if ldam else ("linear", "ce"))
    assert stage.loss_options == ({"max_margin": 0.3, "scale": 30.0} if ldam else {})
    assert (stage.reweight, stage.reweight_start) == (("drw", 60) if "drw" in method else ("none", 0))
    assert stage.freeze_bn_stats is False
    assert (stage.optimizer, stage.rho) == (("sam", ldam_radii if ldam else ce_radii) if sam else ("sgd", ()))


@pytest.mark.parametrize("epochs", [2, 3, 9, 30, 45, 90, 100, 180, 200, 400])
@pytest.mark.parametrize("dataset", SETS)
def test_at_other_lengths_every_milestone_moves_in_proportion(dataset: str, epochs: int) -> None:
    stage = train_stage(dataset, "ce+drw+sam", epochs)
    assert stage.epochs == epochs
    assert stage.reweight_start == moved(60, epochs)
    rho, radii = _rho(stage), PUBLISHED[dataset][3]
    first, second, third = (moved(milestone, epochs) for milestone in (5, 60, 75))
    for t in range(epochs):
        wanted = radii[3] if t >= third else radii[2] if t >= second else radii[1] if t >= first else radii[0]
        assert rho(t) == wanted, t


@pytest.mark.parametrize(("dataset", "epochs"), [("imagenet-lt", 180), ("inat2018", 200)])
def test_a_system_s_longer_first_stage_stretches_them_too(dataset: str, epochs: int) -> None:
    """MiSLAS trains longer than the paper's rows; with SAM its radii keep their share of the run."""
    stage = train_stage(dataset, "mislas+sam")
    assert stage.epochs == epochs and len(stage.rho) == 4
    rho = _rho(stage)
    changes = [t for t in range(1, epochs) if rho(t) != rho(t - 1)]
    values = [stage.rho[0], *(rho(t) for t in changes)]
    assert values == [value for n, value in enumerate(stage.rho) if n == 0 or value != stage.rho[n - 1]]
    assert changes == [
        moved(milestone, epochs)
        for milestone, before, after in zip((5, 60, 75), stage.rho, stage.rho[1:], strict=False)
        if before != after
    ]


def test_the_milestones_of_the_radius_are_the_large_recipes_whatever_the_learning_rate_does() -> None:
    """A step schedule of the learning rate does not turn the radius's milestones into CIFAR's."""
    stage = replace(train_stage("inat2018", "ce+drw+sam", 90), lr_schedule="mislas")
    rho = _rho(stage)
    assert [rho(t) for t in (4, 5, 59, 60, 74, 75)] == [0.05, 0.1, 0.1, 0.1, 0.1, 0.2]
