"""The loop over futures with a pool whose workers are threads: sources first, the dead replaced, a signal passed on."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from saddlescape.records.config import DataConfig, RunConfig
from saddlescape.runs.engines.events import Event, Note
from saddlescape.runs.engines.futures import run_jobs
from saddlescape.runs.engines.job import Job, Outcome
from saddlescape.training.loop import Interrupted

CONFIG = RunConfig(method="ce", model="smallcnn", seed=0, data=DataConfig(name="digits"), stages=())


def job(name: str, source: str | None = None) -> Job:
    return Job(name, CONFIG, Path(name), None if source is None else Path(source), "draw")


class Threads:
    """A pool of two; ``act(job, times it was started)`` is what a worker does before it returns."""

    size, lost = 2, ConnectionError

    def __init__(self, act: Callable[[Job, int], None]) -> None:
        self.act, self.executor, self.stopped = act, ThreadPoolExecutor(2), threading.Event()
        self.busy: Counter[int] = Counter()
        self.started: list[tuple[str, bool]] = []

    def submit(self, place: int, job: Job, again: bool) -> Future[Outcome]:
        assert place in (0, 1)
        assert not self.busy[place]
        self.busy[place] += 1
        self.started.append((job.label, again))
        times = sum(label == job.label for label, _ in self.started)

        def run() -> Outcome:
            try:
                self.act(job, times)
            finally:
                self.busy[place] -= 1
            return Outcome(job, {})

        return self.executor.submit(run)

    def events(self) -> list[Event]:
        return []

    def stop(self) -> None:
        self.stopped.set()

    def close(self) -> None:
        self.executor.shutdown()


def test_a_source_comes_before_what_continues_it() -> None:
    ended: list[str] = []
    jobs = [job("ce"), job("crt", "ce"), job("lws", "ce"), job("vs"), job("ldam", "elsewhere")]
    pool = Threads(lambda job, times: ended.append(job.label))
    assert {outcome.job.label for outcome in run_jobs(pool, jobs, print)} == {"ce", "crt", "lws", "vs", "ldam"}
    assert [label for label, _ in pool.started][:2] == ["ce", "vs"]
    assert ended.index("ce") < min(ended.index("crt"), ended.index("lws"))


@pytest.mark.parametrize("deaths", [2, 3])
def test_a_run_is_given_to_another_worker_twice(deaths: int) -> None:
    def act(job: Job, times: int) -> None:
        if job.label == "ce" and times <= deaths:
            raise ConnectionError("gone")

    pool, events = Threads(act), list[Event]()
    outcomes = list(run_jobs(pool, [job("ce"), job("crt", "ce"), job("vs")], events.append, retries=2))
    assert [again for label, again in pool.started if label == "ce"] == [False, True, True]
    assert sorted(outcome.job.label for outcome in outcomes) == ["ce", "crt", "vs"]  # crt is tried all the same
    (ce,) = [outcome for outcome in outcomes if outcome.job.label == "ce"]
    assert ce.failed == ("its worker died 3 times (ConnectionError: gone)" if deaths == 3 else "")
    assert events == [Note("ce", "its worker died (ConnectionError: gone); another one resumes it")] * 2


def test_a_signal_stops_all_and_starts_no_more() -> None:
    def act(job: Job, times: int) -> None:
        if job.label == "vs":
            os.kill(os.getpid(), signal.SIGTERM)
        if job.label != "ce":
            assert pool.stopped.wait(60)
            raise Interrupted

    before, pool, outcomes = signal.getsignal(signal.SIGTERM), Threads(act), list[Outcome]()
    with pytest.raises(Interrupted):
        outcomes.extend(run_jobs(pool, [job("ce"), job("vs"), job("ldam"), job("focal")], print))
    assert "focal" not in [label for label, _ in pool.started]
    assert {outcome.job.label for outcome in outcomes} <= {"ce"}
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_comes_when_all_is_done_interrupts_nothing() -> None:
    pool = Threads(lambda job, times: os.kill(os.getpid(), signal.SIGTERM))
    assert len(list(run_jobs(pool, [job("ce")], print))) == 1


def test_a_worker_that_somebody_else_stopped_is_replaced() -> None:
    def act(job: Job, times: int) -> None:
        if times == 1:
            raise Interrupted

    pool = Threads(act)
    assert [outcome.failed for outcome in run_jobs(pool, [job("ce")], lambda event: None)] == [""]
    assert pool.started == [("ce", False), ("ce", True)]
