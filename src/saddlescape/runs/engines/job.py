"""One run of a grid: what a worker is given, how it executes it, and what it returns."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from saddlescape.data.types import Dataset
from saddlescape.errors import InputError
from saddlescape.records import files
from saddlescape.records.config import DataConfig, RunConfig, Stage
from saddlescape.runs.engines.events import Emit, Note, Progress, Step
from saddlescape.runs.execute import execute
from saddlescape.runs.first_stage import continue_from
from saddlescape.runs.plan import changed, load_data
from saddlescape.training.loop import Interrupted, Watcher

Loaded = dict[DataConfig, Dataset]
"""Data that a process has read already."""

PATIENCE = 60.0  # seconds: processes that decode images hold the folder of a dead worker for a moment longer


@dataclass(frozen=True)
class Job:
    """One run: its configuration, its folder, and the folder of the run whose first stage it continues, if any.

    It travels between processes and machines, so it holds no data; ``draw_hash`` identifies the images that it was
    planned with.
    """

    label: str
    config: RunConfig
    folder: Path
    source: Path | None
    draw_hash: str

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.config.stages)


@dataclass(frozen=True)
class Outcome:
    """``result`` as in ``result.json``, with ``settings`` that differ from the recipe; or the reason of a failure.

    ``trace`` is the traceback of a failure that is no InputError.
    """

    job: Job
    result: dict[str, Any] | None
    failed: str = ""
    trace: str = ""


Engine = Callable[[Sequence[Job], Emit, Loaded], Iterator[Outcome]]
"""Executes jobs and yields their outcomes as they end.

A job with a source begins when that source's job has ended. ``Loaded`` is what this process has read already. A run
that fails is an outcome and ends no other; ``Interrupted`` is raised when all have stopped after a signal.
"""


def serial(jobs: Sequence[Job], emit: Emit, loaded: Loaded) -> Iterator[Outcome]:
    """The engine that needs nothing: one run after the other. A grid lists a source before what continues it."""
    for job in jobs:
        yield carry_out(job, loaded, emit)


def carry_out(job: Job, loaded: Loaded, emit: Emit, *, again: bool = False) -> Outcome:
    """Run or resume a job in this process. ``again``: the process that had it has just died.

    Raises:
        Interrupted: a signal came; a checkpoint has been written.
    """
    try:
        if again:
            wait_until_free(job.folder)
        return Outcome(job, _result(job, loaded, emit))
    except (Interrupted, BrokenPipeError):  # nobody reads the output any more: the run itself has not failed
        raise
    except Exception as error:
        expected = isinstance(error, InputError | MemoryError | torch.OutOfMemoryError)
        return Outcome(job, None, reason(error), "" if expected else traceback.format_exc())


def reason(error: Exception) -> str:
    """Why a run failed, in one line."""
    line = " ".join(str(error).split())
    if isinstance(error, InputError):
        return line
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return f"out of memory ({line}); use fewer --jobs"
    return f"{type(error).__name__}: {line}; run again with --debug for the whole traceback and report it"


def _result(job: Job, loaded: Loaded, emit: Emit) -> dict[str, Any]:
    config = job.config
    if config.data not in loaded:
        loaded[config.data] = load_data(config.data)
    dataset = loaded[config.data]
    if dataset.draw_hash != job.draw_hash:
        raise InputError(
            f"the images found here (draw {dataset.draw_hash}) are not those it was planned with ({job.draw_hash}): "
            "all workers must read the same data"
        )

    def say(line: str) -> None:
        emit(Note(job.label, line))

    if job.source is not None:
        config, remarks = continue_from(config, job.source, job.folder)
        for remark in remarks:
            say(remark)

    def watch(stage: Stage, start: int) -> Sequence[Watcher]:
        index = next((i for i, each in enumerate(config.stages) if each is stage), 0)
        before = sum(each.epochs for each in config.stages[:index])
        emit(Step(job.label, before + start, job.epochs, f"stage {stage.name}" if index else ""))
        return [Progress(emit, job.label, before, job.epochs, stage.name if len(config.stages) > 1 else "")]

    result = execute(config, dataset, job.folder, say=say, watchers=watch)
    return {**result, "settings": changed(config, dataset)}


def wait_until_free(folder: Path, patience: float = PATIENCE) -> None:
    """Wait until no process holds the run in ``folder``, for ``patience`` seconds at most."""
    until = time.monotonic() + patience
    while folder.is_dir() and time.monotonic() < until:
        try:
            with files.locked(folder):
                return
        except InputError:
            time.sleep(0.2)
