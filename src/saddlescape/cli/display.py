"""What a person sees while something runs: progress bars, notes, tables."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from saddlescape.records.config import Stage
    from saddlescape.training.parts import Parts
    from saddlescape.training.running import Running

ANNOUNCE = 5.0  # seconds of training after which it is said how long it will take

# A pipe or a file has no width of its own: without this, tables would be folded to 80 columns there.
_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 240

# Names and messages come from data: "[red]" or ":cat:" in them is text. So no markup anywhere.
console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, width=_WIDTH)
errors = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, stderr=True)


def hush() -> None:
    """Show nothing from here on: another process of the same run does."""
    console.quiet = errors.quiet = True


def say(line: str) -> None:
    errors.print(line)


def bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


@contextmanager
def reading() -> Iterator[Any]:
    """A callback ``progress(what, done, total)`` with a bar for each ``what``."""
    with bar() as progress:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total, note="")
            progress.update(tasks[what], completed=done, total=total)

        yield report


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Names to the left, figures to the right, every cell whole: a narrow terminal wraps the lines."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("class", "group", "arm") else "right")
    for row in rows:
        table.add_row(*row)
    options = console.options.update(width=1000)
    console.print(table, width=max(console.width, console.measure(table, options=options).maximum), crop=False)


def _minutes(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1f}"


class TrainingBar:
    """A bar over all steps of a stage with ETA, and one line an epoch where there is no terminal."""

    def __init__(self, progress: Progress, stage: Stage, start: int, label: str = "") -> None:
        self.progress, self.stage, self.label = progress, stage, label or stage.name
        self.task: TaskID | None = None
        self.start = start
        self.began, self.announced = 0.0, False

    def on_step(self, parts: Parts, epoch: int, running: Running) -> None:
        steps = len(parts.loader)
        if self.task is None:
            self.task = self.progress.add_task(self.label, total=steps * parts.epochs, note="")
            self.began, self.first = time.monotonic(), epoch * steps + running.batch
        done = epoch * steps + running.batch
        seconds = time.monotonic() - self.began
        if not self.announced and done > self.first and seconds >= ANNOUNCE:
            self.announced = True
            left = seconds / (done - self.first) * (steps * parts.epochs - done)
            if left > ANNOUNCE:
                say(f"{self.label}: about {_minutes(left)} for {parts.epochs - epoch} epochs, tests aside")
        if running.batch % 10 == 0 or running.batch == steps:
            note = f"epoch {epoch + 1}/{parts.epochs}  loss {running.mean_loss():.3f}"
            self.progress.update(self.task, completed=done, note=note)

    def on_epoch(self, parts: Parts, row: dict[str, Any]) -> None:
        tell_epoch(self.progress, self.label, row, parts.epochs, list(parts.groups))
        if row["epoch"] + 1 == parts.epochs and self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None


def tell_epoch(progress: Progress, label: str, row: dict[str, Any], epochs: int, groups: Sequence[str]) -> None:
    """A line above the bars: the scores of an epoch, or, at a terminal, of one that was not evaluated its loss."""
    scores = row.get("test")
    if scores is None and not errors.is_terminal:
        return
    text = f"{label} epoch {row['epoch'] + 1}/{epochs}: loss {row['train_loss']:.4f}"
    if scores is not None:
        text += f", test {scores['accuracy']:.2f} ({' / '.join(groups)} "
        text += f"{' / '.join(percent(scores.get(name)) for name in groups)})"
        if "val" in row:
            text += f", val {row['val']['accuracy']:.2f}"
    progress.console.print(f"{text}, {row['images_per_second']:.0f} img/s")
