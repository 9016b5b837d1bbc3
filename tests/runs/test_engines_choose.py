"""From words to an engine: the defaults, the threads, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from saddlescape.data.cores import SHARE, usable_cores
from saddlescape.errors import InputError, MissingExtraError
from saddlescape.runs.engines import Choice, Processes, RayCluster, choose, processes, serial
from saddlescape.runs.engines.processes import environments
from saddlescape.runs.engines.ray_cluster import enter, versions


@pytest.fixture(autouse=True)
def _six_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)


def cpu(name: str | None, jobs: int | None, **more: object) -> Choice:
    return choose(name, jobs, device="cpu", **{"runs": 8, **more})  # type: ignore[arg-type]


def test_what_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[choose.__module__], "usable_cores", lambda: 3)
    for words in ((None, None), (None, 1), ("serial", None), ("serial", 1)):
        choice = cpu(*words)
        assert choice.engine is serial
        assert (choice.threads, choice.notes) == (6, ())
    assert cpu(None, 2).engine == Processes(2)
    assert cpu("processes", None).engine == Processes(3)
    assert cpu("processes", None).threads == 2
    assert cpu(None, 16).engine == Processes(8)  # no more than there are runs


def test_the_threads_do_not_hang_on_the_engine() -> None:
    pytest.importorskip("ray", reason="the package ray (extra ray) is not installed")
    assert cpu("ray", 2).threads == cpu("processes", 2).threads == 3
    assert cpu("ray", None).threads == cpu("serial", None).threads == 6
    assert (
        cpu("ray", 4, threads=5).threads == cpu(None, 4, threads=5).threads == cpu(None, None, threads=5).threads == 5
    )
    assert cpu(None, 100, runs=50).threads == 1
    assert cpu("ray", None, gpus_per_run=0.25, address="auto").engine == RayCluster(None, 0.25, "auto")


def test_another_number_of_threads_is_told() -> None:
    assert cpu(None, 2).notes == (
        "processes: 2 runs at a time",
        "3 of 6 threads for each run: its sums round otherwise than with 6; --threads decides",
    )
    assert len(cpu(None, 2, threads=6).notes) == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"name": "dask", "jobs": None}, "unknown engine 'dask'; known are serial, processes, ray"),
        ({"name": None, "jobs": 0}, "--jobs 0: at least 1"),
        ({"name": None, "jobs": 2, "threads": 0}, "--threads 0: at least 1"),
        ({"name": "serial", "jobs": 2}, "one run at a time"),
        ({"name": None, "jobs": 2, "gpus_per_run": 0.5}, "--gpus-per-run is for --engine ray, this is --engine proc"),
        ({"name": None, "jobs": None, "address": "auto"}, "--address is for --engine ray, this is --engine serial"),
    ],
)
def test_what_is_refused(words: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        cpu(**words)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_a_part_of_a_gpu_is_at_most_one(share: float) -> None:
    pytest.importorskip("ray", reason="the package ray (extra ray) is not installed")
    with pytest.raises(InputError, match="more than 0 and at most 1"):
        cpu("ray", None, gpus_per_run=share)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"saddlescape\[ray\]"):
        cpu("ray", None)


def test_each_process_has_its_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "usable_cores", lambda: 7)
    assert environments(3, {"cpu"}) == [{SHARE: "2"}] * 3
    assert environments(9, {"cpu"}) == [{SHARE: "1"}] * 9
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [one.get("CUDA_VISIBLE_DEVICES") for one in environments(3, {"cuda"})] == ["0", "1", "0"]
    assert [one.get("CUDA_VISIBLE_DEVICES") for one in environments(2, {"cuda:1"})] == [None, None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [one.get("CUDA_VISIBLE_DEVICES") for one in environments(3, {"cuda"})] == ["3", "5", "3"]


def test_cores_beyond_the_share_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SHARE, raising=False)
    all_of_them = usable_cores()
    for text, cores in (
        ("1", 1),
        ("100000", all_of_them),
        ("", all_of_them),
        ("many", all_of_them),
        ("0", all_of_them),
    ):
        monkeypatch.setenv(SHARE, text)
        assert usable_cores() == cores


# What a worker of Ray must have in common with the grid.


def test_a_worker_of_the_same_place_may_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "grid").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)  # workers begin elsewhere
    enter(tmp_path / "here", Path("grid"), versions())
    assert Path.cwd() == tmp_path / "here"


def test_a_worker_that_does_not_see_the_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not see the folder .*grid that the grid is written to: all machines"):
        enter(tmp_path, Path("grid"), versions())


@pytest.mark.parametrize("package", ["saddlescape", "torch"])
def test_a_worker_with_other_versions_is_an_error(package: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"has {package} .*, the grid was planned with 0\.0\.1"):
        enter(tmp_path, tmp_path, versions() | {package: "0.0.1"})
