"""``curvature-course.jsonl``: format and settings, then the curvature of each class and group, moment by moment."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import msgspec

from saddlescape.errors import InputError
from saddlescape.records.files import keep_rows, read_rows
from saddlescape.records.record import MeasuredFile, Record, convert, finite


class Followed(Record, frozen=True, kw_only=True):
    """What is followed of a class and, as a mean over its classes, of a group. Accuracies in percent."""

    group: str | None = None
    lambda_min: float | None = None
    lambda_max: float | None = None
    nonconvexity: float | None = None
    loss: float | None = None
    converged: bool = False
    train_accuracy: float | None = None  # on the images measured
    test_accuracy: float | None = None


class ClassPoint(Followed, frozen=True, kw_only=True):
    """A class at one moment. ``warm``: measured from the eigenvectors of the moment before."""

    name: str = msgspec.field(name="class", default="")
    label: int | None = None
    residual_min: float | None = None
    residual_max: float | None = None
    rounding: float | None = None
    proved: bool = False
    products: int | None = None
    seconds: float | None = None
    warm: bool = False


class Moment(ClassPoint, frozen=True, kw_only=True):
    """The row of a class. ``epoch``: whole epochs done in the stage; ``source``: live or checkpoint."""

    stage: int = 0
    epoch: int
    source: str = ""


class GroupMoment(Followed, frozen=True, kw_only=True):
    """The row of a group: means over its ``classes`` measured."""

    label: ClassVar[None] = None

    stage: int = 0
    epoch: int
    classes: int = 0


class CourseFile(MeasuredFile, kw_only=True):
    NAME: ClassVar[str] = "curvature-course.jsonl"

    format: str = "saddlescape-curvature-course-1"
    rows: list[Moment | GroupMoment] = []

    def save(self, path: Path) -> None:
        """Write the whole file, or none of it: a line of format and settings, then a line a row."""
        head = {"format": self.format, "settings": self.settings}
        keep_rows(path, (finite(msgspec.to_builtins(line)) for line in (head, *self.rows)))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises InputError for a damaged line, by its number."""
        lines = read_rows(path)
        if not lines:
            raise InputError(f"{path}: empty; delete it and measure again")
        head = convert({"format": "", **lines[0]}, MeasuredFile, path.name)
        rows = [
            convert(line, Moment if "label" in line else GroupMoment, f"{path.name}, line {number}")
            for number, line in enumerate(lines[1:], start=2)
        ]
        return cls(format=head.format, settings=head.settings, rows=rows)
