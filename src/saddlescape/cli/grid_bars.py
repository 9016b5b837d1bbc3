"""Progress of a grid: a bar for each run that is under way, and one for all with the time that is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.progress import Progress, TaskID

from saddlescape.cli.display import tell_epoch

if TYPE_CHECKING:
    from saddlescape.runs.engines.events import Epoch, Step
    from saddlescape.runs.engines.job import Job


class GridBars:
    """Bars in epochs, and a line for each epoch that was evaluated.

    The bar of all runs leaves out the epochs of a former session, which would look like fast ones.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.tasks: dict[str, TaskID] = {}
        self.began: dict[str, float] = {}
        self.done: dict[str, float] = {}
        self.ended: set[str] = set()
        self.all: TaskID | None = None

    def __call__(self, jobs: Sequence[Job], event: Step | Epoch) -> None:
        from saddlescape.runs.engines.events import Epoch

        if isinstance(event, Epoch):
            tell_epoch(self.progress, event.label, event.row, event.epochs, event.groups)
            return
        label = event.label
        self.began.setdefault(label, event.done)
        self.done[label] = event.done
        if event.done < event.total:
            if label not in self.tasks:
                self.tasks[label] = self.progress.add_task(label, total=event.total, note="")
            self.progress.update(self.tasks[label], completed=event.done, note=event.text)
        else:
            self.ended.add(label)
            if label in self.tasks:
                self.progress.remove_task(self.tasks.pop(label))
        if len(jobs) > 1:
            self._show_all(jobs)

    def _show_all(self, jobs: Sequence[Job]) -> None:
        if self.all is None:
            self.all = self.progress.add_task("all runs", total=None, note="")
        before = sum(self.began.values())
        self.progress.update(
            self.all, completed=sum(self.done.values()) - before, total=sum(job.epochs for job in jobs) - before,
            note=f"epochs; {len(self.ended)} of {len(jobs)} runs ended",
        )  # fmt: skip
