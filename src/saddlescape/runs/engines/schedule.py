"""Which run goes to a worker when: sources first, the dead replaced, a signal passed on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from saddlescape.runs.engines.events import Event, Note, Tell
from saddlescape.runs.engines.job import Job, Outcome
from saddlescape.runs.execute import stop_on_signal
from saddlescape.training.loop import Interrupted

RETRIES = 3  # deaths of workers over one run that are taken for accidents
TICK = 0.25  # seconds within which a signal is noticed


@dataclass(frozen=True)
class Stopped:
    """A worker wrote a checkpoint and stopped, as it was told to."""


@dataclass(frozen=True)
class Lost:
    """A worker died over its run; ``how`` ends a sentence."""

    how: str


Message = Event | Outcome | Stopped | Lost


class Crew(Protocol):
    """Workers, somewhere. Every job that is started ends in one ``Outcome``, ``Stopped`` or ``Lost``."""

    def room(self) -> bool:
        """Whether one more job can be started now."""
        ...

    def start(self, number: int, job: Job, again: bool) -> None:
        """Give job ``number`` to a worker; ``again``: one has died over it."""
        ...

    def wait(self, seconds: float) -> Sequence[tuple[int, Message]]:
        """What the workers have said since, in order, waited for no longer than ``seconds``."""
        ...

    def stop(self) -> None:
        """Ask every worker to write a checkpoint and stop."""
        ...

    def close(self) -> None:
        """End all workers; those still at work at once."""
        ...


def schedule(crew: Crew, jobs: Sequence[Job], tell: Tell, retries: int = RETRIES) -> Iterator[Outcome]:
    """Have ``crew`` carry out ``jobs``; outcomes as they come. Closes the crew.

    A job goes to a worker as soon as there is room and the job of its source, if that is among ``jobs``, has ended. A
    job whose worker died is given to another, which resumes it, up to ``retries`` times.

    Raises:
        Interrupted: a signal came; every worker has written its checkpoint.
    """
    waiting, running = set(range(len(jobs))), set[int]()
    unfinished = {job.folder for job in jobs}
    deaths: Counter[int] = Counter()
    stopping = False
    try:
        with stop_on_signal() as asked:
            while running or (waiting and not stopping):
                if asked() and not stopping:
                    stopping = True
                    crew.stop()
                ready = [number for number in sorted(waiting) if jobs[number].source not in unfinished]
                for number in [] if stopping else ready:
                    if not crew.room():
                        break
                    waiting.remove(number)
                    running.add(number)
                    crew.start(number, jobs[number], deaths[number] > 0)
                for number, message in crew.wait(TICK):
                    job = jobs[number]
                    if not isinstance(message, Outcome | Stopped | Lost):
                        tell(message)
                        continue
                    running.discard(number)
                    if isinstance(message, Outcome):
                        unfinished.discard(job.folder)
                        yield message
                        continue
                    waiting.add(number)
                    if stopping:
                        continue
                    deaths[number] += 1
                    how = message.how if isinstance(message, Lost) else "somebody told it to stop"
                    if deaths[number] <= retries:
                        tell(Note(job.label, f"its worker was lost ({how}); another one goes on from its checkpoint"))
                        continue
                    waiting.remove(number)
                    unfinished.discard(job.folder)
                    yield Outcome(job, None, f"its worker was lost {deaths[number]} times ({how})")
    finally:
        crew.close()
    if waiting:
        raise Interrupted
