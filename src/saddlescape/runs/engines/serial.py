"""One run after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from saddlescape.runs.engines.events import Tell
from saddlescape.runs.engines.job import Job, Loaded, Outcome, carry_out


class Serial:
    """The engine that needs nothing. The grid lists a source before what goes on from it, so their order holds."""

    def __call__(self, jobs: Sequence[Job], tell: Tell, loaded: Loaded) -> Iterator[Outcome]:
        for job in jobs:
            yield carry_out(job, loaded, tell)
