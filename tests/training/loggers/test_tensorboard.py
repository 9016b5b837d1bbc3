"""The TensorBoard watcher writes the numbers of a row, and says what is missing where it cannot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import pytest

from saddlescape.errors import MissingExtraError
from saddlescape.training.loggers.tensorboard import TensorBoard
from saddlescape.training.loggers.values import scalars

ROW = {"epoch": 2, "lr": 0.1, "rho": None, "test": {"accuracy": 70.0, "tail": None, "per_class": [1.0, 2.0], "mid": 5}}


def test_the_scalars_of_a_row() -> None:
    assert scalars(cast(dict[str, Any], ROW)) == {"lr": 0.1, "test/accuracy": 70.0, "test/mid": 5.0}


def test_written_scalars_are_read_back(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the extra tensorboard is not installed"
    )
    watcher = TensorBoard(tmp_path)
    watcher.on_epoch(cast(Any, None), cast(dict[str, Any], ROW))
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"lr", "test/accuracy", "test/mid"}
    (event,) = events.Scalars("test/accuracy")
    assert (event.step, event.value) == (3, 70.0)


def test_a_missing_package_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"saddlescape\[tensorboard\]"):
        TensorBoard(tmp_path)
