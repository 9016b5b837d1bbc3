"""The streaming loader: the resident one's batches, the same bits whatever the workers, exact resume, broken files."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from saddlescape.data.augment import ResizedCrop, build_augment
from saddlescape.data.batching import derived_key
from saddlescape.data.loader import build_loader
from saddlescape.data.reader import crop, pixels
from saddlescape.data.resident import ResidentLoader
from saddlescape.data.samplers import InstanceBalanced, build_sampler
from saddlescape.data.stream import StreamLoader, counter_uniform, occurrences
from saddlescape.data.types import ArraySplit, Batch, FileSplit, Preprocess
from saddlescape.errors import InputError

PREPROCESS = Preprocess(image_size=16, resize_to=18, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
SMALL = Preprocess(image_size=8)
COUNT = 40
BATCH = 35  # two pieces of work


@pytest.fixture
def split(tmp_path: Path) -> FileSplit:
    """Forty photographs of two shapes."""
    rng = np.random.default_rng(0)
    paths = []
    for n in range(COUNT):
        paths.append(tmp_path / f"{n}.jpg")
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
        coarse.resize((80, 60) if n % 3 else (60, 80), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return FileSplit(paths, torch.arange(COUNT) % 4)


@pytest.fixture
def files(tmp_path: Path) -> tuple[FileSplit, ArraySplit]:
    """Nineteen PNG files, and the same images as an array."""
    images = np.random.default_rng(0).integers(0, 256, (19, 8, 8, 3)).astype(np.uint8)
    paths = []
    for n, image in enumerate(images):
        paths.append(tmp_path / f"{n}.png")
        Image.fromarray(image).save(paths[-1])
    labels = torch.arange(19) % 3
    return FileSplit(paths, labels), ArraySplit(torch.from_numpy(images).permute(0, 3, 1, 2), labels)


def stream(split: FileSplit, *, augment: str = "resized-crop-flip-jitter", **options: object) -> StreamLoader:
    given: dict[str, object] = {
        "batch_size": BATCH, "sampler": InstanceBalanced(split.labels), "seed": 4, "workers": 0,
        "augment": build_augment(augment, 16),
    }  # fmt: skip
    return StreamLoader(split, PREPROCESS, **{**given, **options})  # type: ignore[arg-type]


def cropped(split: FileSplit, **options: object) -> StreamLoader:
    return StreamLoader(split, PREPROCESS, augment=ResizedCrop(16), workers=0, **options)  # type: ignore[arg-type]


def same(ours: list[Batch], theirs: list[Batch]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return len(ours) == len(theirs) and all(
        torch.equal(a, b) for first, second in pairs for a, b in zip(first[:3], second[:3], strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_gives_the_resident_loader_s_batches_and_resumes(workers: int, files: tuple[FileSplit, ArraySplit]) -> None:
    def built(split: FileSplit | ArraySplit) -> ResidentLoader | StreamLoader:
        return build_loader(
            split, SMALL, batch_size=5, augment=build_augment("crop-flip", 8), sampler=InstanceBalanced(split.labels),
            seed=4, workers=workers,
        )  # fmt: skip

    loader, resident = built(files[0]), built(files[1])
    assert isinstance(loader, StreamLoader) and isinstance(resident, ResidentLoader)
    state = torch.get_rng_state()
    assert len(loader) == len(resident) == 4
    for t in range(2):
        assert same(list(loader.epoch(t)), list(resident.epoch(t)))
    assert same(list(loader.epoch(1, start_batch=2)), list(resident.epoch(1, start_batch=2)))
    assert list(loader.epoch(1, start_batch=4)) == []
    abandoned = loader.epoch(0)
    next(abandoned)
    assert same(list(loader.epoch(1)), list(resident.epoch(1)))  # left in mid-epoch: the next one is whole
    with pytest.raises(InputError, match="one epoch at a time"):
        next(abandoned)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    loader.close()
    assert same(list(loader.epoch(0)), list(resident.epoch(0)))
    loader.close()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
def test_the_number_of_workers_changes_no_pixel(split: FileSplit) -> None:
    want = [list(stream(split).epoch(t)) for t in range(2)]
    assert not same(*want)
    for workers in (1, 3):
        loader = stream(split, workers=workers)
        assert all(same(list(loader.epoch(t)), want[t]) for t in range(2)), workers
        loader.close()
    assert want[0][0].inputs.shape == (BATCH, 3, 16, 16)
    assert want[0][0].inputs.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def spawning() -> Iterator[None]:
    """Workers are new processes, as on Windows and macOS."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.usefixtures("spawning")
def test_spawned_workers_give_the_same(split: FileSplit) -> None:
    loader = stream(split, workers=1)
    assert same(list(loader.epoch(1)), list(stream(split).epoch(1)))
    loader.close()


def test_evaluation_sees_what_the_reader_gives(split: FileSplit) -> None:
    loader = StreamLoader(split, PREPROCESS, batch_size=50, workers=0)
    for t in range(2):
        (batch,) = loader.epoch(t)
        assert batch.indices.tolist() == list(range(COUNT))
        wanted = PREPROCESS.normalize(torch.stack([pixels(PREPROCESS, path) for path in split.paths]))
        torch.testing.assert_close(batch.inputs, wanted, rtol=0, atol=1e-6)


def test_a_crop_is_a_function_of_seed_epoch_and_image(split: FileSplit) -> None:
    """From first principles: key of the epoch, counter of the image, box, crop of the file."""
    plain = cropped(split, batch_size=7, sampler=InstanceBalanced(split.labels), seed=4)
    key = derived_key(4, 2, 1)
    for batch in plain.epoch(1):
        for image, index in zip(batch.inputs, batch.indices.tolist(), strict=True):
            uniform = counter_uniform(key, index, 0)

            def box(w: int, h: int, uniform: np.ndarray = uniform) -> tuple[float, float, float, float]:
                top, left, high, wide = ResizedCrop(16).box(uniform.tolist(), h, w)
                return left, top, left + wide, top + high

            want = np.asarray(crop(PREPROCESS, split.paths[index], 16, box)).astype(np.float32) / 255
            assert np.abs(image.permute(1, 2, 0).numpy() - want).max() < 1e-6
    # In another order and other batches the images have the same crops.
    shown = {int(i): image for batch in plain.epoch(1) for i, image in zip(batch.indices, batch.inputs, strict=True)}
    for batch in cropped(split, batch_size=4, seed=4).epoch(1):
        assert all(torch.equal(shown[int(i)], x) for i, x in zip(batch.indices, batch.inputs, strict=True))
    assert not torch.equal(next(cropped(split, batch_size=4, seed=5).epoch(1)).inputs[0], shown[0])


def test_an_image_that_comes_again_is_cropped_anew(split: FileSplit) -> None:
    sampler = build_sampler("class-balanced", split.labels, num_samples=90)
    batch = next(cropped(split, batch_size=90, sampler=sampler).epoch(0))
    again = int(batch.indices.bincount().argmax())
    crops_of_it = batch.inputs[batch.indices == again]
    assert len(crops_of_it) > 2 and len(crops_of_it.flatten(1).unique(dim=0)) == len(crops_of_it)
    assert occurrences(np.array([3, 1, 3, 3, 1, 0])).tolist() == [0, 0, 1, 2, 1, 0]


def test_numbers_are_philox_s_and_differ_in_every_coordinate() -> None:
    key = np.array([11, 22], dtype=np.uint64)
    got = counter_uniform(key, 5, 1)
    want = np.random.Generator(np.random.Philox(key=key, counter=[0, 5, 1, 0])).random(40)  # NumPy's own way to [0, 1)
    assert np.array_equal(got.ravel(), want) and got.shape == (4, 10)
    assert np.array_equal(got, counter_uniform(key.copy(), 5, 1))
    others = [counter_uniform(key, 6, 1), counter_uniform(key, 5, 0), counter_uniform(key, 1, 5)]
    others.append(counter_uniform(key[::-1].copy(), 5, 1))
    assert len({tuple(numbers.ravel()) for numbers in [got, *others]}) == 5
    first = [counter_uniform(key, i, 0)[0, 0] for i in range(2000)]
    assert stats.kstest(first, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.1


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_in_mid_epoch_reads_none_of_the_images_before(split: FileSplit, workers: int) -> None:
    loader = stream(split, workers=workers, batch_size=5)
    want = list(loader.epoch(3))
    skipped = loader.order(3)[:10]
    loader.close()
    for index in skipped.tolist():
        split.paths[index].unlink()
    resumed = stream(split, workers=workers, batch_size=5)
    assert same(list(resumed.epoch(3, start_batch=2)), want[2:])
    assert list(resumed.epoch(3, start_batch=len(resumed))) == []
    with pytest.raises(InputError, match=r"\d+\.jpg: cannot read image: no such file"):
        list(resumed.epoch(3, start_batch=1))
    resumed.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_truncated_in_mid_epoch_is_named_in_one_line(split: FileSplit, workers: int) -> None:
    loader = stream(split, workers=workers, batch_size=5)
    want = list(loader.epoch(0))
    path = split.paths[int(want[2].indices[3])]
    whole = path.read_bytes()
    path.write_bytes(whole[:-300])
    batches = loader.epoch(0)
    assert same([next(batches), next(batches)], want[:2])
    with pytest.raises(InputError, match=rf"{path.name}: cannot read image: .*truncated") as caught:
        next(batches)
    assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    assert same(list(loader.epoch(0)), want)  # repaired: the same loader goes on
    loader.close()


def test_whatever_goes_wrong_with_a_file_names_it(split: FileSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise MemoryError("no room\nat all")

    monkeypatch.setattr("saddlescape.data.reader.crop", broken)
    with pytest.raises(InputError, match=r"\d+\.jpg: cannot read image: MemoryError: no room at all"):
        next(stream(split).epoch(0))


def test_a_worker_killed_while_the_network_computes(split: FileSplit) -> None:
    loader = stream(split, workers=2, batch_size=2)
    want = list(loader.epoch(0))
    handler = signal.getsignal(signal.SIGCHLD)
    batches = loader.epoch(0)
    assert same([next(batches)], want[:1])
    victim, other = multiprocessing.active_children()
    os.kill(other.pid or 0, signal.SIGINT)  # Ctrl-C reaches the workers too, which leave it to the main process
    os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join()  # nothing is raised here, in the middle of somebody's step
    assert signal.getsignal(signal.SIGCHLD) is handler
    with pytest.raises(InputError, match=r"a loader worker was killed.*use smaller batches") as caught:
        list(batches)
    assert "\n" not in str(caught.value)
    assert same(list(loader.epoch(0)), want)  # the next epoch has new workers
    loader.close()


def test_workers_end_with_the_loader(split: FileSplit) -> None:
    loader = stream(split, workers=2, batch_size=5)
    abandoned = loader.epoch(0)
    next(abandoned)
    assert len(multiprocessing.active_children()) == 2
    del loader, abandoned
    assert not multiprocessing.active_children()


def test_bad_input_is_one_clear_line(split: FileSplit) -> None:
    with pytest.raises(InputError, match="workers >= 0"):
        stream(split, workers=-1)
    with pytest.raises(InputError, match="40 images and 2 labels"):
        StreamLoader(FileSplit(split.paths, torch.zeros(2).long()), PREPROCESS, batch_size=5)
