"""Several runs at a time on this machine, each in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import torch

from saddlescape.data.cores import SHARE, usable_cores
from saddlescape.runs.engines.events import Event, Tell
from saddlescape.runs.engines.job import Job, Loaded, Outcome, carry_out
from saddlescape.runs.engines.schedule import RETRIES, Lost, Message, Stopped, schedule
from saddlescape.training.loop import Interrupted

# A fork would be cheaper, but neither torch's threads nor a CUDA context outlive one.
SPAWN = multiprocessing.get_context("spawn")
FAREWELL = 10.0  # seconds that a worker with nothing to do has for leaving


@dataclass(frozen=True)
class Processes:
    """The engine: ``jobs`` runs at a time. A worker that dies is replaced, up to ``retries`` times for one run."""

    jobs: int
    retries: int = RETRIES

    def __call__(self, jobs: Sequence[Job], tell: Tell, loaded: Loaded) -> Iterator[Outcome]:
        return schedule(_Workers(min(self.jobs, len(jobs)), jobs), jobs, tell, self.retries)


@dataclass
class _Worker:
    process: SpawnProcess
    line: Connection
    job: int | None = None  # its number, while at it


class _Workers:
    """A crew of at most ``size`` processes, each started when first needed and kept for further jobs."""

    def __init__(self, size: int, jobs: Sequence[Job]) -> None:
        self._places: list[_Worker | None] = [None] * size
        self._environments = environments(size, {job.config.device for job in jobs})

    def room(self) -> bool:
        return any(worker is None or worker.job is None for worker in self._places)

    def start(self, number: int, job: Job, again: bool) -> None:
        idle = [place for place, worker in enumerate(self._places) if worker is not None and worker.job is None]
        place = idle[0] if idle else self._places.index(None)
        worker = self._places[place]
        if worker is None:
            worker = self._places[place] = _hire(self._environments[place])
        worker.job = number
        with contextlib.suppress(OSError):  # a worker that died idle: `wait` finds out
            worker.line.send((job, again))

    def wait(self, seconds: float) -> Sequence[tuple[int, Message]]:
        busy = [worker for worker in self._places if worker is not None and worker.job is not None]
        if busy:
            connection.wait([worker.line for worker in busy], timeout=seconds)
        heard: list[tuple[int, Message]] = []
        for place, worker in enumerate(self._places):
            if worker is not None and worker.job is not None:
                heard += self._hear(place, worker)
        return heard

    def _hear(self, place: int, worker: _Worker) -> list[tuple[int, Message]]:
        # Asked before its last words are read, lest some come in between. End of file is no sign of death: processes
        # that the worker forked may hold its end of the line for a while.
        alive, heard = worker.process.is_alive(), []
        number = worker.job
        assert number is not None
        message: Message | None = None
        with contextlib.suppress(EOFError, OSError):
            while not isinstance(message, Outcome | Stopped) and worker.line.poll():
                message = worker.line.recv()
                heard.append((number, message))
        if isinstance(message, Outcome):
            worker.job = None
        elif isinstance(message, Stopped) or not alive:
            worker.process.join()
            worker.line.close()
            self._places[place] = None
            if not isinstance(message, Stopped):
                heard.append((number, Lost(how_it_died(worker.process.exitcode))))
        elif not heard:
            time.sleep(0.01)  # at the end of a line that nobody writes to, while the worker is still dying
        return heard

    def stop(self) -> None:
        for worker in self._places:
            if worker is not None and worker.job is not None:
                worker.process.terminate()

    def close(self) -> None:
        workers = [worker for worker in self._places if worker is not None]
        self._places = [None] * len(self._places)
        for worker in workers:
            if worker.job is not None:
                worker.process.kill()
            worker.line.close()
        until = time.monotonic() + FAREWELL
        for worker in workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def environments(size: int, devices: set[str]) -> list[dict[str, str]]:
    """What each of ``size`` workers has in its environment: its share of the cores, and in turn one of the GPUs."""
    share = {SHARE: str(max(1, usable_cores() // max(size, 1)))}
    gpus = torch.cuda.device_count() if "cuda" in devices else 0
    if gpus < 2:
        return [share] * size
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible if len(visible) == gpus else [str(gpu) for gpu in range(gpus)]
    return [{**share, "CUDA_VISIBLE_DEVICES": names[place % gpus]} for place in range(size)]


def how_it_died(code: int | None) -> str:
    """An exit code as the end of a sentence."""
    if code == -signal.SIGKILL:
        return "killed; if not by you, then for want of memory: use fewer --jobs"
    if code is not None and code < 0:
        return f"it died of {signal.Signals(-code).name}"
    return f"it left with exit code {code}"


def _hire(environment: Mapping[str, str]) -> _Worker:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_work, args=(theirs, dict(environment)), name="saddlescape run")
    # Ctrl-C at a terminal reaches every process of the group; until a worker has left it, it must not listen.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return _Worker(process, ours)


def _work(line: Connection, environment: Mapping[str, str]) -> None:
    """A worker's life: jobs out of ``line``, what happens and what comes of it back into it."""
    os.setpgrp()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_follow_parent, daemon=True).start()
    os.environ.update(environment)
    loaded: Loaded = {}

    def tell(event: Event) -> None:
        with contextlib.suppress(OSError):  # the grid has died: that is no reason to fail before the checkpoint
            line.send(event)

    while True:
        try:
            job, again = line.recv()
        except (EOFError, OSError):
            return
        message: Message
        try:
            message = carry_out(job, loaded, tell, again=again)
        except (Interrupted, KeyboardInterrupt):
            message = Stopped()
        with contextlib.suppress(OSError):
            line.send(message)
        if isinstance(message, Stopped):
            return


def _follow_parent() -> None:
    """A grid that was killed leaves nobody behind: its workers stop as if they had been told to."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
