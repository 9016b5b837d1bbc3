"""Engines: whichever carries a grid out, with workers killed and grids stopped, its results are the serial ones to the
bit, and a run that fails ends no other."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from saddlescape.records import files
from saddlescape.runs.engines import Engine, Epoch, Job, Processes, RayCluster, Step
from saddlescape.runs.engines import serial as serial_engine
from saddlescape.runs.grid import FailedRuns, run_grid
from saddlescape.runs.request import Request
from saddlescape.training.checkpoint import CheckpointFolder
from saddlescape.training.loop import Interrupted
from support import assert_same_end, timeless

EPOCHS = 12
REQUEST = Request(data="digits", imbalance=50.0, epochs=EPOCHS, device="cpu", compile=False, eval_every=4)
# crt goes on from the first stage of ce; vs is given a learning rate with which it diverges.
METHODS, BAD = ["ce", "vs", "crt", "ce+sam"], "vs"

Watch = Callable[[Sequence[Job], Step | Epoch], None]


def nothing(jobs: Sequence[Job], event: Step | Epoch) -> None:
    pass


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    for method in METHODS:
        (folder / method).mkdir()
        settings = ["train.lr=1e30"] if method == BAD else []
        files.write_json(folder / method / "tuned.json", {"method": method, "settings": settings})
    return folder


class Told(list[str]):
    """The lines that a grid said."""

    def about(self, method: str) -> str:
        return "\n".join(line for line in self if f"] {method} seed" in line)


def carry_out(folder: Path, tuned: Path, engine: Engine, watch: Watch = nothing) -> tuple[FailedRuns, Told]:
    """The grid, in which one run fails."""
    said = Told()
    with pytest.raises(FailedRuns) as failed:
        run_grid(
            REQUEST, METHODS, [0], folder, tuned=tuned, engine=engine, threads=1, say=said.append, watch=watch
        )  # fmt: skip
    return failed.value, said


def assert_same(one: Path, two: Path, found: FailedRuns, expected: FailedRuns) -> None:
    """Two folders of the grid: results, metrics and final weights are the same, the failure too."""
    assert list(map(timeless, found.results)) == list(map(timeless, expected.results))
    assert str(found).replace(str(two), "") == str(expected).replace(str(one), "")
    for method in set(METHODS) - {BAD}:
        assert_same_end(one / f"{method}-seed0", two / f"{method}-seed0")


@pytest.fixture(scope="module")
def serial(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FailedRuns, Told]:
    folder = tmp_path_factory.mktemp("serial") / "grid"
    threads = torch.get_num_threads()
    try:
        return folder, *carry_out(folder, tuned, serial_engine)
    finally:
        torch.set_num_threads(threads)


def test_a_finished_grid_is_read_and_what_failed_tried_again(
    serial: tuple[Path, FailedRuns, Told], tuned: Path
) -> None:
    folder, failed, _ = serial
    again, said = carry_out(folder, tuned, serial_engine)
    assert again.results == failed.results
    assert str(again) == str(failed)
    assert sum("is finished" in line for line in said) == 3


def at_work(process: Any) -> Path | None:
    """The run that a process holds, if any."""
    with contextlib.suppress(psutil.Error):
        for file in process.open_files():
            if Path(file.path).name == files.LOCK:
                return Path(file.path).parent
    return None


class KillOne:
    """A watch that kills one process below this one, in the middle of a run that has a checkpoint."""

    def __init__(self) -> None:
        self.killed: list[str] = []

    def __call__(self, jobs: Sequence[Job], event: Step | Epoch) -> None:
        for process in [] if self.killed else psutil.Process().children(recursive=True):
            run = at_work(process)
            if run is None or run.name.startswith(BAD):
                continue
            cursors = CheckpointFolder(run / files.CHECKPOINT).cursors()
            if cursors and cursors[-1].epoch < EPOCHS // 2:
                process.kill()
                self.killed.append(run.name.removesuffix("-seed0"))
                return


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "cause"),
    [("processes", "killed or crashed; if out of memory, use fewer --jobs"), ("ray", "WorkerCrashedError: ")],
)
def test_workers_of_which_one_is_killed(
    engine: str, cause: str, request: pytest.FixtureRequest, serial: tuple[Path, FailedRuns, Told], tuned: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole, expected, _ = serial
    monkeypatch.chdir(tmp_path)  # a relative folder is the same to all workers
    kill = KillOne()
    failed, said = carry_out(Path("grid"), tuned, engine_of(engine, request), kill)
    assert_same(whole, Path("grid"), failed, expected)
    (method,) = kill.killed
    assert f"its worker died ({cause}" in said.about(method)
    assert "another one resumes it" in said.about(method)
    assert "resuming" in said.about(method)
    assert "first stage: that of" in said.about("crt")
    assert not multiprocessing.active_children()


def engine_of(name: str, request: pytest.FixtureRequest) -> Engine:
    if name == "processes":
        return Processes(2)
    request.getfixturevalue("ray")
    return RayCluster(2)


class StopOnce:
    """A watch that sends this process a SIGTERM at the end of the first epoch of ce."""

    def __init__(self) -> None:
        self.sent = False

    def __call__(self, jobs: Sequence[Job], event: Step | Epoch) -> None:
        if isinstance(event, Epoch) and event.label.endswith("] ce seed 0") and not self.sent:
            self.sent = True
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("engine", ["processes", pytest.param("ray", marks=pytest.mark.slow)])
def test_workers_that_are_stopped(
    engine: str, request: pytest.FixtureRequest, serial: tuple[Path, FailedRuns, Told], tuned: Path, tmp_path: Path
) -> None:
    whole, expected, _ = serial
    grid, workers = tmp_path / "grid", engine_of(engine, request)
    with pytest.raises(Interrupted):
        run_grid(REQUEST, METHODS, [0], grid, tuned=tuned, engine=workers, threads=1, watch=StopOnce())
    assert not [child for child in psutil.Process().children(recursive=True) if at_work(child)]
    assert CheckpointFolder(grid / "ce-seed0" / files.CHECKPOINT).cursors()
    assert not (grid / "crt-seed0").exists()
    failed, said = carry_out(grid, tuned, serial_engine)
    assert "resuming" in said.about("ce")
    assert_same(whole, grid, failed, expected)


@pytest.mark.slow
def test_a_grid_that_is_killed_leaves_nobody_behind(tmp_path: Path) -> None:
    words = ["reproduce", "digits-lt", "--methods", "ce", "--epochs", "2000", "--device", "cpu", "--no-compile"]
    words += ["--engine", "processes", "--jobs", "1", "--eval-every", "2000", "--out", "grid"]
    run = tmp_path / "grid" / "ce-seed0"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "saddlescape", *words], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    ) as grid:
        while grid.poll() is None and not files.read_rows(run / files.METRICS):
            time.sleep(0.01)
        assert grid.poll() is None
        grid.kill()
    while True:
        try:
            with files.locked(run):
                break
        except files.InputError:
            time.sleep(0.05)
    rows = len(files.read_rows(run / files.METRICS))
    newest = CheckpointFolder(run / files.CHECKPOINT).newest()
    assert newest is not None
    assert newest.cursor.epoch == rows < 2000  # it wrote where it was, and went no further


@pytest.fixture(scope="module")
def ray() -> Any:
    ray = pytest.importorskip("ray", reason="the package ray (extra ray) is not installed")
    from saddlescape.runs.engines.ray_cluster import STORE, import_ray

    import_ray()
    ray.init(
        address="local", num_cpus=2, num_gpus=0, object_store_memory=STORE, include_dashboard=False,
        log_to_driver=False, logging_level="ERROR",
    )  # fmt: skip
    yield ray
    ray.shutdown()


def test_a_run_that_no_machine_of_the_cluster_has_room_for(ray: Any, tmp_path: Path) -> None:
    with pytest.raises(files.InputError, match=r"no machine of the Ray cluster has 64 CPU for a run; use --threads"):
        run_grid(REQUEST, ["ce"], [0], tmp_path / "grid", engine=RayCluster(), threads=64)
