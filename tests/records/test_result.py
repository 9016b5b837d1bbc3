"""A result of a former version says the same as one of this."""

from __future__ import annotations

from typing import Any

import pytest

from saddlescape.records.config import BackboneConfig, DataConfig, RunConfig
from saddlescape.records.record import convert
from saddlescape.records.result import Result
from saddlescape.records.result_warnings import result_warnings


@pytest.mark.parametrize(
    ("epochs", "best", "said"),
    [
        ({"epochs": 3, "stage_epochs": [2, 1]}, 1, (1, 1)),
        ({"epochs": 3, "stage_epochs": [2, 1]}, 3, (1, 1)),  # counted over both stages
        ({"epochs": 4, "stage_epochs": [4]}, 3, (3, 4)),
        ({"epochs": 4}, 3, (3, 4)),  # before stages were named
        ({"epochs": 4}, None, (None, 4)),
    ],
)
def test_the_best_epoch_is_one_of_the_last_stage(
    epochs: dict[str, object], best: int | None, said: tuple[int | None, int]
) -> None:
    raw = {"method": "crt", "dataset": "digits", "best_epoch": best, **epochs}
    assert convert(raw, Result, "result.json").best_of_stage == said


TUNES = ("head", "norm", "lora", "all")
FINE: dict[str, object] = {
    "per_class": [70.0, 60.0, 50.0], "balanced_accuracy": 60.0, "ece": 4.0, "classes": ["a", "b", "c"],
    "class_counts": [300, 60, 20],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "train_accuracy", "steps", "said"),
    [
        ({}, 99.0, 300, []),
        ({}, None, 300, []),  # mixtures of images: training accuracy says nothing
        ({}, 40.0, 5000, []),  # hard data, not a short run
        ({}, 40.0, 95, ["training was cut short: after 95 steps 40 % of the training images are right"]),
        ({"per_class": [100.0, 0.0, 0.0], "balanced_accuracy": 33.3}, 40.0, 95, ["33.3 %, chance is 33.3 %: nothing"]),
        ({"per_class": [5.0, 80.0, 90.0], "balanced_accuracy": 58.3}, 99.0, 95, ["'a' (300 training images) 5.0 %"]),
        ({"per_class": [90.0, None, 0.0], "balanced_accuracy": 45.0}, 99.0, 95, ["chance is 50 %: nothing"]),
        ({"per_class": [None, 90.0, None], "balanced_accuracy": 90.0}, 99.0, 95, []),
        ({"ece": 14.26}, 99.0, 95, ["calibration error 14.3 %"]),
        ({"per_class": [], "balanced_accuracy": None, "ece": None}, None, 0, []),
    ],
)  # fmt: skip
def test_what_to_know_before_a_run_is_trusted(
    changed: dict[str, object], train_accuracy: float | None, steps: int, said: list[str]
) -> None:
    result = convert({"method": "ce", "dataset": "d", **FINE, **changed}, Result, "result.json")
    found = result_warnings(result, train_accuracy, steps)
    assert len(found) == len(said) and all(part in line for part, line in zip(said, found, strict=True)), found


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("scratch", {}),
        ("all", {"pretrained": True}),  # of older versions
        ("features", {"model": "features"}),
        *((tune, {"backbone": BackboneConfig(weights_hash="0" * 16, tune=tune)}) for tune in TUNES),
    ],
)
def test_no_warning_advises_what_the_run_did_already(kind: str, changed: dict[str, Any]) -> None:
    config = RunConfig(**{"method": "ce", "model": "resnet20", "seed": 0, "data": DataConfig(name="d"), "stages": (),
                          **changed})  # fmt: skip
    assert config.start_kind == kind
    found = []
    for scores, known in (([0.0, 0.0, 100.0], 40.0), ([70.0, 60.0, 10.0], 40.0), ([70.0, 70.0, 70.0], 40.0)):
        faults = {"per_class": scores, "balanced_accuracy": sum(scores) / 3, "ece": 30.0}
        result = convert({"method": "ce", "dataset": "d", **FINE, **faults}, Result, "result.json")
        found += result_warnings(result, known, 5, config.start_kind)
    text = " ".join(found)
    assert all(fault in text for fault in ("nothing was learned", "cut short", "far below", "calibration error"))
    assert ("start from a pretrained network" in text) == (kind == "scratch")
    assert ("--tune head" in text) == (kind in ("norm", "lora", "all"))
