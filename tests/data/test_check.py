"""Every file of a set read once: damaged ones named, the same bytes found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saddlescape.data import load
from saddlescape.data.check import check, inspect, same
from saddlescape.data.draw import count_labels
from saddlescape.data.paths import PackedPaths
from saddlescape.data.types import FileSplit
from saddlescape.errors import InputError


@pytest.fixture
def images(tmp_path: Path) -> FileSplit:
    rng = np.random.default_rng(0)
    names = [f"{i:03d}.jpg" for i in range(100)]
    for i, name in enumerate(names):
        Image.fromarray(rng.integers(0, 256, (8 + i % 5, 12, 3)).astype(np.uint8)).save(tmp_path / name)
    (tmp_path / names[70]).write_bytes((tmp_path / names[3]).read_bytes())
    (tmp_path / names[71]).write_bytes((tmp_path / names[3]).read_bytes())
    (tmp_path / names[40]).write_bytes((tmp_path / names[41]).read_bytes())
    (tmp_path / names[9]).write_bytes((tmp_path / names[9]).read_bytes()[:-200])
    (tmp_path / names[10]).write_text("no image")
    (tmp_path / names[99]).unlink()
    return FileSplit(PackedPaths.pack(names, tmp_path), torch.zeros(100, dtype=torch.int64))


def test_finds_what_was_done_to_the_files(images: FileSplit) -> None:
    calls: list[tuple[str, int, int | None]] = []
    hashes, sides = np.zeros((100, 16), np.uint8), np.zeros(100, np.int32)
    bad, remarks = inspect(
        images, hashes, sides, workers=2, what="looking", progress=lambda *given: calls.append(given)
    )
    assert [i for i, _ in bad] == [9, 10, 99] and remarks == []
    for (i, reason), words in zip(bad, ("truncated", "looks like text", "no such file"), strict=True):
        assert words in reason.lower() and images.name(i) in reason
    assert sides.tolist() == [0 if i in (9, 10, 99) else side(i) for i in range(100)]
    assert same(hashes, sides > 0) == [[3, 70, 71], [40, 41]]
    assert calls[-1] == ("looking", 100, 100) and [done for _, done, _ in calls] == [32, 64, 96, 100]
    with pytest.raises(InputError, match="at least one worker"):
        inspect(images, hashes, sides, workers=0)


def side(i: int) -> int:
    return 8 + {70: 3, 71: 3, 40: 41}.get(i, i) % 5


def test_nothing_is_alike_in_nothing() -> None:
    assert same(np.zeros((0, 16), np.uint8), np.zeros(0, bool)) == []
    hashes = np.zeros((4, 16), np.uint8)
    hashes[:, 15] = [1, 2, 1, 1]
    assert same(hashes, np.array([True, True, True, False])) == [[0, 2]]


def test_the_split_is_the_one_that_training_has(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, number in (("ant", 12), ("bee", 5), ("cat", 1)):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(number):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "own" / name / f"{i}.png")
    report, data = check(tmp_path / "own"), load(tmp_path / "own")
    assert report.counts == {"train": data.class_counts, "test": count_labels(data.test.labels, 3)}
    assert {note for note in report.notes if "groups" in note} == {note for note in data.notes if "groups" in note}
