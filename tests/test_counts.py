"""Class counts, class weights, head/mid/tail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mpmath import mp, mpf

from saddlescape import losses
from saddlescape.counts import tail_classes
from saddlescape.data import class_counts, class_groups
from saddlescape.errors import InputError
from saddlescape.losses import effective_number_weights, inverse_frequency_weights, power_weights
from saddlescape.schedules import DeferredReweighting

MESSAGE = "class 2 has no training images; give every class at least one image or leave the class out of the data set"
EMPTY = [100, 10, 0]
TAKERS = {
    "ldam": lambda: losses.LDAMLoss(EMPTY),
    "vs": lambda: losses.VSLoss(EMPTY),
    "la": lambda: losses.LogitAdjustedLoss(EMPTY),
    "bs": lambda: losses.BalancedSoftmaxLoss(EMPTY),
    "ib": lambda: losses.InfluenceBalancedLoss(EMPTY),
    "las": lambda: losses.LabelAwareSmoothingLoss(EMPTY, 0.3, 0.0),
    "ce by name": lambda: losses.build_loss("ce", EMPTY),
    "focal by name": lambda: losses.build_loss("focal", EMPTY),
    "post hoc": lambda: losses.post_hoc_adjust(torch.zeros(1, 3), EMPTY),
    "effective number": lambda: losses.effective_number_weights(EMPTY),
    "inverse frequency": lambda: losses.inverse_frequency_weights(EMPTY),
    "drw": lambda: DeferredReweighting(EMPTY, 160),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_a_class_without_images_is_the_same_error_everywhere(taker: str) -> None:
    with pytest.raises(InputError) as caught:
        TAKERS[taker]()
    assert str(caught.value) == MESSAGE


def test_several_empty_classes_are_all_named() -> None:
    with pytest.raises(InputError, match="classes 0, 2 have no training images"):
        losses.check_class_counts([0, 5, 0])


@pytest.mark.parametrize("counts", [[5, 3], (5, 3), np.array([5, 3]), torch.tensor([5, 3]), torch.tensor([5.0, 3.0])])
def test_counts_may_be_any_list_of_numbers(counts: object) -> None:
    checked = losses.check_class_counts(counts)  # type: ignore[arg-type]
    assert checked.dtype == torch.float64
    assert checked.tolist() == [5.0, 3.0]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([], "two or more classes"),
        ([5], "two or more classes"),
        ([[5, 3]], "two or more classes"),
        ([5, -1], r"class_counts\[1\] is -1"),
        ([5, float("nan")], r"class_counts\[1\] is nan"),
        ([float("inf"), 5], r"class_counts\[0\] is inf"),
        ("ab", "list of numbers"),
        (["5", "x"], "list of numbers"),
        (None, "list of numbers"),
    ],
)
def test_what_is_no_list_of_counts_is_refused(counts: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        losses.check_class_counts(counts)  # type: ignore[arg-type]


CIFAR10 = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
CIFAR100 = [int(500 * 0.01 ** (c / 99)) for c in range(100)]


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999, 0.9999, 1 - 1e-12])
def test_effective_number_against_fifty_digits(beta: float) -> None:
    with mp.workdps(50):
        inverse = [(1 - mpf(beta)) / (1 - mpf(beta) ** n) for n in CIFAR10]
        expected = [float(10 * w / sum(inverse)) for w in inverse]
    weights = effective_number_weights(CIFAR10, beta, dtype=torch.float64)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-12)
    assert weights.sum().item() == pytest.approx(10, rel=1e-14)


def test_beta_zero_gives_ones_exactly_and_beta_near_one_inverse_frequency() -> None:
    assert torch.equal(effective_number_weights(CIFAR10, 0.0), torch.ones(10))
    torch.testing.assert_close(
        effective_number_weights(CIFAR10, 1 - 1e-13), inverse_frequency_weights(CIFAR10), rtol=1e-6, atol=0
    )


def test_powers_of_the_frequency() -> None:
    assert torch.equal(inverse_frequency_weights(CIFAR10, 0.0), torch.ones(10))
    root = inverse_frequency_weights([400, 100], 0.5, dtype=torch.float64)
    torch.testing.assert_close(root, torch.tensor([2 / 3, 4 / 3], dtype=torch.float64))


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.2, 3.0, -1.0])
def test_power_weights_against_fifty_digits(exponent: float) -> None:
    with mp.workdps(50):
        inverse = [mpf(n) ** -mpf(exponent) for n in CIFAR10]
        expected = [float(10 * w / sum(inverse)) for w in inverse]
    np.testing.assert_allclose(power_weights(CIFAR10, exponent, dtype=torch.float64).numpy(), expected, rtol=1e-12)
    assert torch.equal(power_weights(CIFAR10, 1.0), inverse_frequency_weights(CIFAR10))


def test_power_weights_at_the_edges() -> None:
    assert torch.isfinite(power_weights([10**9, 1], 40.0)).all()
    for exponent in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="exponent is"):
            power_weights(CIFAR10, exponent)
    with pytest.raises(InputError, match="class 1 has no training images"):
        power_weights([5, 0], 1.0)


@pytest.mark.parametrize("beta", [-0.1, 1.0, 2.0, float("nan")])
def test_beta_out_of_range(beta: float) -> None:
    with pytest.raises(InputError, match="must be in"):
        effective_number_weights(CIFAR10, beta)


def sizes(groups: dict[str, list[int]]) -> tuple[int, int, int]:
    return len(groups["head"]), len(groups["mid"]), len(groups["tail"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar10", (3, 4, 3)),
        ("cifar100", (36, 35, 29)),
        ("imagenet-lt", (390, 445, 165)),
        ("inat2018", (842, 3701, 3599)),
    ],
)
def test_paper_ranges(name: str, expected: tuple[int, int, int]) -> None:
    groups, _ = class_groups([1] * sum(expected), name=name)
    assert sizes(groups) == expected
    assert groups["head"] + groups["mid"] + groups["tail"] == list(range(sum(expected)))


def test_paper_cut_of_cifar100_in_counts() -> None:
    counts = class_counts(100, 500, 100)
    groups, _ = class_groups(counts, name="cifar100")
    assert min(counts[c] for c in groups["head"]) == 98
    assert (max(counts[c] for c in groups["mid"]), min(counts[c] for c in groups["mid"])) == (93, 19)
    assert max(counts[c] for c in groups["tail"]) == 18


def test_many_medium_few_has_the_known_sizes() -> None:
    assert sizes(class_groups(class_counts(100, 500, 100), rule="thresholds")[0]) == (35, 35, 30)
    # 20 and 100 themselves are medium; few has an empty group here and says so instead of failing.
    groups, line = class_groups([101, 100, 20, 300], rule="thresholds")
    assert groups == {"head": [0, 3], "mid": [1, 2], "tail": []}
    assert "more than 100" in line and "fewer than 20" in line


def test_thresholds_can_be_set() -> None:
    # Focal-SAM on CIFAR-10 IF 100: few < 200, many > 1000.
    assert sizes(class_groups(class_counts(10, 5000, 100), rule=(1000, 200))[0]) == (4, 3, 3)


def test_own_data_fall_back_to_thirds() -> None:
    groups, line = class_groups([5, 50, 7, 40, 6, 6, 30])
    assert groups == {"head": [1, 3], "mid": [2, 4, 6], "tail": [0, 5]}
    assert "thirds" in line
    assert sizes(class_groups([9, 3])[0]) == (1, 0, 1)
    assert sizes(class_groups([9])[0]) == (1, 0, 0)


def test_own_data_use_thresholds_where_they_cut() -> None:
    groups, line = class_groups([500, 50, 5])
    assert groups == {"head": [0], "mid": [1], "tail": [2]}
    assert "100" in line


@pytest.mark.parametrize("rule", ["paper", "quarters", (10, 50)])
def test_bad_rules(rule) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError):
        class_groups([5, 4, 3], name="mine", rule=rule)


EXP_10 = [int(5000 * 0.01 ** (i / 9)) for i in range(10)]
EXP_100 = [int(500 * 0.01 ** (i / 99)) for i in range(100)]


@pytest.mark.parametrize(("counts", "threshold", "usual", "expected"), [
    (EXP_100, None, 20, list(range(70, 100))),  # the few-shot classes of CIFAR-100-LT at imbalance 100
    (EXP_100, 50, 20, [c for c, n in enumerate(EXP_100) if n < 50]),
    (EXP_100, None, 100, list(range(35, 100))),
    (EXP_10, None, 20, [7, 8, 9]),  # none is that small: the smallest third
    (EXP_10, 20000, 20, list(range(10))),
    ([500] * 5 + [50] * 5, None, 20, [5, 6, 7, 8, 9]),  # equal classes go together
    ([19, 5, 3, 2], None, 20, [3]),  # all are that small: the smallest third
    ([9, 100], None, 20, [0]),  # in any order
    ([100, 9], 9, 20, None),
    ([50, 50, 50], None, 20, None),
])  # fmt: skip
def test_the_rule(counts: list[int], threshold: float | None, usual: float, expected: list[int] | None) -> None:
    exact = torch.tensor(counts, dtype=torch.float64)
    if expected is None:
        with pytest.raises(InputError, match=r"^ImbSAM: ") as caught:
            tail_classes(exact, threshold, "ImbSAM", usual)
        assert "\n" not in str(caught.value)
        assert "threshold" in str(caught.value)
    else:
        assert tail_classes(exact, threshold, "ImbSAM", usual).nonzero().flatten().tolist() == expected


@pytest.mark.parametrize("labels", [[0, 1, 2, 2, 1, 0, 0], torch.tensor([3, 0, 0, 1, 3, 1]), np.zeros(50, dtype=int)])
def test_labels_in_the_place_of_counts_are_recognised(labels: object) -> None:
    for taker in (losses.effective_number_weights, losses.LDAMLoss, lambda given: DeferredReweighting(given, 1)):
        with pytest.raises(InputError, match="look like labels; pass class counts"):
            taker(labels)  # type: ignore[arg-type]
