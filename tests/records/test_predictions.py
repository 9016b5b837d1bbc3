"""Kept predictions are read as they were written; damage is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saddlescape.errors import InputError
from saddlescape.records.predictions import (
    PREDICTIONS_FORMAT,
    TAIL_ERRORS_FORMAT,
    read_predictions,
    read_tail_errors,
)


def save(path: Path, form: str = PREDICTIONS_FORMAT, **changes: Any) -> Path:
    arrays: dict[str, Any] = {
        "format": np.array(form),
        "labels": np.array([0, 1]),
        "predictions": np.array([0, 0]),
        "confidences": np.array([0.5, 0.75], np.float32),
        "indices": np.array([0, 1]),
    } | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_reading(tmp_path: Path) -> None:
    found = read_predictions(save(tmp_path / "a.npz"), 2)
    assert (found.labels.tolist(), found.predictions.tolist(), found.confidences.tolist()) == (
        [0, 1],
        [0, 0],
        [0.5, 0.75],
    )
    path = save(
        tmp_path / "b.npz", TAIL_ERRORS_FORMAT, images=np.zeros((2, 4, 4, 1), np.uint8), names=np.array(["x", "y"])
    )
    assert read_tail_errors(path, 2).names == ("x", "y")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": np.array([0, 2])}, "outside 0 to 1"),
        ({"labels": np.array([0, -1])}, "outside 0 to 1"),
        ({"labels": np.array([0])}, "differ in length"),
        ({"labels": np.array([0.0, 1.0])}, "whole numbers"),
        ({"confidences": np.array([0.5, 1.5])}, "between 0 and 1"),
        ({"confidences": np.array([0.5, np.nan])}, "between 0 and 1"),
        ({"confidences": None}, "incomplete"),
        ({"format": np.array("other")}, "not a file of format"),
        ({"labels": np.array([0, None], dtype=object)}, "cannot be read"),
    ],
)
def test_damage_is_one_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_predictions(save(tmp_path / "a.npz", **changes), 2)
    assert len(str(caught.value).splitlines()) == 1


def test_pictures_must_be_pictures(tmp_path: Path) -> None:
    for images in (
        np.zeros((2, 4, 4, 2), np.uint8),
        np.zeros((2, 4, 4), np.uint8),
        np.zeros((2, 4, 4, 3)),
        np.zeros((1, 4, 4, 3), np.uint8),
    ):
        with pytest.raises(InputError, match="images must be uint8"):
            read_tail_errors(save(tmp_path / "a.npz", TAIL_ERRORS_FORMAT, images=images), 2)
    (tmp_path / "cut.npz").write_bytes(save(tmp_path / "whole.npz").read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read"):
        read_predictions(tmp_path / "cut.npz", 2)
