"""Samplers: class frequencies against their formulas, and the structure of class-aware rounds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from saddlescape.data.samplers import SAMPLERS, ByClass, ClassAware, InstanceBalanced, build_sampler
from saddlescape.errors import InputError

COUNTS = [50, 20, 7, 1]
OPTIONS: dict[str, dict[str, float]] = {"progressively-balanced": {"total_epochs": 5}, "power": {"q": 0.8}}


def labels_of(counts: list[int]) -> Tensor:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(9))]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


LABELS = labels_of(COUNTS)
EFFECTIVE = [(1 - 0.99**n) / (1 - 0.99) for n in COUNTS]


@pytest.mark.parametrize(
    ("name", "options", "epoch", "weights"),
    [
        ("power", {"q": 1.0}, 0, COUNTS),
        ("power", {"q": -0.2}, 0, [n**-0.2 for n in COUNTS]),
        ("class-balanced", {}, 3, [1, 1, 1, 1]),
        ("square-root", {}, 0, np.sqrt(COUNTS)),
        ("progressively-balanced", {"total_epochs": 5}, 0, COUNTS),
        ("progressively-balanced", {"total_epochs": 5}, 1, [0.75 * n / 78 + 0.25 / 4 for n in COUNTS]),
        ("progressively-balanced", {"total_epochs": 5}, 4, [1, 1, 1, 1]),
        ("progressively-balanced", {"total_epochs": 1}, 0, COUNTS),
        ("effective-number", {"beta": 0.99}, 0, [n / e for n, e in zip(COUNTS, EFFECTIVE, strict=True)]),
    ],
)
def test_every_image_comes_up_as_often_as_the_formula_says(
    name: str, options: dict[str, float], epoch: int, weights: list[float]
) -> None:
    sampler = build_sampler(name, LABELS, COUNTS, num_samples=20_000, **options)
    assert isinstance(sampler, ByClass)
    drawn = sampler.indices(epoch, generator())
    assert drawn.dtype == torch.int64 and len(drawn) == len(sampler) == 20_000
    share = np.array(weights, dtype=float) / np.sum(weights)
    np.testing.assert_allclose(sampler.probabilities(epoch).numpy(), share, rtol=1e-12)
    per_image = torch.bincount(drawn, minlength=len(LABELS)).numpy()
    expected = share[LABELS.numpy()] / np.array(COUNTS)[LABELS.numpy()]
    assert stats.chisquare(per_image, expected * 20_000).pvalue > 1e-3


def test_instance_balanced_shows_each_image_once_in_another_order_each_time() -> None:
    sampler = InstanceBalanced(LABELS)
    first, second = sampler.indices(0, generator(0)), sampler.indices(1, generator(1))
    assert torch.equal(first.sort().values, torch.arange(len(LABELS))) and not torch.equal(first, second)


def test_class_aware_takes_k_of_a_class_then_moves_on() -> None:
    sampler = ClassAware(LABELS, COUNTS, k=4, num_samples=4 * 4 * 10 + 6)
    drawn = sampler.indices(0, generator())
    assert len(drawn) == len(sampler) == 166
    classes = LABELS[drawn][:160].view(10, 4, 4)
    assert (classes == classes[:, :, :1]).all(), "a visit shows one class"
    assert (classes[:, :, 0].sort(1).values == torch.arange(4)).all(), "a round visits each class once"
    assert len(classes[:, :, 0].unique(dim=0)) > 4, "rounds are shuffled"
    for label, count in enumerate(COUNTS):
        shown = [i for i in drawn.tolist() if LABELS[i] == label]
        for begin in range(0, len(shown), count):  # a class's images all come before any comes again
            turn = shown[begin : begin + count]
            assert len(set(turn)) == len(turn)
        orders = [tuple(shown[b : b + count]) for b in range(0, len(shown) - count + 1, count)]
        if count > 5 and len(orders) > 1:
            assert len(set(orders)) > 1, "a class is shuffled anew each time round"


def test_class_aware_epochs_have_the_length_of_the_split_by_default() -> None:
    drawn = ClassAware(LABELS).indices(0, generator())
    assert len(drawn) == len(LABELS)
    frequency = Counter(LABELS[drawn].tolist())
    assert max(frequency.values()) - min(frequency.values()) <= 4


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_class_without_images_is_never_drawn(name: str) -> None:
    counts = [100, 10, 0, 3]
    labels = labels_of(counts)
    sampler = build_sampler(name, labels, counts, **OPTIONS.get(name, {}))
    drawn = sampler.indices(2, generator())
    assert len(drawn) == len(sampler) == 113
    assert set(labels[drawn].tolist()) <= {0, 1, 3}
    if hasattr(sampler, "probabilities"):
        share = sampler.probabilities(2)
        assert share[2] == 0 and share.sum() == pytest.approx(1) and share.isfinite().all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_generator_alone_decides(name: str) -> None:
    sampler = build_sampler(name, LABELS, COUNTS, **OPTIONS.get(name, {}))
    state = torch.get_rng_state()
    once, again, other = (sampler.indices(1, generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(once, again) and not torch.equal(once, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(InputError, match=r"unknown sampler 'roulette': choose one of instance-balanced, class-bal"):
        build_sampler("roulette", LABELS)
    with pytest.raises(InputError, match=r"label 4 of image 1 is outside 0\.\.2"):
        build_sampler("class-balanced", torch.tensor([0, 4, 1]), [1, 1, 1])
    with pytest.raises(InputError, match=r"label -1 of image 0"):
        build_sampler("class-balanced", torch.tensor([-1, 0, 1]))
    with pytest.raises(InputError, match=r"class_counts says 5 images of class 1, the labels have 1"):
        build_sampler("class-balanced", torch.tensor([0, 1]), [1, 5])
    with pytest.raises(InputError, match=r"integer labels \[N\].*float32 of shape \[2\]"):
        InstanceBalanced(torch.tensor([0.0, 1.0]))
    with pytest.raises(InputError, match="total_epochs"):
        build_sampler("progressively-balanced", LABELS)
    with pytest.raises(InputError, match="k >= 1"):
        ClassAware(LABELS, k=0)
    with pytest.raises(InputError, match="beta < 1"):
        build_sampler("effective-number", LABELS, beta=1.0)
    with pytest.raises(InputError, match="num_samples >= 1"):
        build_sampler("class-balanced", LABELS, num_samples=0)


def test_labels_of_other_integer_types_are_taken() -> None:
    for labels in (LABELS.to(torch.uint8), LABELS.to(torch.int32), LABELS.tolist(), LABELS.numpy()):
        want = build_sampler("class-balanced", LABELS).indices(0, generator())
        assert torch.equal(build_sampler("class-balanced", labels).indices(0, generator()), want)
