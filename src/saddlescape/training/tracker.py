"""The course of curvature, live: a watcher of the loop around :class:`saddlescape.curvature.CurvatureTracker`.

It looks after epochs 1, ``every``, 2 ``every`` ... and the last, when the checkpoint of that epoch is already safe. The
model is left as it was (modes, gradients, buffers, random state), so training goes on to the same bits as without it.
A resumed run starts cold: the first measurement after a resume has no former eigenvectors to start from.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from torch import nn

from saddlescape.curvature import TrackPoint
from saddlescape.training.parts import Parts
from saddlescape.training.running import Running


class Tracker(Protocol):
    """What is needed of a ``CurvatureTracker``."""

    def __call__(self, model: nn.Module, epoch: int, *, force: bool = False) -> list[TrackPoint]: ...


class CurvatureWatcher:
    """``record(parts, row, points)`` gets what was measured after an epoch, with that epoch's row of metrics.

    ``seconds`` and ``training_seconds`` add up over the epochs seen; ``say`` gets one line with the share at the end of
    the stage.
    """

    def __init__(
        self,
        tracker: Tracker,
        every: int,
        record: Callable[[Parts, dict[str, Any], list[TrackPoint]], None],
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.tracker, self.every, self.record, self.say = tracker, every, record, say
        self.seconds, self.training_seconds, self.measurements = 0.0, 0.0, 0

    @property
    def share(self) -> float:
        """Time spent on curvature, of all time that this watcher saw, 0 to 1."""
        total = self.seconds + self.training_seconds
        return self.seconds / total if total else 0.0

    def is_due(self, done: int, last: int) -> bool:
        """Whether to look after ``done`` epochs of ``last``."""
        return done in (1, last) or done % self.every == 0

    def on_step(self, parts: Parts, epoch: int, running: Running) -> None:
        """Nothing: curvature is looked at between epochs."""

    def on_epoch(self, parts: Parts, row: dict[str, Any]) -> None:
        done = row["epoch"] + 1
        self.training_seconds += row["seconds"]
        if self.is_due(done, parts.epochs):
            began = time.monotonic()
            self.record(parts, row, self.tracker(parts.model, done, force=True))
            self.seconds += time.monotonic() - began
            self.measurements += 1
        if done == parts.epochs and self.measurements:
            self.say(
                f"curvature was measured {self.measurements} times and took {100 * self.share:.0f} % of the time "
                f"({self.seconds:.1f} s beside {self.training_seconds:.1f} s of training)"
            )
