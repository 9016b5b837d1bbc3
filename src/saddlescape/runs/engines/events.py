"""What a run tells of itself while it is under way, in words that travel between processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from saddlescape.training.loop import Parts, Running

EVERY = 0.5  # seconds between two steps that are told


@dataclass(frozen=True)
class Note:
    """A line for a person."""

    label: str
    line: str


@dataclass(frozen=True)
class Step:
    """``done`` of ``total`` epochs, over all stages of the run; ``text`` says where in its stage it is."""

    label: str
    done: float
    total: int
    text: str


@dataclass(frozen=True)
class Epoch:
    """The row of metrics of an epoch, of so many in its stage; ``groups`` are the names of the scores to show."""

    label: str
    row: dict[str, Any]
    epochs: int
    groups: tuple[str, ...]


Event = Note | Step | Epoch
Tell = Callable[[Event], None]


class Telling:
    """A watcher of one stage that tells ``tell`` of steps (not too often) and of epochs; ``before`` of the run's
    ``total`` epochs belong to the stages before it."""

    def __init__(self, tell: Tell, label: str, before: int, total: int) -> None:
        self.tell, self.label, self.before, self.total = tell, label, before, total
        self._last = 0.0

    def on_step(self, parts: Parts, epoch: int, running: Running) -> None:
        now = time.monotonic()
        if now - self._last < EVERY:
            return
        self._last = now
        done = self.before + epoch + running.batch / len(parts.loader)
        text = f"epoch {epoch + 1}/{parts.epochs}  loss {running.mean_loss():.3f}"
        self.tell(Step(self.label, done, self.total, text))

    def on_epoch(self, parts: Parts, row: dict[str, Any]) -> None:
        self.tell(Epoch(self.label, row, parts.epochs, tuple(parts.groups)))
