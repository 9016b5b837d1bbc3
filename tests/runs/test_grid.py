"""Grids: rows by seeds, planned before anything is trained, read back when finished, gone on when killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from saddlescape.errors import InputError
from saddlescape.runs.engines import job as module
from saddlescape.runs.grid import parse_methods, run_grid
from saddlescape.runs.request import Request
from saddlescape.training import loop

METHODS, SEEDS = ["ce+drw", "ce+drw+sam"], [0, 1]
REQUEST = Request(data="digits", imbalance=50.0, epochs=1, rho=0.1, device="cpu", compile=False)


class Killed(BaseException):
    """The end of the process, as far as the grid can tell."""


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A grid that was killed in its third run and gone on with."""
    folder = tmp_path_factory.mktemp("grid") / "grid"
    whole, calls = loop.train_step, [0]

    def counted(*args: Any, **kw: Any) -> Any:
        calls[0] += 1
        if calls[0] == 8:  # three steps a run
            raise Killed
        return whole(*args, **kw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", counted)
        with pytest.raises(Killed):
            run_grid(REQUEST, METHODS, SEEDS, folder)
        done = [path.parent.name for path in sorted(folder.glob("*/result.json"))]
        assert done == ["ce+drw-seed0", "ce+drw-seed1"]
        times = {name: (folder / name / "result.json").stat().st_mtime_ns for name in done}
        results = run_grid(REQUEST, METHODS, SEEDS, folder)
        assert calls[0] == 8 + 2 * 3  # the finished runs were read, not trained again
    for name, time in times.items():
        assert (folder / name / "result.json").stat().st_mtime_ns == time
    return folder, results


def test_every_run_has_its_folder_and_result(grid: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, results = grid
    assert [(r["method"], r["seed"]) for r in results] == [(m, s) for m in METHODS for s in SEEDS]
    for result in results:
        written = json.loads((folder / f"{result['method']}-seed{result['seed']}" / "result.json").read_text())
        assert written == {k: v for k, v in result.items() if k != "settings"}
    assert len({r["draw_hash"] for r in results}) == 1
    assert len({r["accuracy"] for r in results}) > 1
    # One radius for the rows that have one, and it is told.
    assert [r["settings"] for r in results] == [[], [], ["rho 0.1 (0.2)"], ["rho 0.1 (0.2)"]]


def test_a_bad_row_is_found_before_the_first_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kw: Any) -> None:
        pytest.fail("something was trained")

    monkeypatch.setattr(module, "execute", never)
    with pytest.raises(InputError, match="did you mean 'sam'"):
        run_grid(REQUEST, ["ce", "ce+smm"], [0], tmp_path / "grid")
    assert not (tmp_path / "grid").exists()


def test_lists_of_methods() -> None:
    assert parse_methods("all", ("ce", "vs")) == ["ce", "vs"]
    assert parse_methods(" ce , ce+sam,", ("vs",)) == ["ce", "ce+sam"]
    with pytest.raises(InputError, match="names no method"):
        parse_methods(" , ", ("ce",))
    with pytest.raises(InputError, match="names ce twice"):
        parse_methods("ce,vs,ce", ("ce",))


@pytest.mark.parametrize(("methods", "seeds"), [(["ce+sam", "SAM+CE"], [0]), (["ce"], [0, 1, 0])])
def test_one_run_twice_is_refused(tmp_path: Path, methods: list[str], seeds: list[int]) -> None:
    """It would count twice in the mean and shrink the spread."""
    with pytest.raises(InputError, match="twice"):
        run_grid(REQUEST, methods, seeds, tmp_path / "grid")
    assert not (tmp_path / "grid").exists()
