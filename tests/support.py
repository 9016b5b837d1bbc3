"""What tests of several rooms share: how a run ended, compared to the bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saddlescape.records import files
from saddlescape.training.checkpoint import Checkpoint, CheckpointFolder


def timeless(row: Mapping[str, Any]) -> dict[str, Any]:
    """Without what depends on the clock."""
    return {key: value for key, value in row.items() if key not in ("seconds", "images_per_second")}


def rows_of(run: Path, stage: int | None = None) -> list[dict[str, Any]]:
    """Rows of all stages, or of one."""
    return [timeless(row) for row in files.read_rows(run / files.METRICS) if stage in (None, row["stage"])]


def result_of(run: Path = Path("run")) -> dict[str, Any]:
    return json.loads((run / files.RESULT).read_text())  # type: ignore[no-any-return]


def end_of(run: Path) -> Checkpoint:
    newest = CheckpointFolder(run / files.CHECKPOINT).newest()
    assert newest is not None
    return newest


def assert_same_bits(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


def assert_same_end(one: Path, two: Path, stage: int | None = None) -> None:
    """Weights, random state, momenta and rows; the results too where both are there."""
    first, second = end_of(one), end_of(two)
    assert_same_bits(first.model, second.model)
    assert rows_of(one, stage) == rows_of(two, stage)
    if stage is None:
        assert torch.equal(first.state["rng"], second.state["rng"])
        momenta = [end.state["optimizer"]["state"] for end in (first, second)]
        assert momenta[0].keys() == momenta[1].keys()
        for key, kept in momenta[0].items():
            assert torch.equal(kept["momentum_buffer"], momenta[1][key]["momentum_buffer"])
        if (one / files.RESULT).exists() and (two / files.RESULT).exists():
            assert timeless(result_of(one)) == timeless(result_of(two))
