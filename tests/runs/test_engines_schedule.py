"""Which run goes to a worker when, with a made-up crew: sources first, the dead replaced, a signal passed on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from saddlescape.runs.config import DataConfig, RunConfig
from saddlescape.runs.engines.events import Note
from saddlescape.runs.engines.job import Job, Outcome
from saddlescape.runs.engines.schedule import Lost, Message, Stopped, schedule
from saddlescape.training.loop import Interrupted

CONFIG = RunConfig(method="ce", model="smallcnn", seed=0, data=DataConfig(name="digits"), stages=())


def job(name: str, source: str | None = None) -> Job:
    return Job(name, CONFIG, Path(name), None if source is None else Path(source), "draw")


class Crew:
    """``size`` workers; ``act(job, times it was started)`` is what each says at the next wait."""

    def __init__(self, size: int, act: Callable[[Job, int], Sequence[Message]]) -> None:
        self.size, self.act = size, act
        self.running: dict[int, Job] = {}
        self.started: list[tuple[str, bool]] = []
        self.most, self.stopped, self.closed = 0, 0, 0

    def room(self) -> bool:
        return len(self.running) < self.size

    def start(self, number: int, job: Job, again: bool) -> None:
        assert self.room()
        self.running[number] = job
        self.started.append((job.label, again))
        self.most = max(self.most, len(self.running))

    def wait(self, seconds: float) -> list[tuple[int, Message]]:
        said: list[tuple[int, Message]] = []
        for number, running in list(self.running.items()):
            times = sum(label == running.label for label, _ in self.started)
            messages = [Stopped()] if self.stopped else list(self.act(running, times))
            if any(isinstance(message, Outcome | Stopped | Lost) for message in messages):
                del self.running[number]
            said += [(number, message) for message in messages]
        return said

    def stop(self) -> None:
        self.stopped += 1

    def close(self) -> None:
        self.closed += 1


def done(job: Job, times: int) -> list[Message]:
    return [Outcome(job, {"label": job.label})]


def labels(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.job.label for outcome in outcomes]


def test_a_source_comes_before_what_goes_on_from_it() -> None:
    jobs = [job("ce"), job("crt", "ce"), job("lws", "ce"), job("vs"), job("ldam", "elsewhere")]
    crew = Crew(2, done)
    assert labels(list(schedule(crew, jobs, lambda event: None))) == ["ce", "vs", "crt", "lws", "ldam"]
    assert crew.most == 2
    assert crew.closed == 1


def test_what_needs_a_source_that_failed_is_tried_all_the_same() -> None:
    def act(job: Job, times: int) -> list[Message]:
        return [Outcome(job, None, "diverged")] if job.label == "ce" else done(job, times)

    outcomes = list(schedule(Crew(2, act), [job("ce"), job("crt", "ce")], lambda event: None))
    assert [outcome.failed for outcome in outcomes] == ["diverged", ""]


@pytest.mark.parametrize(("deaths", "survives"), [(1, True), (2, True), (3, False)])
def test_a_run_is_given_to_another_worker_so_often(deaths: int, survives: bool) -> None:
    def act(job: Job, times: int) -> list[Message]:
        return [Lost("gone")] if job.label == "ce" and times <= deaths else done(job, times)

    crew, told = Crew(1, act), []
    outcomes = list(schedule(crew, [job("ce"), job("crt", "ce"), job("vs")], told.append, retries=2))
    tries = [again for label, again in crew.started if label == "ce"]
    assert tries == [False, *[True] * min(deaths, 2)]
    assert sorted(labels(outcomes)) == ["ce", "crt", "vs"]
    ce = next(outcome for outcome in outcomes if outcome.job.label == "ce")
    assert (ce.result is not None) == survives
    if not survives:
        assert ce.failed == "its worker was lost 3 times (gone)"
    notes = [event for event in told if isinstance(event, Note)]
    assert len(notes) == min(deaths, 2)
    assert notes[0].line == "its worker was lost (gone); another one goes on from its checkpoint"


def test_a_signal_stops_all_and_starts_no_more() -> None:
    def act(job: Job, times: int) -> list[Message]:
        if job.label == "vs":
            os.kill(os.getpid(), signal.SIGTERM)
        return done(job, times) if job.label == "ce" else []

    before = signal.getsignal(signal.SIGTERM)
    crew, outcomes = Crew(2, act), []
    with pytest.raises(Interrupted):
        outcomes.extend(schedule(crew, [job("ce"), job("vs"), job("ldam"), job("focal")], lambda event: None))
    assert crew.stopped == 1
    assert crew.closed == 1
    assert crew.running == {}
    assert [label for label, _ in crew.started] == ["ce", "vs"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_comes_when_all_is_done_interrupts_nothing() -> None:
    def act(job: Job, times: int) -> list[Message]:
        os.kill(os.getpid(), signal.SIGTERM)
        return done(job, times)

    assert labels(list(schedule(Crew(1, act), [job("ce")], lambda event: None))) == ["ce"]


def test_a_worker_that_somebody_else_stopped_is_replaced() -> None:
    def act(job: Job, times: int) -> list[Message]:
        return [Stopped()] if times == 1 else done(job, times)

    crew = Crew(1, act)
    assert labels(list(schedule(crew, [job("ce")], lambda event: None))) == ["ce"]
    assert crew.started == [("ce", False), ("ce", True)]
