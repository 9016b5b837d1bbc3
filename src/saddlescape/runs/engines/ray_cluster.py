"""The runs of a grid over a Ray cluster: fractions of GPUs, lost workers replaced, one folder that all machines see."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import saddlescape
from saddlescape.data.cores import SHARE
from saddlescape.errors import InputError, MissingExtraError
from saddlescape.runs import format as files
from saddlescape.runs.engines.events import Event
from saddlescape.runs.engines.job import Job, Loaded, Outcome, carry_out
from saddlescape.runs.engines.schedule import RETRIES, Lost, Message, Stopped, schedule
from saddlescape.training.loop import Interrupted

TOKEN = ".grid"  # in the grid's folder: what a worker must find there
ASK = 1.0  # seconds between two looks of a worker at whether it is to stop
CARRIED = ("SADDLESCAPE_DATA",)  # of the environment of this process, to the workers
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere unless somebody asks for it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",  # a machine whose cores are all busy takes minutes to start one
}
STORE = 100 * 2**20  # bytes of a local Ray's store of objects (its least is 75 MiB); ours are configurations


def import_ray() -> Any:
    """The package. Raises MissingExtraError."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("--engine ray", "ray", "ray") from error
    return ray


@dataclass(frozen=True)
class RayCluster:
    """The engine: at most ``jobs`` runs at a time (None: as many as fit), each with ``gpus`` of a GPU where it is one
    for CUDA, on the cluster at ``address`` (None: this machine). A Ray that is running in this process is used as it
    is."""

    jobs: int | None = None
    gpus: float = 1.0
    address: str | None = None
    retries: int = RETRIES

    def __call__(self, jobs: Sequence[Job], tell: Any, loaded: Loaded) -> Iterator[Outcome]:
        ray = import_ray()
        ours = not ray.is_initialized()
        if ours:
            _connect(ray, self.address)
        try:
            yield from schedule(_Cluster(ray, self, jobs), jobs, tell, self.retries)
        finally:
            if ours:
                ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if address is None:
        options |= {"address": "local", "object_store_memory": STORE}
    else:
        options = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"no Ray at --address {address or 'local'} ({line}); ray start --head starts one") from error


@dataclass(frozen=True)
class Place:
    """What a worker must have in common with the process that planned the grid."""

    grid: Path
    token: str
    folder: Path  # which relative paths are seen from
    environment: tuple[tuple[str, str], ...]
    saddlescape: str
    torch: str

    @classmethod
    def here(cls, grid: Path) -> Place:
        """Mark the grid's folder, and say where and what this process is."""
        token = secrets.token_hex(8)
        files.write_atomic(grid / TOKEN, token + "\n")
        carried = tuple((name, os.environ[name]) for name in CARRIED if name in os.environ)
        return cls(grid, token, Path.cwd(), carried, saddlescape.__version__, torch.__version__)

    def enter(self) -> None:
        """Make this process one of the grid's. Raises InputError where it cannot be."""
        host = platform.node()
        if self.saddlescape != saddlescape.__version__:
            raise InputError(
                f"{host} has saddlescape {saddlescape.__version__}, the grid was planned with {self.saddlescape}: "
                "install the same on all machines"
            )
        if self.torch != torch.__version__:
            raise InputError(
                f"{host} has torch {torch.__version__}, the grid was planned with {self.torch}: install the same on "
                "all machines"
            )
        with contextlib.suppress(OSError):
            os.chdir(self.folder)
        try:
            found = (self.grid / TOKEN).read_text().strip()
        except OSError:
            found = ""
        if found != self.token or Path.cwd() != self.folder:
            raise InputError(
                f"{host} does not see the folder {self.grid} that the grid is written to: all machines of the cluster "
                "must share it, under the same path"
            )
        os.environ.update(self.environment)


class Mailbox:
    """An actor beside the grid: what workers have to say, and whether they are to stop."""

    def __init__(self) -> None:
        self._events: list[tuple[int, Event]] = []
        self._stop = False

    def put(self, number: int, event: Event) -> None:
        self._events.append((number, event))

    def take(self) -> list[tuple[int, Event]]:
        events, self._events = self._events, []
        return events

    def ask_to_stop(self) -> None:
        self._stop = True

    def must_stop(self) -> bool:
        return self._stop


class _Cluster:
    """A crew of Ray's workers."""

    def __init__(self, ray: Any, engine: RayCluster, jobs: Sequence[Job]) -> None:
        self._ray = ray
        config = jobs[0].config
        on_gpu = torch.device(config.device).type == "cuda"
        # On a GPU the threads of torch have little to do: one core a run, or GPUs would wait for cores.
        self._needs = {"CPU": 1 if on_gpu else max(1, config.threads), "GPU": engine.gpus if on_gpu else 0}
        self._jobs = engine.jobs
        if not self._fit():
            wanted = " and ".join(f"{number:g} {name}" for name, number in self._needs.items() if number)
            raise InputError(f"no machine of the Ray cluster has {wanted} for a run; use --threads or --gpus-per-run")
        self._place = Place.here(jobs[0].folder.parent)
        self._mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
        # Ray's own retries would begin again without a word, so there are none.
        self._task = ray.remote(num_cpus=self._needs["CPU"], num_gpus=self._needs["GPU"], max_retries=0)(work)
        self._running: dict[Any, int] = {}

    def _fit(self) -> int:
        """How many runs the cluster has room for as it is now."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        needs = [(name, number) for name, number in self._needs.items() if number]
        return sum(min(int(machine.get(name, 0) / number + 1e-9) for name, number in needs) for machine in machines)

    def room(self) -> bool:
        return len(self._running) < (self._jobs if self._jobs is not None else max(1, self._fit()))

    def start(self, number: int, job: Job, again: bool) -> None:
        cores = self._needs["CPU"]
        self._running[self._task.remote(self._mailbox, self._place, number, job, again, cores)] = number

    def wait(self, seconds: float) -> Sequence[tuple[int, Message]]:
        ended: list[Any] = []
        if self._running:
            ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        else:
            time.sleep(seconds)
        heard: list[tuple[int, Message]] = list(self._ray.get(self._mailbox.take.remote()))
        for reference in ended:
            number = self._running.pop(reference)
            try:
                heard.append((number, self._ray.get(reference)))
            except self._ray.exceptions.RayError as error:
                kind, line = type(error).__name__, " ".join(str(error).split())
                heard.append((number, Lost(f"Ray says {kind}: {line[:300]}")))
        return heard

    def stop(self) -> None:
        self._ray.get(self._mailbox.ask_to_stop.remote())

    def close(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._ray.kill(self._mailbox)


_loaded: Loaded = {}  # of a worker, which Ray keeps for further tasks


def work(mailbox: Any, place: Place, number: int, job: Job, again: bool, cores: int) -> Outcome | Stopped:
    """One run, in a worker of Ray."""
    ray = import_ray()
    ended = threading.Event()
    threading.Thread(target=_listen, args=(ray, mailbox, ended), daemon=True).start()
    os.environ[SHARE] = str(cores)
    try:
        if ray.get(mailbox.must_stop.remote()):
            return Stopped()
        place.enter()
        return carry_out(job, _loaded, lambda event: mailbox.put.remote(number, event), again=again)
    except InputError as error:
        return Outcome(job, None, str(error))
    except (Interrupted, KeyboardInterrupt):
        return Stopped()
    finally:
        ended.set()


def _listen(ray: Any, mailbox: Any, ended: threading.Event) -> None:
    """Turn the grid's wish to stop, or its death, into the signal that a run understands."""
    while not ended.wait(ASK):
        try:
            stop = ray.get(mailbox.must_stop.remote())
        except ray.exceptions.RayError:
            stop = True
        if stop and not ended.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
            return
