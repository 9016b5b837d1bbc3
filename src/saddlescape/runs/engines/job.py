"""A run of a grid as a thing that can be handed to somebody, and what comes back."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from saddlescape.data.types import Dataset
from saddlescape.errors import InputError
from saddlescape.runs import format as files
from saddlescape.runs.config import DataConfig, RunConfig
from saddlescape.runs.engines.events import Note, Step, Tell, Telling
from saddlescape.runs.execute import execute
from saddlescape.runs.first_stage import continue_from
from saddlescape.runs.plan import changed, load_data
from saddlescape.training.loop import Interrupted, Watcher
from saddlescape.training.stage import Stage

Loaded = dict[DataConfig, Dataset]
"""Data that a process has read already."""

PATIENCE = 60.0  # seconds: a dead worker's folder is free only when the processes that read its images have gone too


@dataclass(frozen=True)
class Job:
    """One run: its configuration, its folder, and the folder of the run whose first stage it goes on from, if any.

    It travels between processes and machines, so it holds no data; ``draw_hash`` tells whether those that are found
    at the other end are the ones it was planned with.
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
    """``result`` as in ``result.json``, with ``settings`` that differ from the recipe; or why there is none.

    ``story`` is the traceback where the reason was not foreseen.
    """

    job: Job
    result: dict[str, Any] | None
    failed: str = ""
    story: str = ""


class Engine(Protocol):
    """Carries out jobs and yields their outcomes as they come.

    A job with a source is begun when that source's job has ended. ``loaded`` is what this process has read already. A
    run that fails is an outcome and ends no other; ``Interrupted`` is raised when all have stopped after a signal.
    """

    def __call__(self, jobs: Sequence[Job], tell: Tell, loaded: Loaded) -> Iterator[Outcome]: ...


def carry_out(job: Job, loaded: Loaded, tell: Tell, *, again: bool = False) -> Outcome:
    """Run or resume a job in this process. ``again``: another process died over it just now.

    Raises:
        Interrupted: a signal came; a checkpoint has been written.
    """
    try:
        return Outcome(job, _result(job, loaded, tell, again))
    except (Interrupted, BrokenPipeError):  # nobody listens any more: that is no failure of the run
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
    return f"unexpected {type(error).__name__}: {line}; run again with --debug for the whole story and report it"


def _result(job: Job, loaded: Loaded, tell: Tell, again: bool) -> dict[str, Any]:
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
        tell(Note(job.label, line))

    if job.source is not None:
        config, remarks = continue_from(config, job.source, job.folder)
        for remark in remarks:
            say(remark)

    def watch(stage: Stage, start: int) -> Sequence[Watcher]:
        index = next((i for i, each in enumerate(config.stages) if each is stage), 0)
        before = sum(each.epochs for each in config.stages[:index])
        tell(Step(job.label, before + start, job.epochs, f"stage {stage.name}" if index else ""))
        return [Telling(tell, job.label, before, job.epochs)]

    if again:
        wait_until_free(job.folder)
    result = execute(config, dataset, job.folder, say=say, watchers=watch)
    return {**result, "settings": changed(config, dataset)}


def wait_until_free(folder: Path, patience: float = PATIENCE) -> None:
    """Wait until nobody holds the run in ``folder``, but not forever: who comes next says that it is in use."""
    until = time.monotonic() + patience
    while folder.is_dir() and time.monotonic() < until:
        try:
            with files.locked(folder):
                return
        except InputError:
            time.sleep(0.2)
