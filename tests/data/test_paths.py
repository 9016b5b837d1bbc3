"""Packed paths are the sequence of paths that they were made from, in less memory, shared by what is taken."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from saddlescape.data.paths import PackedPaths, take_paths

NAMES = ["a.jpg", "sub/b c.jpg", "é/ü.png", os.fsdecode(b"caf\xe9.png"), "x" * 300]


@pytest.mark.parametrize("base", ["", "/data/images"])
def test_is_the_sequence_it_was_made_from(base: str) -> None:
    packed = PackedPaths.pack(NAMES, base)
    want = [Path(base) / name if base else Path(name) for name in NAMES]
    assert list(packed) == want and len(packed) == 5
    assert packed[-1] == want[-1] and packed[1:4:2][1] == want[3]
    assert [packed.text(i) for i in range(5)] == [str(path) for path in want]
    assert want[2] in packed
    for i in (5, -6):
        with pytest.raises(IndexError, match=f"no path {i} among 5"):
            packed.text(i)


def test_taking_shares_the_bytes_and_takes_again() -> None:
    packed = PackedPaths.pack(NAMES)
    taken = packed.take([4, 0, 0, 2])
    assert list(taken) == [Path(NAMES[i]) for i in (4, 0, 0, 2)]
    assert list(taken.take(np.array([3, 1]))) == [Path(NAMES[2]), Path(NAMES[0])]
    assert taken._characters.data_ptr() == packed._characters.data_ptr()
    assert isinstance(take_paths(packed, [1]), PackedPaths)
    assert take_paths([Path("a"), Path("b")], np.array([1, 0])) == [Path("b"), Path("a")]
    assert list(pickle.loads(pickle.dumps(taken))) == list(taken)
    assert len(PackedPaths.pack([])) == 0


def test_takes_the_bytes_of_the_paths_and_eight_more_each() -> None:
    names = [f"train/n{i:08d}/n{i:08d}_{i}.JPEG" for i in range(20_000)]
    packed = PackedPaths.pack(names, "/data")
    assert packed.nbytes == sum(map(len, names)) + 8 * 20_001
    assert packed.text(12_345) == f"/data/{names[12_345]}"
