"""The escape experiment: its arms, and the verdict by its rules."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from saddlescape.errors import InputError
from saddlescape.measure.escape import escape, parse_arm, stage_for, verdict
from saddlescape.measure.subject import Subject
from saddlescape.records.config import Stage
from saddlescape.records.escape import Arm, ArmEpoch, TailGain
from saddlescape.runs.request import EscapeOptions


def test_arms_start_alike_and_a_finished_one_is_not_run_again(subject: Subject) -> None:
    trial = EscapeOptions(arms=("sgd", "momentum-sam@1"), epochs=1, samples_per_class=2, products=3)
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    first = escape(subject, trial, classes=[9])
    assert all(torch.equal(before[name], value) for name, value in subject.model.state_dict().items())
    assert [row.arm for row in first.arms] == ["sgd", "momentum-sam@1"]
    assert first.verdict is None
    started, ended = first.arms[0].epochs
    assert started == first.arms[1].epochs[0]
    assert (started.epoch, ended.epoch) == (0, 1)
    assert ended.lambda_min == ended.classes[0].lambda_min
    assert ended.loss != started.loss
    more = escape(subject, dataclasses.replace(trial, arms=("sgd", "sam@0.1", "pgd@0.1")), classes=[9])
    assert more.arms[:2] == first.arms
    assert [row.arm for row in more.arms] == ["sgd", "momentum-sam@1", "sam@0.1", "pgd@0.1"]
    assert more.verdict is not None
    # Momentum-SAM's first step has no momentum yet, later ones have; PGD kicks once an epoch.
    ends = [row.epochs[-1].loss for row in more.arms]
    assert len(set(ends)) == 4


def test_an_arm_has_its_own_optimiser_at_once_and_at_a_constant_rate() -> None:
    stage = Stage(optimizer="sam", rho=(0.1,), rho_start=150, reset_head=True)
    arm = stage_for(parse_arm("pgd@0.5"), stage, 10, 0.01, 7)
    assert (arm.optimizer_options, arm.rho, arm.rho_start, arm.reset_head) == ({"t_thr": 7}, (0.5,), 0, False)
    assert (arm.lr, arm.lr_schedule, arm.epochs) == (0.01, "constant", 10)


def arm(name: str, tail: float, seed: int = 0) -> Arm:
    rows = [ArmEpoch(epoch=i, tail=each, lambda_min=-1.0, loss=1.0) for i, each in enumerate((20.0, tail, tail, tail))]
    return Arm(arm=name, seed=seed, epochs=rows)


@pytest.mark.parametrize(
    ("sam", "momentum", "answer"),
    [(30.5, 40.0, "no gain to explain"), (50.0, 49.0, "as much"), (50.0, 40.0, "less"), (50.0, 30.0, "not at all")],
)
def test_the_verdict_follows_its_rules(sam: float, momentum: float, answer: str) -> None:
    arms = [arm("sgd", 30.0), arm("sam@0.1", sam), arm("sam@0.2", 25.0), arm("momentum-sam@1", momentum)]
    found = verdict(arms, 3000)
    assert found is not None
    share = sam / 100
    assert found.noise == pytest.approx(200 * math.sqrt(2 * share * (1 - share) / 3000))
    assert found.answer == answer
    assert found.sam == TailGain(arm="sam@0.1", tail_gain=pytest.approx(sam - 30))
    assert "one seed" in found.text
    assert verdict(arms[:3], 3000) is None


def test_several_seeds_make_the_noise_known() -> None:
    arms = [
        arm(name, value + seed, seed)
        for seed in (0, 1)
        for name, value in (("sgd", 30.0), ("sam@0.1", 40.0 + seed), ("momentum-sam@1", 40.0))
    ]
    found = verdict(arms, 3000)
    assert found is not None
    assert found.noise == pytest.approx(2 * np.std([0, 1], ddof=1) / math.sqrt(2))
    assert "2 seeds" in found.text


@pytest.mark.parametrize("text", ["adam", "sgd@0.1", "sam", "sam@x", "sam@0", "pgd@inf"])
def test_bad_arms_are_one_line(text: str) -> None:
    with pytest.raises(InputError, match="--arms"):
        parse_arm(text)
