"""A result of a former version says the same as one of this."""

from __future__ import annotations

import pytest

from saddlescape.records.record import convert
from saddlescape.records.result import Result


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
