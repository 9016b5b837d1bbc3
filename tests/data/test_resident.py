"""The resident loader: coverage, order, determinism, resuming, layout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from saddlescape.data.augment import CropFlip, build_augment
from saddlescape.data.batching import AUGMENT, derived_generator
from saddlescape.data.loader import build_loader
from saddlescape.data.resident import ResidentLoader
from saddlescape.data.samplers import InstanceBalanced, build_sampler
from saddlescape.data.types import ArraySplit, Batch, FileSplit, Preprocess
from saddlescape.errors import InputError

PREPROCESS = Preprocess(image_size=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def split_of(count: int, channels: int = 3) -> ArraySplit:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, 8, 8), dtype=torch.uint8, generator=generator)
    return ArraySplit(images, torch.randint(0, 4, (count,), generator=generator))


def training(split: ArraySplit, **options: object) -> ResidentLoader:
    settings: dict[str, object] = {
        "batch_size": 8,
        "augment": build_augment("crop-flip", 8),
        "sampler": InstanceBalanced(split.labels),
    }
    return ResidentLoader(split, PREPROCESS, **(settings | options))  # type: ignore[arg-type]


def equal(first: Batch, second: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))


def test_evaluation_is_in_order_complete_and_unaugmented() -> None:
    split = split_of(20)
    loader = ResidentLoader(split, PREPROCESS, batch_size=8)
    batches = list(loader.epoch())
    assert len(loader) == len(batches) == 3
    assert [len(batch.targets) for batch in batches] == [8, 8, 4]
    assert torch.equal(torch.cat([batch.indices for batch in batches]), torch.arange(20))
    assert torch.equal(torch.cat([batch.targets for batch in batches]), split.labels)
    inputs = torch.cat([batch.inputs for batch in batches])
    torch.testing.assert_close(inputs, PREPROCESS.normalize(split.images), rtol=0, atol=2e-6)
    assert batches[0].inputs.is_contiguous(memory_format=torch.channels_last)


def test_an_epoch_shows_each_image_once_under_its_own_label() -> None:
    split = split_of(37)
    loader = training(split)
    orders = []
    for t in range(3):
        indices = torch.cat([batch.indices for batch in loader.epoch(t)])
        targets = torch.cat([batch.targets for batch in loader.epoch(t)])
        assert torch.equal(indices.sort().values, torch.arange(37))
        assert torch.equal(targets, split.labels[indices])
        orders.append(tuple(indices.tolist()))
    assert len(set(orders)) == 3


def test_a_batch_depends_on_seed_epoch_and_number_alone() -> None:
    split = split_of(37)
    whole = [list(training(split).epoch(t)) for t in range(2)]
    torch.manual_seed(123)
    state = torch.get_rng_state()
    for t in range(2):
        for start in range(6):
            rest = list(training(split).epoch(t, start_batch=start))
            assert len(rest) == 5 - start
            assert all(equal(a, b) for a, b in zip(rest, whole[t][start:], strict=True))
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    other = list(training(split, seed=1).epoch(0))
    assert not torch.equal(other[0].indices, whole[0][0].indices)
    # Same pictures, another epoch: another crop.
    fixed_order = training(split, sampler=None)
    assert not torch.equal(next(fixed_order.epoch(0)).inputs, next(fixed_order.epoch(1)).inputs)
    # Same crops drawn for batch 0 and 1 would be the mistake of one seed an epoch.
    plain = ArraySplit(split.images[:8].repeat(2, 1, 1, 1), split.labels[:8].repeat(2))
    first, second = training(plain, sampler=None).epoch(0)
    assert not torch.equal(first.inputs, second.inputs)


def test_pixels_are_the_augmentation_s_on_the_batch_s_images() -> None:
    split = split_of(20)
    loader = training(split, seed=3)
    for number, batch in enumerate(loader.epoch(2)):
        pixels = CropFlip(1)(split.images[batch.indices], derived_generator(3, AUGMENT, 2, number))
        torch.testing.assert_close(batch.inputs, PREPROCESS.normalize(pixels), rtol=0, atol=2e-6)


def test_33_images_in_batches_of_32_train_through_batchnorm() -> None:
    split = split_of(33)
    loader = training(split, batch_size=32)
    model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 4))
    seen = []
    for batch in loader.epoch(0):
        nn.functional.cross_entropy(model(batch.inputs), batch.targets).backward()
        seen += batch.indices.tolist()
    assert sorted(seen) == list(range(33)) and len(loader) == 1


def test_a_sampler_may_make_the_epoch_longer_than_the_split() -> None:
    split = split_of(10)
    loader = training(split, sampler=build_sampler("class-balanced", split.labels, num_samples=50))
    assert len(loader) == 7 and sum(len(batch.targets) for batch in loader.epoch(0)) == 50


def test_grey_images() -> None:
    split = split_of(9, channels=1)
    preprocess = Preprocess(image_size=8, channels=1, mean=(0.5,), std=(0.25,))
    loader = ResidentLoader(split, preprocess, batch_size=4, augment=build_augment("crop", 8))
    batches = list(loader.epoch(0))
    assert [tuple(batch.inputs.shape) for batch in batches] == [(4, 1, 8, 8), (5, 1, 8, 8)]


def test_the_split_is_not_changed_by_training() -> None:
    split = split_of(12)
    before = split.images.clone()
    for name in ("crop-flip", "autoaugment-cutout", "none"):
        for batch in training(split, augment=build_augment(name, 8)).epoch(0):
            batch.inputs.zero_()
    assert torch.equal(split.images, before)


def test_bad_input_is_one_clear_line() -> None:
    split = split_of(10)
    for options, message in [
        ({"batch_size": 0}, "batch size must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
    ]:
        with pytest.raises(InputError, match=message):
            training(split, **options)
    with pytest.raises(InputError, match=r"no batch 9 in epoch 0: an epoch has batches 0\.\.1"):
        training(split).epoch(0, start_batch=9)
    with pytest.raises(InputError, match=r"uint8 images .* got float32 \[4, 3, 8, 8\]"):
        ResidentLoader(ArraySplit(torch.zeros(4, 3, 8, 8), torch.zeros(4).long()), PREPROCESS, batch_size=2)
    with pytest.raises(InputError, match=r"labels must be integers of shape \[N\], got float32 \[10\]"):
        ResidentLoader(ArraySplit(split.images, split.labels.float()), PREPROCESS, batch_size=2)
    negative = torch.tensor([0] * 9 + [-1])
    with pytest.raises(InputError, match=r"image 9, cat.png, has the label -1: labels count from 0"):
        ResidentLoader(ArraySplit(split.images, negative, ["dog.png"] * 9 + ["cat.png"]), PREPROCESS, batch_size=2)
    with pytest.raises(InputError, match="as many labels as images, at least one"):
        build_loader(FileSplit([], torch.zeros(0)), PREPROCESS, batch_size=2)
