"""``metrics.jsonl``: a row for each epoch of each stage, written by the run and read by the report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from saddlescape.records import files
from saddlescape.records.record import Record, convert


class SplitScores(Record, frozen=True, kw_only=True):
    """Percent, ``loss`` in nats; null for a class or group without images and where logits were not finite."""

    accuracy: float | None = None
    balanced_accuracy: float | None = None
    loss: float | None = None
    ece: float | None = None
    per_class: list[float | None] | None = None
    present: int | None = None
    images: int | None = None
    head: float | None = None
    mid: float | None = None
    tail: float | None = None


class EpochRow(Record, frozen=True, kw_only=True):
    """One epoch; ``stage`` is an index and ``epoch`` 0-based within its stage. ``rho``: null without SAM."""

    stage: int
    name: str = ""
    epoch: int
    lr: float | None = None
    rho: float | None = None
    train_loss: float | None = None
    train_accuracy: float | None = None
    images: int = 0
    seconds: float = 0.0
    images_per_second: float | None = None
    work: float | None = None  # passes over the training set, forward and backward; None in older files
    fitted: Any = None  # of a head fitted in closed form: what was fitted
    test: SplitScores | None = None  # where the epoch was evaluated
    val: SplitScores | None = None


OPTIONAL = ("fitted", "test", "val")  # left out where there are none


def epoch_of(row: dict[str, Any], stage: int, name: str) -> EpochRow:
    """What training reports of an epoch, as a record. Raises TypeError for a field that the file does not have."""
    scores: dict[str, Any] = {split: SplitScores(**row[split]) for split in ("test", "val") if split in row}
    return EpochRow(stage=stage, name=name, **(row | scores))


def append(path: Path, epoch: EpochRow) -> None:
    files.append_row(path, _as_row(epoch))


def keep(path: Path, epochs: Iterable[EpochRow]) -> None:
    """Rewrite the file with just these rows."""
    files.keep_rows(path, map(_as_row, epochs))


def read_metrics(path: Path) -> list[EpochRow]:
    """The rows; none where there is no file. Raises InputError for a damaged one, by its line."""
    rows = files.read_rows(path, {"stage", "epoch"})
    return [convert(row, EpochRow, f"{path}, line {number}") for number, row in enumerate(rows, start=1)]


def _as_row(epoch: EpochRow) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(epoch)
    return {name: value for name, value in row.items() if value is not None or name not in OPTIONAL}
