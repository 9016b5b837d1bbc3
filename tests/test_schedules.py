from __future__ import annotations

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saddlescape import losses, schedules
from saddlescape.errors import InputError
from saddlescape.schedules import (
    DeferredReweighting,
    cosine_lr,
    ib_lr,
    linear_lr,
    lr_schedule,
    mislas_lr,
    never_begins,
    paper_cifar_lr,
    rho_schedule,
    step_lr,
    stretch,
)

CIFAR10 = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


def expanded(*runs: tuple[float, int]) -> list[float]:
    return [value for value, count in runs for _ in range(count)]


WARM_UP = [0.1 * e / 5 for e in (1, 2, 3, 4, 5)]


def test_paper_cifar_epoch_by_epoch() -> None:
    expected = WARM_UP + expanded((0.1, 155), (0.1 * 0.01, 20), (0.1 * 0.0001, 20))
    assert [paper_cifar_lr(t) for t in range(200)] == expected
    assert paper_cifar_lr(0, base_lr=1.0) == 0.2


def test_mislas_epoch_by_epoch() -> None:
    assert [mislas_lr(t) for t in range(200)] == WARM_UP + expanded((0.1, 155), (0.1 * 0.1, 20), (0.1 * 0.01, 20))


def test_ib_epoch_by_epoch() -> None:
    expected = WARM_UP + expanded((0.1, 95), (0.1 * 1e-2, 60), (0.1 * 1e-4, 20), (0.1 * 1e-6, 20))
    assert [ib_lr(t) for t in range(200)] == expected


def test_ten_epochs_of_the_paper_keep_every_phase() -> None:
    assert [paper_cifar_lr(t, 10) for t in range(10)] == expanded((0.1, 8), (0.1 * 0.01, 1), (0.1 * 0.0001, 1))


@pytest.mark.parametrize("epochs", [1, 2, 3, 5])
@pytest.mark.parametrize("rule", [paper_cifar_lr, mislas_lr, ib_lr])
def test_very_short_runs_have_a_positive_rate_that_never_rises_after_the_warm_up(rule, epochs: int) -> None:
    rates = [rule(t, epochs) for t in range(epochs)]
    assert rates[0] == 0.1
    assert all(0 < later <= earlier for earlier, later in pairwise(rates))


def test_cosine_is_torchs() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90)
    for t in range(90):
        assert cosine_lr(t, 90, 0.2) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-10)
        optimizer.step()
        scheduler.step()
    assert cosine_lr(90, 90, 0.2) == pytest.approx(0, abs=1e-17)


def test_cosine_with_warm_up() -> None:
    rates = [cosine_lr(t, 10, 1.0, warmup=4) for t in range(10)]
    expected = [0.25, 0.5, 0.75, 1.0] + [0.5 * (1 + math.cos(math.pi * k / 6)) for k in range(6)]
    assert rates == pytest.approx(expected)
    with pytest.raises(InputError, match="warmup is 10"):
        cosine_lr(0, 10, 1.0, warmup=10)


def test_linear_goes_up_over_a_tenth_and_down_to_nothing() -> None:
    assert [linear_lr(t, 20, 0.9) for t in (0, 1, 2, 3, 19, 20)] == pytest.approx([0.3, 0.6, 0.9, 0.85, 0.05, 0])
    assert [linear_lr(t, 2, 0.4) for t in range(2)] == [0.2, 0.4] and linear_lr(0, 1, 0.4) == 0.2


@pytest.mark.parametrize(
    ("milestone", "total", "reference", "expected"),
    [
        (160, 200, 200, 160),
        (160, 400, 200, 320),
        (160, 100, 200, 80),
        (5, 100, 200, 3),  # 2.5 rounds up
        (5, 60, 200, 2),  # 1.5 rounds up
        (5, 20, 200, 1),  # 0.5 rounds up
        (5, 10, 200, 1),  # a warm-up is not rounded away
        (180, 4, 200, 3),  # nor is a last phase: 3.6 rounds to 4, which is the end
        (0, 10, 200, 0),
        (200, 10, 200, 10),
        (240, 10, 200, 12),
        (160, 1, 200, 1),
        (60, 45, 90, 30),
    ],
)
def test_stretch_cases(milestone: int, total: int, reference: int, expected: int) -> None:
    assert stretch(milestone, total, reference) == expected


@given(total=st.integers(1, 2000), reference=st.integers(1, 2000), data=st.data())
def test_stretch_keeps_order_and_is_nearest_and_stays_inside(total: int, reference: int, data: st.DataObject) -> None:
    first, second = sorted(data.draw(st.tuples(st.integers(0, reference), st.integers(0, reference))))
    assert stretch(first, total, reference) <= stretch(second, total, reference)
    assert stretch(first, reference, reference) == first
    result = stretch(first, total, reference)
    if 0 < first < reference and total >= 2:
        assert result in range(1, total)
    if result not in (1, total - 1):
        assert abs(result - first * total / reference) <= 0.5


@pytest.mark.parametrize("arguments", [(-1, 10, 10), (1, 0, 10), (1, 10, 0)])
def test_stretch_refuses(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(InputError):
        stretch(*arguments)


@pytest.mark.parametrize("epochs", [2, 3, 7, 13, 30, 90, 199, 200, 333])
def test_reweighting_and_first_drop_stretch_to_the_same_epoch(epochs: int) -> None:
    drw = DeferredReweighting(CIFAR10, stretch(160, epochs, 200))
    for t in range(epochs):
        warmed = t >= stretch(5, epochs, 200)
        assert drw.is_on(t) == (warmed and paper_cifar_lr(t, epochs) < 0.1)


def test_lr_schedule_by_name() -> None:
    for name, expected in {
        "paper-cifar": paper_cifar_lr(3, 20, 0.4),
        "mislas": mislas_lr(3, 20, 0.4),
        "ib": ib_lr(3, 20, 0.4),
        "cosine": cosine_lr(3, 20, 0.4),
        "linear": linear_lr(3, 20, 0.4),
        "constant": 0.4,
    }.items():
        rule = lr_schedule(name, 20, 0.4)
        assert rule(3) == expected
        assert pickle.loads(pickle.dumps(rule))(3) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("paper_cifar", 20, 0.1), "unknown learning-rate schedule 'paper_cifar'; did you mean paper-cifar"),
        (("zzz", 20, 0.1), "known are paper-cifar"),
        (("cosine", 0, 0.1), "total_epochs is 0"),
        (("cosine", 20, -0.1), "base_lr is -0.1"),
        (("cosine", 20, float("nan")), "base_lr is nan"),
    ],
)
def test_lr_schedule_refuses(arguments: tuple[str, int, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        lr_schedule(*arguments)


@pytest.mark.parametrize("rule", [lr_schedule(name, 20, 0.1) for name in schedules.LR_SCHEDULES])
def test_negative_epochs_are_refused_and_late_ones_keep_the_last_value(rule) -> None:
    with pytest.raises(InputError, match="epochs count from 0"):
        rule(-1)
    assert 0 <= rule(1000) <= rule(19)


def test_step_lr_wants_as_many_factors_as_milestones() -> None:
    with pytest.raises(InputError, match="2 milestones need as many factors, got 1"):
        step_lr(0, 10, 0.1, warmup=0, milestones=(3, 6), factors=(0.1,), reference_total=10)


def test_rho_constant() -> None:
    rule = rho_schedule("constant", rho=0.8)
    assert {rule(t) for t in range(200)} == {0.8}


def test_rho_linear_and_its_half_precision_form() -> None:
    rule, half = rho_schedule("linear"), rho_schedule("linear", half_precision=True)
    for t in range(200):
        expected = 0.05 + 0.75 * t / 199
        assert rule(t) == pytest.approx(expected, rel=1e-14)
        assert half(t) == float(np.float16(expected))
    assert (rule(0), rule(199)) == (0.05, 0.8)
    assert rho_schedule("linear", total=1, rho_min=0.1)(0) == 0.1


def test_rho_step_of_the_cifar_script() -> None:
    rule = rho_schedule("step")
    assert [rule(t) for t in range(200)] == expanded((0.05, 5), (0.1, 155), (0.5, 20), (0.6, 20))


def test_rho_step_of_the_large_scale_scripts() -> None:
    options = {"milestones": schedules.LARGE_SCALE_MILESTONES, "reference_total": schedules.LARGE_SCALE_EPOCHS}
    rule = rho_schedule("step", total=90, values=(0.05, 0.1, 0.5, 0.5), **options)
    assert [rule(t) for t in range(90)] == expanded((0.05, 5), (0.1, 55), (0.5, 30))
    rule = rho_schedule("step", total=30, values=(1, 2, 3, 4), **options)
    assert [rule(t) for t in range(30)] == expanded((1, 2), (2, 18), (3, 5), (4, 5))


def test_rho_schedules_pickle() -> None:
    for kind in ("constant", "linear", "step"):
        rule = rho_schedule(kind)
        assert pickle.loads(pickle.dumps(rule))(100) == rule(100)
        with pytest.raises(InputError, match="epochs count from 0"):
            rule(-1)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("cosine", {}, "unknown kind of rho schedule 'cosine'"),
        ("constant", {"rho": -0.1}, "rho is -0.1"),
        ("linear", {"rho_max": float("inf")}, "rho is inf"),
        ("step", {"values": (0.1, 0.2)}, "3 milestones need 4 values of rho, got 2"),
        ("step", {"milestones": (5, 180, 160)}, "milestones must ascend"),
        ("step", {"total": 0}, "total is 0"),
    ],
)
def test_rho_schedule_refuses(kind: str, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rho_schedule(kind, **options)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
def test_deferred_weights_are_ones_then_those_of_the_losses(beta: float) -> None:
    drw = DeferredReweighting(CIFAR10, 160, beta)
    for t in (0, 159):
        assert torch.equal(drw.weights(t), torch.ones(10))
    for t in (160, 199, 320, 10_000):
        assert torch.equal(drw.weights(t), losses.effective_number_weights(CIFAR10, beta))


def test_deferred_weights_are_fresh_tensors() -> None:
    drw = DeferredReweighting([90, 10], 1)
    drw.weights(1).zero_()
    assert drw.weights(1).sum() == pytest.approx(2)


def test_a_pickled_rule_switches_at_the_same_epoch() -> None:
    drw = DeferredReweighting(CIFAR10, 3)
    resumed = pickle.loads(pickle.dumps(drw))
    for t in range(6):
        assert torch.equal(drw.weights(t), resumed.weights(t))


def test_a_start_after_the_end_is_said() -> None:
    assert never_begins("re-weighting", 159, 160) is None
    assert never_begins("re-weighting", 160, 160) == (
        "re-weighting starts at epoch 160 but the run ends after 160 epochs: it never begins"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([5, 3], -1), "epochs count from 0"),
        (([5, 3], 1, 1.0), "beta is 1.0"),
        (([5], 1), "two or more classes"),
        (([0, 3], 1), "class 0 has no training images"),
    ],
)
def test_deferred_reweighting_refuses(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DeferredReweighting(*arguments)
