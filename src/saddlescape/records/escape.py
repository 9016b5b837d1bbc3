"""``escape.json``: training continued from one checkpoint with several optimisers."""

from __future__ import annotations

from typing import Any

from saddlescape.records.record import Record


class ArmEpoch(Record, frozen=True, kw_only=True):
    epoch: int
    accuracy: float | None = None
    head: float | None = None
    mid: float | None = None
    tail: float | None = None
    lambda_min: float | None = None
    lambda_max: float | None = None
    nonconvexity: float | None = None
    loss: float | None = None
    converged: bool = False


class Arm(Record, frozen=True, kw_only=True):
    arm: str
    optimizer: str = ""
    rho: float | None = None
    seed: int = 0
    problem: str | None = None
    epochs: list[ArmEpoch] = []


class Verdict(Record, frozen=True, kw_only=True):
    answer: str = ""
    text: str = ""


class EscapeFile(Record, frozen=True, kw_only=True):
    arms: list[Arm] = []
    verdict: Verdict | None = None
    group_labels: Any = None
