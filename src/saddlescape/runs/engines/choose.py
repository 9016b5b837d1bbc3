"""The engine that ``--engine``, ``--jobs`` and the like ask for, and the threads of each run."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from saddlescape.data.cores import usable_cores
from saddlescape.errors import InputError
from saddlescape.runs.engines.job import Engine, serial
from saddlescape.runs.engines.processes import Processes
from saddlescape.runs.engines.ray_cluster import RayCluster, import_ray
from saddlescape.training.precision import resolve_device

ENGINES = ("serial", "processes", "ray")
RUNS_PER_GPU = 4


@dataclass(frozen=True)
class Choice:
    """An engine, the threads of each run, and notes about both for a person."""

    engine: Engine
    threads: int
    notes: tuple[str, ...]


def choose(
    name: str | None,
    jobs: int | None,
    *,
    runs: int,
    device: str = "auto",
    threads: int | None = None,
    gpus_per_run: float | None = None,
    address: str | None = None,
) -> Choice:
    """The engine ``name`` for a grid of ``runs`` runs on ``device``, ``jobs`` at a time.

    The bits of a run on a CPU depend on its number of threads and on nothing else that is decided here. That number
    is ``threads``, or, for every engine alike, that of one run alone divided by the number of runs at a time.

    Raises:
        InputError: an unknown engine, a number out of range, or an option of another engine.
        MissingExtraError: Ray is not installed.
    """
    if name is None:
        name = "processes" if jobs is not None and jobs > 1 else "serial"
    if name not in ENGINES:
        raise InputError(f"unknown engine {name!r}; known are {', '.join(ENGINES)}")
    for word, number in (("jobs", jobs), ("threads", threads)):
        if number is not None and number < 1:
            raise InputError(f"--{word} {number}: at least 1")
    if name != "ray" and (gpus_per_run is not None or address is not None):
        word = "gpus-per-run" if gpus_per_run is not None else "address"
        raise InputError(f"--{word} is for --engine ray, this is --engine {name}")
    if name == "serial" and jobs is not None and jobs > 1:
        raise InputError(f"--engine serial has one run at a time: leave out --jobs {jobs}, or use --engine processes")
    gpu = resolve_device(device).type == "cuda"
    if name == "processes" and jobs is None:
        jobs = RUNS_PER_GPU * max(1, torch.cuda.device_count()) if gpu else usable_cores()
    together = min(jobs or 1, runs)
    alone = torch.get_num_threads()
    if threads is None:
        threads = max(1, alone // together)
    notes = []
    if name != "serial":
        notes.append(f"{name}: {f'{together} runs at a time' if jobs else 'as many runs as there is room for'}")
    if threads != alone and not gpu:
        notes.append(
            f"{threads} of {alone} threads for each run: its sums round otherwise than with {alone}; --threads decides"
        )
    if name == "serial":
        return Choice(serial, threads, tuple(notes))
    if name == "processes":
        return Choice(Processes(together), threads, tuple(notes))
    import_ray()
    share = 1.0 if gpus_per_run is None else gpus_per_run
    if not 0 < share <= 1:
        raise InputError(f"--gpus-per-run {share:g}: more than 0 and at most 1, since a run uses one GPU")
    return Choice(RayCluster(jobs, share, address), threads, tuple(notes))
