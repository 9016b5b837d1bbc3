"""Ranks that share a batch: what a streaming loader reads of it is that shard of the whole, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saddlescape.data.augment import build_augment
from saddlescape.data.loader import build_loader
from saddlescape.data.samplers import InstanceBalanced
from saddlescape.data.shards import shard_bounds, shard_of
from saddlescape.data.stream import StreamLoader
from saddlescape.data.types import ArraySplit, Batch, FileSplit, Preprocess
from saddlescape.errors import InputError

PREPROCESS = Preprocess(image_size=8)


@pytest.fixture
def files(tmp_path: Path) -> FileSplit:
    """Seventeen images: batches of 7, 7 and 3, the last of which nobody divides."""
    images = np.random.default_rng(0).integers(0, 256, (17, 12, 12, 3)).astype(np.uint8)
    paths = [tmp_path / f"{number}.png" for number in range(17)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return FileSplit(paths, torch.arange(17) % 3)


def loader(split: FileSplit, augment: str, shard: tuple[int, int] = (0, 1), **options: object) -> StreamLoader:
    return StreamLoader(
        split, PREPROCESS, batch_size=7, augment=build_augment(augment, 8), sampler=InstanceBalanced(split.labels),
        seed=3, shard=shard, **options,  # type: ignore[arg-type]
    )  # fmt: skip


def equal(one: Batch, two: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one[:3], two[:3], strict=True)) and one.whole == two.whole


@pytest.mark.parametrize(("augment", "workers"), [
    ("resized-crop-flip", 0),  # flipped beside the crop
    ("resized-crop-flip", 1),
    ("simclr", 0),  # cropped file by file, coloured in batches
    ("crop-flip", 0),  # cropped in batches
])  # fmt: skip
def test_a_shard_is_read_to_the_bits_of_the_whole(files: FileSplit, augment: str, workers: int) -> None:
    whole = loader(files, augment, workers=workers)
    wholes = list(whole.epoch(1))
    whole.close()
    assert [len(batch.targets) for batch in wholes] == [7, 7, 3]
    for rank in (0, 1):
        mine = loader(files, augment, (rank, 2), workers=workers)
        shards = list(mine.epoch(1))
        assert [len(batch.targets) for batch in shards] == [3 + rank, 3 + rank, 3]
        for batch, shard in zip(wholes, shards, strict=True):
            assert equal(shard, shard_of(batch, rank, 2))
        assert equal(next(iter(mine.epoch(1, start_batch=1))), shards[1])
        mine.close()


def test_only_the_shard_is_read(files: FileSplit) -> None:
    """An image of the other rank's shard may be broken."""
    order = loader(files, "none", workers=0).order(0)
    begin, _ = shard_bounds(7, 1, 2)
    files.paths[int(order[begin + 1])].write_bytes(b"no image")
    assert [len(batch.targets) for batch in loader(files, "none", (0, 2), workers=0).epoch(0)] == [3, 3, 3]
    with pytest.raises(InputError, match="cannot read image"):
        next(loader(files, "none", (1, 2), workers=0).epoch(0))


def test_an_array_s_batches_are_cut_afterwards() -> None:
    split = ArraySplit(torch.zeros(9, 3, 8, 8, dtype=torch.uint8), torch.arange(9) % 3)
    batch = next(iter(build_loader(split, PREPROCESS, batch_size=9, shard=(1, 2)).epoch(0)))
    assert (len(batch.targets), batch.whole) == (9, 0)
    assert shard_of(batch, 1, 2).indices.tolist() == [4, 5, 6, 7, 8]
