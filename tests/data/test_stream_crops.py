"""Streaming with random crops: the same pixels whatever the workers, exact resume, broken files, killed workers."""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saddlescape.data.augment import ResizedCrop, build_augment
from saddlescape.data.batching import derived_key
from saddlescape.data.loader import build_loader
from saddlescape.data.paths import PackedPaths
from saddlescape.data.pool import repeats
from saddlescape.data.reader import crops, pixels
from saddlescape.data.readers import counter_uniform
from saddlescape.data.samplers import ClassBalanced, InstanceBalanced
from saddlescape.data.stream import StreamLoader
from saddlescape.data.types import Batch, FileSplit, Preprocess
from saddlescape.errors import InputError

PREPROCESS = Preprocess(image_size=16, resize_to=18, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
COUNT = 23


@pytest.fixture
def split(tmp_path: Path) -> FileSplit:
    rng = np.random.default_rng(0)
    paths = []
    for n in range(COUNT):
        paths.append(tmp_path / f"{n}.jpg")
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
        coarse.resize((80, 60) if n % 3 else (60, 80), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return FileSplit(paths, torch.arange(COUNT) % 4)


def stream(split: FileSplit, *, augment: str = "resized-crop-flip-jitter", **options: object) -> StreamLoader:
    given: dict[str, object] = {
        "batch_size": 5, "sampler": InstanceBalanced(split.labels), "seed": 4, "workers": 0,
        "augment": build_augment(augment, 16),
    }  # fmt: skip
    return StreamLoader(split, PREPROCESS, **{**given, **options})  # type: ignore[arg-type]


def same(ours: list[Batch], theirs: list[Batch]) -> bool:
    return len(ours) == len(theirs) and all(
        torch.equal(a, b)
        for pair in zip(ours, theirs, strict=True)
        for a, b in zip(pair[0][:3], pair[1][:3], strict=True)
    )


@pytest.mark.parametrize("views", [1, 2])
def test_workers_pieces_and_place_of_the_finish_change_no_pixel(split: FileSplit, views: int) -> None:
    want = [list(stream(split, views=views).epoch(t)) for t in range(2)]
    assert not same(*want)
    variants: list[dict[str, object]] = [{"workers": 1, "prefetch": 1}, {"workers": 3, "prefetch": 4}]
    variants += [{"finish_in_workers": False}, {"workers": 2, "finish_in_workers": False}]
    for options in variants:
        loader = stream(split, views=views, **options)
        assert all(same(list(loader.epoch(t)), want[t]) for t in range(2)), options
        loader.close()
    shape = want[0][0].inputs.shape
    assert shape == ((2, 5, 3, 16, 16) if views == 2 else (5, 3, 16, 16))
    if views == 2:
        assert not torch.equal(*want[0][0].inputs)
    last = want[0][0].inputs if views == 1 else want[0][0].inputs[1]
    assert last.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_spawned_workers_give_the_same(split: FileSplit) -> None:
    loader = stream(split, workers=1, start_method="spawn")
    assert same(list(loader.epoch(1)), list(stream(split).epoch(1)))
    loader.close()


def test_a_crop_is_a_function_of_seed_epoch_and_image(split: FileSplit) -> None:
    """From first principles: key of the epoch, counter of the image, box, crop of the file."""
    plain = StreamLoader(
        split,
        PREPROCESS,
        batch_size=7,
        augment=ResizedCrop(16),
        sampler=InstanceBalanced(split.labels),
        seed=4,
        workers=0,
    )
    key = derived_key(4, 2, 1)
    for batch in plain.epoch(1):
        for image, index in zip(batch.inputs, batch.indices.tolist(), strict=True):
            uniform = counter_uniform(key, index, 0)(0)

            def boxes(w: int, h: int, uniform: np.ndarray = uniform) -> list[tuple[float, float, float, float]]:
                top, left, high, wide = ResizedCrop(16).box(uniform.tolist(), h, w)
                return [(left, top, left + wide, top + high)]

            want = np.asarray(crops(split.paths[index], 16, boxes)[0]).astype(np.float32) / 255
            assert np.abs(image.permute(1, 2, 0).numpy() - want).max() < 1e-6
    # In another order and other batches the images have the same crops.
    in_order = StreamLoader(split, PREPROCESS, batch_size=4, augment=ResizedCrop(16), seed=4, workers=0)
    shown = {int(i): image for batch in plain.epoch(1) for i, image in zip(batch.indices, batch.inputs, strict=True)}
    for batch in in_order.epoch(1):
        assert all(torch.equal(shown[int(i)], x) for i, x in zip(batch.indices, batch.inputs, strict=True))
    other = next(
        iter(StreamLoader(split, PREPROCESS, batch_size=4, augment=ResizedCrop(16), seed=5, workers=0).epoch(1))
    )
    assert not torch.equal(other.inputs[0], shown[0])


def test_an_image_that_comes_again_is_cropped_anew(split: FileSplit) -> None:
    loader = StreamLoader(
        split, PREPROCESS, batch_size=50, augment=ResizedCrop(16), workers=0,
        sampler=ClassBalanced(split.labels, num_samples=50),
    )  # fmt: skip
    batch = next(iter(loader.epoch(0)))
    counted = batch.indices.bincount()
    again = int(counted.argmax())
    crops_of_it = batch.inputs[batch.indices == again]
    assert len(crops_of_it) > 2 and len(crops_of_it.flatten(1).unique(dim=0)) == len(crops_of_it)
    assert repeats(np.array([3, 1, 3, 3, 1, 0])).tolist() == [0, 0, 1, 2, 1, 0]


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_in_mid_epoch_reads_none_of_the_images_before(split: FileSplit, workers: int) -> None:
    loader = stream(split, workers=workers)
    want = list(loader.epoch(3))
    skipped = loader.order(3)[:10]
    loader.close()
    for index in skipped.tolist():
        split.paths[index].unlink()
    resumed = stream(split, workers=workers)
    assert same(list(resumed.epoch(3, start_batch=2)), want[2:])
    assert list(resumed.epoch(3, start_batch=len(resumed))) == []
    with pytest.raises(InputError, match=r"\d+\.jpg: cannot read image: no such file"):
        list(resumed.epoch(3, start_batch=1))
    resumed.close()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("finish_in_workers", [True, False])
def test_a_file_truncated_in_mid_epoch(split: FileSplit, workers: int, finish_in_workers: bool) -> None:
    options = {"workers": workers, "finish_in_workers": finish_in_workers}
    want = list(stream(split, **options).epoch(0))
    index = int(want[2].indices[3])
    path = split.paths[index]
    path.write_bytes(path.read_bytes()[:-300])
    loader = stream(split, **options)
    batches = loader.epoch(0)
    assert same([next(batches), next(batches)], want[:2])
    with pytest.raises(InputError, match=rf"{path.name}: cannot read image: .*truncated") as caught:
        next(batches)
    assert "\n" not in str(caught.value)
    loader.close()
    lenient = stream(split, bad_images="skip", **options)
    got = list(lenient.epoch(0))
    kept = [0, 1, 2, 4]
    assert same([got[2]], [Batch(want[2].inputs[kept], want[2].targets[kept], want[2].indices[kept])])
    assert same(got[:2] + got[3:], want[:2] + want[3:])
    assert got[2].inputs.is_contiguous(memory_format=torch.channels_last)
    assert list(lenient.skipped) == [str(path)] and "truncated" in lenient.skipped[str(path)]
    lenient.close()


def test_a_batch_of_nothing_but_broken_files_is_an_error(split: FileSplit) -> None:
    for path in split.paths[:5]:
        path.write_bytes(b"")
    loader = stream(split, sampler=None, bad_images="skip")
    with pytest.raises(InputError, match=r"no picture of batch 0 of epoch 3 can be read, the first: .*0\.jpg"):
        next(loader.epoch(2))
    with pytest.raises(InputError, match="'error' or 'skip'"):
        stream(split, bad_images="maybe")


def test_a_worker_killed_while_the_network_computes(split: FileSplit) -> None:
    loader = stream(split, workers=2, batch_size=2, prefetch=1)
    want = list(loader.epoch(0))
    batches = loader.epoch(0)
    assert same([next(batches)], want[:1])
    assert loader._pool is not None
    victim = loader._pool._processes[0]
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()  # nothing is raised here, in the middle of somebody's step
    with pytest.raises(InputError, match=r"a loader worker was killed \(SIGKILL\).*use fewer workers") as caught:
        list(batches)
    assert "\n" not in str(caught.value)
    assert same(list(loader.epoch(0)), want)  # the next epoch has new workers
    assert loader._pool is not None
    os.kill(loader._pool._processes[1].pid, signal.SIGKILL)
    time.sleep(0.05)
    with pytest.raises(InputError, match="killed"):
        list(loader.epoch(1))
    loader.close()


def test_workers_end_with_the_loader(split: FileSplit) -> None:
    loader = stream(split, workers=2)
    abandoned = loader.epoch(0)
    next(abandoned)
    assert loader._pool is not None
    processes = loader._pool._processes
    assert all(process.is_alive() for process in processes)
    del loader, abandoned
    assert not any(process.is_alive() for process in processes)


def test_the_house_s_reader_is_known_however_it_is_spelt(split: FileSplit) -> None:
    want = list(stream(split).epoch(0))
    assert same(list(stream(split, decode=functools.partial(pixels, PREPROCESS)).epoch(0)), want)
    built = build_loader(
        split, PREPROCESS, batch_size=5, seed=4, workers=0, sampler=InstanceBalanced(split.labels),
        augment=build_augment("resized-crop-flip-jitter", 16),
    )  # fmt: skip
    assert same(list(built.epoch(0)), want)
    own = stream(split, decode=lambda path: pixels(PREPROCESS, path))  # cropped from what it gives, in batches
    assert not same(list(own.epoch(0)), want)
    evaluated = StreamLoader(split, PREPROCESS, batch_size=50, workers=0)
    shown = next(iter(evaluated.epoch())).inputs
    wanted = PREPROCESS.normalize(torch.stack([pixels(PREPROCESS, path) for path in split.paths]))
    torch.testing.assert_close(shown, wanted, rtol=0, atol=1e-6)


def test_memory_is_batches_and_a_few_bytes_an_image(split: FileSplit) -> None:
    held = []
    for count in (1000, 200_000):
        paths = PackedPaths.pack([split.paths[0]] * 1000).take(np.arange(count) % 1000)
        loader = StreamLoader(
            FileSplit(paths, torch.zeros(count, dtype=torch.int64)), PREPROCESS, batch_size=8, workers=1, prefetch=2,
            sampler=InstanceBalanced(torch.zeros(count, dtype=torch.int64)),
        )  # fmt: skip
        next(loader.epoch(0))
        assert loader._work is not None
        assert loader._work.ring.shape == (3, 1, 8, 16, 16, 3)
        arrays = (loader._work.order, loader._work.repeats, loader._work.state)
        held.append(sum(array.nbytes for array in arrays) + paths.nbytes)
        loader.close()
    assert (held[1] - held[0]) / 199_000 == 24  # order, repeats and the rows of the taken paths
