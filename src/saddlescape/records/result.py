"""``result.json``: a finished run. Percent, at the last epoch unless a name says otherwise."""

from __future__ import annotations

from typing import Any

from saddlescape.records.record import Record


class Result(Record, frozen=True, kw_only=True):
    """``result.json``."""

    method: str
    dataset: str
    seed: int = 0
    imbalance: float | None = None
    model: str = ""
    epochs: int = 0
    accuracy: float | None = None
    head: float | None = None
    mid: float | None = None
    tail: float | None = None
    balanced_accuracy: float | None = None
    ece: float | None = None
    per_class: list[float | None] = []
    classes: list[str] = []
    class_counts: list[int] = []
    best_accuracy: float | None = None
    best_epoch: int | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    device: str = ""
    precision: str = ""
    compiled: bool = False
    draw_hash: str = ""
    held_hash: str = ""
    skipped_images: int = 0
    version: str = ""
    torch: str = ""
    settings: list[str] = []
    groups: Any = None
