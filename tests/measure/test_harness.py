"""A growing file is written seldom enough not to be the work, and at the end is whole."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from saddlescape.measure import harness as paced


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(paced.time, "monotonic", lambda: now[0])
    return now


def test_writing_takes_a_twentieth_of_the_time_however_long_the_file(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    written: list[int] = []

    def write(path: Path, value: Any) -> None:
        written.append(len(value))
        clock[0] += 0.001 * len(value)  # a millisecond a row

    monkeypatch.setattr(paced.files, "write_json", write)
    file = paced.PacedFile(tmp_path / "rows.json", rows)
    for number in range(8142):
        rows.append(number)
        clock[0] += 0.5  # the work
        file.changed()
    file.flush()
    assert written[0] == 1 and written[-1] == 8142
    spent = 0.001 * sum(written[:-1])
    assert spent < 0.052 * clock[0]
    assert len(written) < 600  # 8,142 times a file of half that many rows on average would be 9 hours of writing
    # What a kill can lose: never more than 20 times a write, in work.
    assert all(after - before <= 2 + 20 * 0.001 * before / 0.5 for before, after in itertools.pairwise(written))


def test_a_small_file_is_written_at_every_row(tmp_path: Path, clock: list[float]) -> None:
    rows: list[int] = []
    file = paced.PacedFile(tmp_path / "rows.json", rows)
    for number in range(3):
        rows.append(number)
        clock[0] += 1
        file.changed()
        assert json.loads((tmp_path / "rows.json").read_text()) == rows
    (tmp_path / "rows.json").unlink()
    file.flush()  # nothing has changed
    assert not (tmp_path / "rows.json").exists()
