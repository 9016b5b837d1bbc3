"""Joined loaders: views show the same images otherwise augmented, partners other ones, and both resume exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saddlescape.data.augment import build_augment
from saddlescape.data.loader import JoinedLoader, SharedOrder, build_loader
from saddlescape.data.samplers import InstanceBalanced, build_sampler
from saddlescape.data.types import ArraySplit, Batch, Preprocess
from saddlescape.errors import InputError

PREPROCESS = Preprocess(image_size=8)
LABELS = torch.arange(20) % 3 * (torch.arange(20) < 9)  # 14, 3 and 3 images


def split() -> ArraySplit:
    generator = torch.Generator().manual_seed(0)
    return ArraySplit(torch.randint(0, 256, (20, 3, 8, 8), generator=generator, dtype=torch.uint8), LABELS)


def loader(sampler: object, seed: int, augment: str = "none", batch_size: int = 8):  # type: ignore[no-untyped-def]
    return build_loader(
        split(), PREPROCESS, batch_size=batch_size, seed=seed, augment=build_augment(augment, 8),
        sampler=sampler,  # type: ignore[arg-type]
    )  # fmt: skip


def joined(seed: int = 3, augment: str = "none", sampler: object | None = None) -> JoinedLoader:
    sampler = sampler or InstanceBalanced(LABELS)
    views = [loader(SharedOrder(sampler, seed), seed + 1000 * n, augment) for n in (1, 2)]  # type: ignore[arg-type]
    partner_sampler = build_sampler("power", LABELS, q=0.0)
    partner = JoinedLoader(
        loader(partner_sampler, seed + 77, augment),
        [loader(SharedOrder(partner_sampler, seed + 77), seed + 99, augment)],
    )
    return JoinedLoader(loader(sampler, seed, augment), views, partner)


def flat(batch: Batch | None) -> list[Tensor]:
    if batch is None:
        return []
    return [batch.inputs, batch.targets, batch.indices, *batch.views, *flat(batch.partner)]


@pytest.mark.parametrize("sampler", ["instance-balanced", "class-aware", "square-root"])
def test_views_show_the_same_images_in_every_epoch(sampler: str) -> None:
    """Un-augmented they are equal; so the order is the same, whatever the loader's own seed."""
    orders = []
    for epoch in range(3):
        for batch in joined(sampler=build_sampler(sampler, LABELS)).epoch(epoch):
            assert len(batch.views) == 2
            for view in batch.views:
                assert torch.equal(view, batch.inputs)
            assert torch.equal(batch.targets, LABELS[batch.indices])
            orders.append(batch.indices)
    assert not torch.equal(torch.cat(orders[:3]), torch.cat(orders[3:6]))


def test_views_are_augmented_apart() -> None:
    for batch in joined(augment="crop-flip").epoch(0):
        first, second = batch.views
        assert not torch.equal(first, second)
        assert not torch.equal(first, batch.inputs) and not torch.equal(second, batch.inputs)
    alone = loader(InstanceBalanced(LABELS), 3, "crop-flip")
    for batch, plain in zip(joined(augment="crop-flip").epoch(1), alone.epoch(1), strict=True):
        assert torch.equal(batch.inputs, plain.inputs)  # further views change nothing of the main one


def test_partners_are_other_images_from_their_own_sampler() -> None:
    seen, own = [], []
    for epoch in range(40):
        for batch in joined().epoch(epoch):
            assert batch.partner is not None and batch.partner.partner is None
            assert batch.partner.inputs.shape == batch.inputs.shape
            assert torch.equal(batch.partner.views[0], batch.partner.inputs)
            seen.append(batch.partner.targets)
            own.append(batch.targets)
    share = torch.bincount(torch.cat(seen), minlength=3) / len(torch.cat(seen))
    assert (share - 1 / 3).abs().max() < 0.06  # classes alike
    assert torch.bincount(torch.cat(own)).tolist() == [14 * 40, 3 * 40, 3 * 40]  # every image once an epoch


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_an_epoch_goes_on_from_any_batch(start: int) -> None:
    whole = list(joined(augment="crop-flip").epoch(2))
    rest = list(joined(augment="crop-flip").epoch(2, start_batch=start))
    assert len(rest) == 3 - start
    for one, two in zip(whole[start:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(flat(one), flat(two), strict=True))


def test_what_does_not_fit_together_is_refused() -> None:
    main = loader(InstanceBalanced(LABELS), 0)
    assert len(main) == len(JoinedLoader(main)) == 3
    with pytest.raises(InputError, match="equally many batches an epoch, got 3, 3, 5"):
        JoinedLoader(main, [main], loader(InstanceBalanced(LABELS), 0, batch_size=4))
    (bare, *_) = JoinedLoader(main).epoch(0)
    assert bare.views == () and bare.partner is None
