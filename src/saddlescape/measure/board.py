"""Measured curvature of a run that was logged with TensorBoard, put beside its curves: RUN/tensorboard/curvature."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from saddlescape.curvature import Spectrum
from saddlescape.errors import MissingExtraError
from saddlescape.measure.harness import Say
from saddlescape.records.course import CourseFile
from saddlescape.records.curvature import CurvatureFile
from saddlescape.training.loggers.tensorboard import TensorBoard
from saddlescape.training.loggers.values import name_of

BOARD = Path("tensorboard")
Moment = tuple[int, Sequence[Mapping[str, Any]], Mapping[str, Sequence[Spectrum]]]


def put_measured(folder: Path, content: CurvatureFile, say: Say) -> Path | None:
    """Scalars and spectra of all in ``curvature.json``, at its epoch. None for a run without TensorBoard."""
    rows = msgspec.to_builtins([*content.classes, *content.groups])
    spectra = {name_of(row): [Spectrum.load(folder / row["file"])] for row in rows if row["file"]}
    return _write(folder, "curvature", [(content.epoch, rows, spectra)], say)


def put_course(folder: Path, content: CourseFile, say: Say) -> Path | None:
    """Scalars of a course, at each epoch. None for a run without TensorBoard."""
    moments: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in content.rows:
        moments.setdefault((row.stage, row.epoch), []).append(msgspec.to_builtins(row))
    return _write(folder, "curvature-course", [(epoch, rows, {}) for (_, epoch), rows in moments.items()], say)


def _write(folder: Path, name: str, moments: Sequence[Moment], say: Say) -> Path | None:
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
