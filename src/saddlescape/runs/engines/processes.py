"""Several runs at a time on this machine, each in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection

import torch

from saddlescape.data.cores import SHARE, usable_cores
from saddlescape.runs.engines.events import Emit, Event
from saddlescape.runs.engines.futures import run_jobs
from saddlescape.runs.engines.job import Job, Loaded, Outcome, carry_out
from saddlescape.training.loop import Interrupted

# Neither torch's threads nor a CUDA context survive a fork.
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Processes:
    """The engine: ``jobs`` runs at a time."""

    jobs: int

    def __call__(self, jobs: Sequence[Job], emit: Emit, loaded: Loaded) -> Iterator[Outcome]:
        return run_jobs(_Executors(min(self.jobs, len(jobs)), {job.config.device for job in jobs}), jobs, emit)


class _Executors:
    """Executors of one process each, since a process that dies breaks its executor and all runs in it.

    A pipe leads to each process. The process sends its events through it, and stops when our end is closed: by
    ``stop``, or by our death.
    """

    lost: type[Exception] = BrokenProcessPool

    def __init__(self, size: int, devices: set[str]) -> None:
        self.size = size
        self._environments = environments(size, devices)
        self._executors: dict[int, ProcessPoolExecutor] = {}
        self._pipes: dict[int, Connection] = {}

    def submit(self, place: int, job: Job, again: bool) -> Future[Outcome]:
        # Ctrl-C at a terminal reaches every process of the group: a new one must not receive it before it has left.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._executors[place].submit(_work, job, again)
        except (KeyError, BrokenProcessPool):
            self._pipes[place], theirs = SPAWN.Pipe()
            self._executors[place] = ProcessPoolExecutor(1, SPAWN, _begin, (theirs, self._environments[place]))
            return self._executors[place].submit(_work, job, again)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def events(self) -> Iterator[Event]:
        for pipe in self._pipes.values():
            with contextlib.suppress(EOFError, OSError):
                while pipe.poll():
                    yield pipe.recv()

    def stop(self) -> None:
        for pipe in self._pipes.values():
            pipe.close()

    def close(self) -> None:
        self.stop()
        for executor in self._executors.values():
            executor.shutdown()


def environments(size: int, devices: set[str]) -> list[dict[str, str]]:
    """Environment variables of each of ``size`` workers: its share of the cores, and in turn one of the GPUs."""
    share = {SHARE: str(max(1, usable_cores() // max(size, 1)))}
    gpus = torch.cuda.device_count() if "cuda" in devices else 0
    if gpus < 2:
        return [share] * size
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible if len(visible) == gpus else [str(gpu) for gpu in range(gpus)]
    return [{**share, "CUDA_VISIBLE_DEVICES": names[place % gpus]} for place in range(size)]


# --- in the worker ------------------------------------------------------------------------------------------------

_pipe: Connection
_loaded: Loaded = {}
_at_work = threading.Lock()


def _begin(pipe: Connection, environment: Mapping[str, str]) -> None:
    global _pipe
    _pipe = pipe
    os.setpgrp()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ.update(environment)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _work(job: Job, again: bool) -> Outcome:
    with _at_work:
        try:
            return carry_out(job, _loaded, _tell, again=again)
        except KeyboardInterrupt as error:
            raise Interrupted from error


def _tell(event: Event) -> None:
    with contextlib.suppress(OSError):  # the grid has died: the run stops at its next step, with a checkpoint
        _pipe.send(event)


def _follow_parent() -> None:
    """Stop when the pipe is closed. If the grid has died, nobody but this thread ends the process."""
    with contextlib.suppress(EOFError, OSError):
        _pipe.recv()
    os.kill(os.getpid(), signal.SIGTERM)
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    with _at_work:
        os._exit(0)
