"""The loop over futures that the engines of several workers share: dependencies between runs, retries, signals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import closing
from typing import Protocol

from saddlescape.runs.engines.events import Emit, Event, Note
from saddlescape.runs.engines.job import Job, Outcome
from saddlescape.runs.execute import stop_on_signal
from saddlescape.training.loop import Interrupted

RETRIES = 3  # of a run whose worker died
TICK = 0.25  # seconds between two looks at signals and events


class Pool(Protocol):
    """Workers, somewhere."""

    size: int
    """Runs at a time."""

    @property
    def lost(self) -> type[Exception]:
        """What a future raises whose worker died."""
        ...

    def submit(self, place: int, job: Job, again: bool) -> Future[Outcome]:
        """Start a job on worker ``place`` below ``size``; ``again``: a worker died over it."""
        ...

    def events(self) -> Iterable[Event]:
        """The events of all workers since the last call, in order."""
        ...

    def stop(self) -> None:
        """Have every run write a checkpoint and raise Interrupted."""
        ...

    def close(self) -> None:
        """Stop what still runs, and end all workers."""
        ...


def run_jobs(pool: Pool, jobs: Sequence[Job], emit: Emit, retries: int = RETRIES) -> Iterator[Outcome]:
    """Execute ``jobs`` in ``pool``, sources first, and close it; yields outcomes as they come.

    A run whose worker died is resumed by another, up to ``retries`` times.

    Raises:
        Interrupted: a signal came; every run has written its checkpoint.
    """
    waiting, unfinished = list(jobs), {job.folder for job in jobs}
    running: dict[Future[Outcome], tuple[Job, int]] = {}
    places = list(range(pool.size))
    deaths: Counter[str] = Counter()
    stopping = False
    with closing(pool), stop_on_signal() as asked:
        while running or (waiting and not stopping):
            if asked() and not stopping:
                stopping = True
                pool.stop()
            ready = [] if stopping else [job for job in waiting if job.source not in unfinished]
            for job, place in list(zip(ready, places, strict=False)):
                waiting.remove(job)
                places.remove(place)
                running[pool.submit(place, job, deaths[job.label] > 0)] = job, place
            ended, _ = wait(running, TICK, FIRST_COMPLETED)
            for event in pool.events():
                emit(event)
            for future in ended:
                job, place = running.pop(future)
                places.append(place)
                try:
                    outcome = future.result()
                except (Interrupted, pool.lost) as error:
                    deaths[job.label] += 1
                    if stopping or deaths[job.label] <= retries:
                        waiting.insert(0, job)
                        if not stopping:
                            emit(Note(job.label, f"its worker died ({cause(error)}); another one resumes it"))
                        continue
                    outcome = Outcome(job, None, f"its worker died {deaths[job.label]} times ({cause(error)})")
                unfinished.discard(job.folder)
                yield outcome
    if waiting:
        raise Interrupted


def cause(error: Exception) -> str:
    """Why a worker died, for a line in brackets."""
    if isinstance(error, BrokenExecutor):
        return "killed or crashed; if out of memory, use fewer --jobs"
    if isinstance(error, Interrupted):
        return "stopped by a signal"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
