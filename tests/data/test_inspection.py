"""Every file of a set read once: on threads or in processes, damaged ones named, the same bytes found."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saddlescape.data import inspection
from saddlescape.data.inspection import inspect, same
from saddlescape.data.paths import PackedPaths
from saddlescape.data.types import FileSplit
from saddlescape.errors import InputError


@pytest.fixture
def pictures(tmp_path: Path) -> FileSplit:
    rng = np.random.default_rng(0)
    names = [f"{i:03d}.jpg" for i in range(100)]
    for i, name in enumerate(names):
        Image.fromarray(rng.integers(0, 256, (8 + i % 5, 12, 3)).astype(np.uint8)).save(tmp_path / name)
    (tmp_path / names[70]).write_bytes((tmp_path / names[3]).read_bytes())
    (tmp_path / names[71]).write_bytes((tmp_path / names[3]).read_bytes())
    (tmp_path / names[40]).write_bytes((tmp_path / names[41]).read_bytes())
    (tmp_path / names[9]).write_bytes((tmp_path / names[9]).read_bytes()[:-200])
    (tmp_path / names[10]).write_text("no picture")
    (tmp_path / names[99]).unlink()
    return FileSplit(PackedPaths.pack(names, tmp_path), torch.zeros(100, dtype=torch.int64))


@pytest.mark.parametrize("processes", [False, True])
def test_finds_what_was_done_to_the_files(
    pictures: FileSplit, processes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if processes:
        monkeypatch.setattr(inspection, "_FEW", 10)
    told: list[tuple[str, int, int | None]] = []
    found = inspect(pictures, workers=2, what="looking", progress=lambda *news: told.append(news))
    assert sorted(found.unreadable) == [9, 10, 99]
    for i, words in ((9, "truncated"), (10, "looks like text"), (99, "no such file")):
        assert words in found.unreadable[i].lower() and pictures.name(i) in found.unreadable[i]
    assert found.sides.tolist() == [0 if i in (9, 10, 99) else side(i) for i in range(100)]
    assert same(found.hashes, found.sides > 0) == [[3, 70, 71], [40, 41]]
    assert told[-1] == ("looking", 100, 100) and [done for _, done, _ in told] == [32, 64, 96, 100]


def side(i: int) -> int:
    return 8 + {70: 3, 71: 3, 40: 41}.get(i, i) % 5


def _die(paths: object, white_level: float) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_line(pictures: FileSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_FEW", 10)
    monkeypatch.setattr(inspection, "_of_files", _die)
    with pytest.raises(InputError, match=r"a worker of the check was killed.*fewer"):
        inspect(pictures, workers=1)
    with pytest.raises(InputError, match="at least one worker"):
        inspect(pictures, workers=0)


def test_nothing_is_alike_in_nothing() -> None:
    assert same(np.zeros((0, 16), np.uint8), np.zeros(0, bool)) == []
    hashes = np.zeros((4, 16), np.uint8)
    hashes[:, 15] = [1, 2, 1, 1]
    assert same(hashes, np.array([True, True, True, False])) == [[0, 2]]
