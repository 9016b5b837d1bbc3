"""The runs of a grid over a Ray cluster: fractions of GPUs, and one folder that all machines share."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import saddlescape
from saddlescape.data.cores import SHARE
from saddlescape.errors import InputError, MissingExtraError
from saddlescape.runs.engines.events import Emit, Event
from saddlescape.runs.engines.futures import run_jobs
from saddlescape.runs.engines.job import Job, Loaded, Outcome, carry_out

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere unless somebody asks for it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",  # a machine whose cores are all busy takes minutes to start one
}
QUIET = {"log_to_driver": False, "logging_level": "ERROR"}
STORE = 100 * 2**20  # bytes of a local Ray's store of objects (its least is 75 MiB); ours are configurations


def import_ray() -> Any:
    """The package. Raises MissingExtraError."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.util.queue
    except ImportError as error:
        raise MissingExtraError("--engine ray", "ray", "ray") from error
    return ray


@dataclass(frozen=True)
class RayCluster:
    """The engine: at most ``jobs`` runs at a time (None: as many as fit), each with ``gpus`` of a GPU where it uses
    CUDA, on the cluster at ``address`` (None: this machine). A Ray that already runs in this process is used."""

    jobs: int | None = None
    gpus: float = 1.0
    address: str | None = None

    def __call__(self, jobs: Sequence[Job], emit: Emit, loaded: Loaded) -> Iterator[Outcome]:
        ray = import_ray()
        ours = not ray.is_initialized()
        if ours:
            _connect(ray, self.address)
        try:
            yield from run_jobs(_Tasks(ray, self, jobs), jobs, emit)
        finally:
            if ours:
                ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    local = {"include_dashboard": False, "object_store_memory": STORE} if address is None else {}
    try:
        ray.init(address=address or "local", **local, **QUIET)
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"no Ray at --address {address or 'local'} ({line}); ray start --head starts one") from error


class _Tasks:
    """A task of Ray for each run; Ray finds the place, ``place`` only bounds their number."""

    def __init__(self, ray: Any, engine: RayCluster, jobs: Sequence[Job]) -> None:
        self.size = min(engine.jobs or len(jobs), len(jobs))
        self.lost = ray.exceptions.RayError
        config = jobs[0].config
        on_gpu = torch.device(config.device).type == "cuda"
        # On a GPU the threads of torch have little to do: one core a run, or GPUs would wait for cores.
        needs = {"CPU": 1 if on_gpu else max(1, config.threads)} | ({"GPU": engine.gpus} if on_gpu else {})
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(machine.get(name, 0) >= number for name, number in needs.items()) for machine in machines):
            wanted = " and ".join(f"{number:g} {name}" for name, number in needs.items())
            raise InputError(f"no machine of the Ray cluster has {wanted} for a run; use --threads or --gpus-per-run")
        self._ray = ray
        self._queue = ray.util.queue.Queue(actor_options={"num_cpus": 0})
        # The loop over futures retries, not Ray: a retry is reported, and waits until the folder is free.
        task = ray.remote(num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0), max_retries=0)(work)
        environment = {SHARE: str(needs["CPU"])}
        environment |= {name: os.environ[name] for name in ("SADDLESCAPE_DATA",) if name in os.environ}
        self._start = lambda *given: task.remote(self._queue, Path.cwd(), environment, versions(), *given)
        self._tasks: list[Any] = []

    def submit(self, place: int, job: Job, again: bool) -> Future[Outcome]:
        self._tasks.append(self._start(job, again))
        future: Future[Outcome] = self._tasks[-1].future()
        return future

    def events(self) -> Sequence[Event]:
        events: Sequence[Event] = self._queue.get_nowait_batch(self._queue.size())
        return events

    def stop(self) -> None:
        for task in self._tasks:  # in a running one this is the signal that a run understands
            self._ray.cancel(task)

    def close(self) -> None:
        self._queue.shutdown()


def versions() -> dict[str, str]:
    """What must be the same on all machines, or results would differ."""
    return {"saddlescape": saddlescape.__version__, "torch": torch.__version__}


_loaded: Loaded = {}  # of a worker, which Ray keeps for further tasks


def work(
    queue: Any, folder: Path, environment: dict[str, str], planned: dict[str, str], job: Job, again: bool
) -> Outcome:
    """One run in a worker of Ray, as seen from ``folder``."""
    try:
        enter(folder, job.folder.parent, planned)
    except InputError as error:
        return Outcome(job, None, str(error))
    os.environ.update(environment)
    return carry_out(job, _loaded, queue.put, again=again)


def enter(folder: Path, grid: Path, planned: dict[str, str]) -> None:
    """Change to ``folder``. Raises InputError where this machine lacks it or the grid, or has other versions."""
    for package, version in versions().items():
        if version != planned[package]:
            raise InputError(
                f"{platform.node()} has {package} {version}, the grid was planned with {planned[package]}: install the "
                "same on all machines"
            )
    if not (folder / grid).is_dir():
        raise InputError(
            f"{platform.node()} does not see the folder {folder / grid} that the grid is written to: all machines of "
            "the cluster must share it, under the same path"
        )
    os.chdir(folder)
