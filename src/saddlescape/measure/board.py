"""Measured curvature of a run that was logged with TensorBoard, put beside its curves: RUN/tensorboard/curvature."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saddlescape.curvature import Spectrum
from saddlescape.errors import MissingExtraError
from saddlescape.training.loggers.tensorboard import TensorBoard
from saddlescape.training.loggers.values import name_of

BOARD = Path("tensorboard")
Moment = tuple[int, Sequence[Mapping[str, Any]], Mapping[str, Sequence[Spectrum]]]


def put_measured(folder: Path, content: Mapping[str, Any], say: Callable[[str], None]) -> Path | None:
    """Scalars and spectra of all that stands in ``curvature.json``, at its epoch. None where there is no board."""
    rows = [*content["classes"], *content["groups"]]
    spectra = {name_of(row): [Spectrum.load(folder / row["file"])] for row in rows if row["file"]}
    return _write(folder, "curvature", [(content["epoch"], rows, spectra)], say)


def put_course(folder: Path, rows: Sequence[Mapping[str, Any]], say: Callable[[str], None]) -> Path | None:
    """Scalars of a course, at each epoch. None where there is no board."""
    moments = list(dict.fromkeys((row["stage"], row["epoch"]) for row in rows))
    found: list[Moment] = [
        (epoch, [row for row in rows if (row["stage"], row["epoch"]) == (stage, epoch)], {}) for stage, epoch in moments
    ]
    return _write(folder, "curvature-course", found, say)


def _write(folder: Path, name: str, moments: Sequence[Moment], say: Callable[[str], None]) -> Path | None:
    """A folder of its own, written anew: TensorBoard shows it as a run, and events are never there twice."""
    if not (folder / BOARD).is_dir():
        return None
    place = folder / BOARD / name
    if place.is_dir():
        shutil.rmtree(place)
    try:
        board = TensorBoard(place)
    except MissingExtraError as missing:
        say(f"not added to {folder / BOARD}: {missing}")
        return None
    for step, rows, spectra in moments:
        board.on_curvature(step, rows, spectra)
    board.close()
    return place
