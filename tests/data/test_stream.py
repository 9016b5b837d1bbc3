"""The streaming loader: the same batches as the resident one, in worker processes, and what happens to bad files."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from saddlescape.data.augment import build_augment
from saddlescape.data.loader import build_loader
from saddlescape.data.resident import ResidentLoader
from saddlescape.data.samplers import InstanceBalanced
from saddlescape.data.stream import StreamLoader
from saddlescape.data.types import ArraySplit, Batch, FileSplit, Preprocess
from saddlescape.errors import InputError

PREPROCESS = Preprocess(image_size=8)

# Workers started by spawn import what they unpickle, so the decoders live in a module of their own on sys.path.
DECODERS = """
import os, signal
import numpy as np, torch
from PIL import Image

def decode(path):
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()

def die_at_7(path):
    if path.stem == "7":
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(path)

def floats(path):
    return decode(path).float()
"""


@pytest.fixture
def decoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "stream_test_decoders.py").write_text(DECODERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("stream_test_decoders")
    return importlib.reload(module)


@pytest.fixture
def files(tmp_path: Path) -> tuple[FileSplit, ArraySplit]:
    """Nineteen PNG files, and the same pictures as an array."""
    images = np.random.default_rng(0).integers(0, 256, (19, 8, 8, 3)).astype(np.uint8)
    paths = []
    for n, image in enumerate(images):
        paths.append(tmp_path / f"{n}.png")
        Image.fromarray(image).save(paths[-1])
    labels = torch.arange(19) % 3
    return FileSplit(paths, labels), ArraySplit(torch.from_numpy(images).permute(0, 3, 1, 2), labels)


def options(split: FileSplit | ArraySplit) -> dict[str, object]:
    return {
        "batch_size": 5,
        "augment": build_augment("crop-flip", 8),
        "sampler": InstanceBalanced(split.labels),
        "seed": 4,
        "views": 2,
    }


def same(ours: list[Batch], theirs: list[Batch]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(torch.equal(a, b) for first, second in pairs for a, b in zip(first[:3], second[:3], strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_gives_the_resident_loader_s_batches_and_resumes(
    workers: int, files: tuple[FileSplit, ArraySplit], decoders: ModuleType
) -> None:
    on_disk, in_memory = files
    resident = ResidentLoader(in_memory, PREPROCESS, **options(in_memory))  # type: ignore[arg-type]
    state = torch.get_rng_state()
    stream = build_loader(on_disk, PREPROCESS, decode=decoders.decode, workers=workers, **options(on_disk))  # type: ignore[arg-type]
    assert isinstance(stream, StreamLoader) and len(stream) == len(resident) == 4 and not stream.fixed
    for t in range(2):
        assert same(list(stream.epoch(t)), list(resident.epoch(t)))
    assert same(list(stream.epoch(1, start_batch=2)), list(resident.epoch(1, start_batch=2)))
    assert list(stream.epoch(1, start_batch=4)) == []
    abandoned = stream.epoch(0)
    next(abandoned)
    assert same(list(stream.epoch(1)), list(resident.epoch(1)))  # left in mid-epoch: the next one is whole
    with pytest.raises(InputError, match="one epoch at a time"):
        next(abandoned)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    stream.close()
    assert same(list(stream.epoch(0)), list(resident.epoch(0)))


def test_workers_under_spawn(files: tuple[FileSplit, ArraySplit], decoders: ModuleType) -> None:
    on_disk, in_memory = files
    stream = StreamLoader(on_disk, PREPROCESS, decoders.decode, batch_size=9, workers=1, start_method="spawn")
    want = list(ResidentLoader(in_memory, PREPROCESS, batch_size=9).epoch(0))
    assert [len(batch.targets) for batch in want] == [9, 10]
    for t in range(2):  # in order and alike in every epoch: evaluation
        assert same(list(stream.epoch(t)), want)
    assert stream.fixed
    stream.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_broken_in_mid_epoch_is_named_in_one_line(
    workers: int, files: tuple[FileSplit, ArraySplit], decoders: ModuleType
) -> None:
    on_disk, in_memory = files
    bad = on_disk.paths[12]
    whole = bad.read_bytes()
    bad.write_bytes(whole[:40])
    stream = StreamLoader(on_disk, PREPROCESS, decoders.decode, batch_size=5, workers=workers)
    batches = stream.epoch(0)
    good = [next(batches), next(batches)]
    assert same(good, list(ResidentLoader(in_memory, PREPROCESS, batch_size=5).epoch(0))[:2])
    with pytest.raises(InputError) as caught:
        next(batches)
    assert str(bad) in str(caught.value) and "\n" not in str(caught.value)
    bad.write_bytes(whole)
    assert len(list(stream.epoch(0))) == 4  # mended, the same loader goes on
    bad.unlink()
    with pytest.raises(InputError, match=rf"No such file.*{bad.name}"):
        list(stream.epoch(0))


def test_a_killed_worker_is_one_line_and_not_a_hang(files: tuple[FileSplit, ArraySplit], decoders: ModuleType) -> None:
    stream = StreamLoader(files[0], PREPROCESS, decoders.die_at_7, batch_size=5, workers=1, start_method="fork")
    with pytest.raises(InputError, match=r"worker was killed.*use fewer workers") as caught:
        list(stream.epoch(0))
    assert "\n" not in str(caught.value)


def test_bad_decoders_and_options_are_refused(files: tuple[FileSplit, ArraySplit], decoders: ModuleType) -> None:
    on_disk = files[0]
    with pytest.raises(InputError, match=r"0\.png gave float32 \[3, 8, 8\], not a uint8 tensor"):
        list(StreamLoader(on_disk, PREPROCESS, decoders.floats, batch_size=5, workers=0).epoch())
    Image.new("RGB", (9, 9)).save(on_disk.paths[3])
    with pytest.raises(InputError, match=r"differ in shape, \(3, 8, 8\) and \(3, 9, 9\)"):
        list(StreamLoader(on_disk, PREPROCESS, decoders.decode, batch_size=5, workers=0).epoch())
    with pytest.raises(InputError, match="decode cannot be sent to loader workers"):
        StreamLoader(on_disk, PREPROCESS, lambda path: decoders.decode(path), batch_size=5, start_method="spawn")
    with pytest.raises(InputError, match=r"unknown start method 'thread'.*spawn"):
        StreamLoader(on_disk, PREPROCESS, decoders.decode, batch_size=5, workers=1, start_method="thread")
    with pytest.raises(InputError, match="workers >= 0"):
        StreamLoader(on_disk, PREPROCESS, decoders.decode, batch_size=5, workers=-1)
    with pytest.raises(InputError, match="19 paths and 2 labels"):
        StreamLoader(FileSplit(on_disk.paths, torch.zeros(2).long()), PREPROCESS, decoders.decode, batch_size=5)
