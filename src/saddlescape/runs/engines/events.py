"""The progress of a run, as small values that travel between processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from saddlescape.training.parts import Parts
from saddlescape.training.running import Running

EVERY = 0.5  # seconds between two ``Step`` of a run, at least


@dataclass(frozen=True)
class Note:
    """A line for a person."""

    label: str
    line: str


@dataclass(frozen=True)
class Step:
    """``done`` of ``total`` epochs, over all stages of the run; ``text`` is the epoch and the loss of its stage."""

    label: str
    done: float
    total: int
    text: str


@dataclass(frozen=True)
class Epoch:
    """The row of metrics of an epoch; ``epochs`` in its stage; ``groups`` are the names of the scores to show."""

    label: str
    row: dict[str, Any]
    epochs: int
    groups: tuple[str, ...]


Event = Note | Step | Epoch
Emit = Callable[[Event], None]


@dataclass
class Progress:
    """A watcher of one stage; ``before`` of the run's ``total`` epochs belong to the stages before it."""

    emit: Emit
    label: str
    before: int
    total: int
    stage: str = ""  # its name, of a method of several stages
    last: float = 0.0

    def on_step(self, parts: Parts, epoch: int, running: Running) -> None:
        if time.monotonic() - self.last < EVERY:
            return
        self.last = time.monotonic()
        done = self.before + epoch + running.batch / len(parts.loader)
        where = f"epoch {epoch + 1}/{parts.epochs}  loss {running.mean_loss():.3f}"
        self.emit(Step(self.label, done, self.total, where))

    def on_epoch(self, parts: Parts, row: dict[str, Any]) -> None:
        label = f"{self.label}, stage {self.stage}" if self.stage else self.label
        self.emit(Epoch(label, row, parts.epochs, tuple(parts.groups)))
