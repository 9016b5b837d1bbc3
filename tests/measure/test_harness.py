"""A growing file is written seldom enough not to be the work, and at the end is whole."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from saddlescape.errors import InputError
from saddlescape.measure import harness
from saddlescape.measure.harness import Growing
from saddlescape.records.surface import SurfaceFact, SurfaceFacts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(harness.time, "monotonic", lambda: now[0])
    return now


def growing(folder: Path, **settings: int) -> Growing[SurfaceFacts]:
    return Growing(folder / "rows.json", SurfaceFacts(settings=settings), folder)


def test_writing_takes_a_twentieth_of_the_time_however_long_the_file(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def write(self: SurfaceFacts, path: Path) -> None:
        written.append(len(self.surfaces))
        clock[0] += 0.001 * len(self.surfaces)  # a millisecond a row

    monkeypatch.setattr(SurfaceFacts, "save", write)
    with growing(tmp_path) as file:
        for number in range(8142):
            file.content.surfaces.append(SurfaceFact(label=number))
            clock[0] += 0.5  # the work
            file.changed()
    assert written[0] == 1 and written[-1] == 8142
    spent = 0.001 * sum(written[:-1])
    assert spent < 0.052 * clock[0]
    assert len(written) < 600  # 8,142 times a file of half that many rows on average would be 9 hours of writing
    # What a kill can lose: never more than 20 times a write, in work.
    assert all(after - before <= 2 + 20 * 0.001 * before / 0.5 for before, after in itertools.pairwise(written))


def test_a_small_file_is_written_at_every_row(tmp_path: Path, clock: list[float]) -> None:
    with growing(tmp_path) as file:
        for number in range(3):
            file.content.surfaces.append(SurfaceFact(label=number, lowest=float("inf")))
            clock[0] += 1
            file.changed()
            rows = SurfaceFacts.read(file.path).surfaces
            assert rows == [SurfaceFact(label=each) for each in range(number + 1)]  # infinite is null
        file.path.unlink()
    assert not file.path.exists()  # nothing had changed


def test_a_file_is_held_by_one_and_kept_under_the_same_settings_only(tmp_path: Path) -> None:
    with growing(tmp_path, seed=1) as file:
        file.content.surfaces.append(SurfaceFact(label=3))
        file.changed()
        with pytest.raises(InputError, match="in use"):
            growing(tmp_path, seed=1)
    with growing(tmp_path, seed=1) as file:
        assert [row.label for row in file.content.surfaces] == [3]
    lines: list[str] = []
    with Growing(tmp_path / "rows.json", SurfaceFacts(settings={"seed": 2}), tmp_path, lines.append) as file:
        assert not file.content.surfaces
    assert lines == [f"measuring again, because of another seed; the former is now {tmp_path / 'rows.1.json'}"]
    assert SurfaceFacts.read(tmp_path / "rows.1.json").surfaces[0].label == 3
