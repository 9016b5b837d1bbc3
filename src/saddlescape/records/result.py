"""``result.json``: a finished run, written by the run and read by the report."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from saddlescape.records.record import Record

BY_TEST = "test (as the published scripts do)"


class Result(Record, frozen=True, kw_only=True):
    """Percent, after the last epoch of the last stage unless a name says otherwise.

    Epochs count from 1 within the last stage: those before it trained something else. ``best_`` is chosen on the test
    set, ``selected_`` by balanced accuracy on the validation split, which only runs with one have.
    """

    method: str
    dataset: str
    imbalance: float | None = None
    seed: int = 0
    model: str = ""
    epochs: int = 0
    stage_epochs: list[int] = []
    accuracy: float | None = None
    head: float | None = None
    mid: float | None = None
    tail: float | None = None
    balanced_accuracy: float | None = None
    ece: float | None = None
    per_class: list[float | None] = []
    classes: list[str] = []
    class_counts: list[int] = []
    groups: Any = None
    present_classes: int | None = None
    train_loss: float | None = None
    best_accuracy: float | None = None
    best_epoch: int | None = None
    best_is_chosen_on: str = BY_TEST
    val_accuracy: float | UnsetType | None = UNSET
    val_balanced_accuracy: float | UnsetType | None = UNSET
    selected_epoch: int | UnsetType = UNSET
    selected_accuracy: float | UnsetType | None = UNSET
    selected_head: float | UnsetType | None = UNSET
    selected_mid: float | UnsetType | None = UNSET
    selected_tail: float | UnsetType | None = UNSET
    seconds: float | None = None
    images_per_second: float | None = None
    work: float | None = None  # of all stages: passes over the training set, forward and backward
    test_openings: int | None = None  # epochs after which the test set was scored
    device: str = ""
    precision: str = ""
    compiled: bool = False
    processes: int = 1
    draw_hash: str = ""  # SHA-256 of the training images and labels, 16 hex digits
    held_hash: str = ""  # the same of the test and validation images of a person's own data
    skipped_images: int = 0
    warnings: list[str] = []  # ``result_warnings``: what to know before the run is trusted
    version: str = ""
    commit: str = ""  # of saddlescape, where it runs from a checkout
    finished: str = ""  # date, UTC
    torch: str = ""
    first_stage: str | UnsetType = UNSET  # of several stages: SHA-256 of the weights that the first ended with

    @property
    def best_of_stage(self) -> tuple[int | None, int]:
        """(``best_epoch``, epochs of the last stage). Files of former versions count the epoch over all stages."""
        stages = self.stage_epochs or [self.epochs]
        best = self.best_epoch
        return best - sum(stages[:-1]) if best is not None and best > stages[-1] else best, stages[-1]
