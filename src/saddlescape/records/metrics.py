"""A row of ``metrics.jsonl``: one epoch of one stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saddlescape.records.files import read_rows
from saddlescape.records.record import Record, convert


class Scores(Record, frozen=True, kw_only=True):
    """Percent, on the test images after one epoch."""

    accuracy: float | None = None
    balanced_accuracy: float | None = None
    loss: float | None = None
    ece: float | None = None
    per_class: list[float | None] | None = None
    head: float | None = None
    mid: float | None = None
    tail: float | None = None
    images: int | None = None


class Epoch(Record, frozen=True, kw_only=True):
    """A row of ``metrics.jsonl``; ``epoch`` is 0-based within its stage."""

    stage: int = 0
    epoch: int
    lr: float | None = None
    rho: float | None = None
    train_loss: float | None = None
    train_accuracy: float | None = None
    seconds: float | None = None
    test: Scores | None = None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl`` as they are, each checked. Raises InputError for a damaged one, by its line."""
    rows = read_rows(path, {"stage", "epoch"})
    for number, row in enumerate(rows, start=1):
        convert(row, Epoch, f"{path}, line {number}")
    return rows
