"""A run that continues from the first stage of another one: which weights those are, and that they fit."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from saddlescape.data.types import Dataset
from saddlescape.errors import InputError, counted
from saddlescape.records import files
from saddlescape.records.config import RunConfig, Stage
from saddlescape.runs import config as configuration
from saddlescape.runs.images import among, trained_images
from saddlescape.training.checkpoint import CheckpointFolder, Cursor

WEIGHTS = "model.safetensors"


def first_stage_hash(run: Path) -> str:
    """SHA-256 (16 hex digits) of the weights that the first stage of ``run`` ended with.

    Raises:
        InputError: not a run, or its first stage is not finished.
    """
    path = _end_of_first_stage(run) / WEIGHTS
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def continue_from(config: RunConfig, run: Path, folder: Path) -> tuple[RunConfig, list[str]]:
    """``config``, for ``folder``, with its first stage taken from ``run``; and what there is to say about it.

    Raises:
        InputError: a method of one stage, another network, a first stage that is not finished or not one.
    """
    other = configuration.load(run)
    if len(config.stages) < 2:
        raise InputError(f"--from {run}: {config.method} has one stage; --from replaces the first of several")
    if other.model != config.model:
        raise InputError(f"--from {run}: it trained {other.model}, this run is for {config.model}: use --model")
    notes = []
    differing = _differing(other.stages[0], config.stages[0])
    if differing:
        notes.append(f"first stage as {run} trained it ({other.method}): {', '.join(differing)}")
    config = replace(
        config,
        stages=(other.stages[0], *config.stages[1:]),
        start=os.path.relpath(run.resolve(), folder.resolve()),  # "..": of the folders themselves, not of links
        start_hash=first_stage_hash(run),
    )
    return config, notes


def same_first_stage(one: RunConfig, two: RunConfig) -> bool:
    """Whether both begin with the same weights: network, images, seed, arithmetic and first stage, or one source."""
    plain = [
        replace(config, method="", stages=(), eval_every=1, keep_every=0, start="")
        for config in (one, two)
    ]
    return plain[0] == plain[1] and not _differing(one.stages[0], two.stages[0])


def load_first_stage(model: nn.Module, run: Path, expected: str, dataset: Dataset) -> list[str]:
    """Fill ``model`` with what the first stage of ``run`` ended with; returns what there is to say about it.

    Raises:
        InputError: it has gone, changed, was trained on other classes, may have seen the validation images, or does
            not fit.
    """
    found = first_stage_hash(run)
    if found != expected:
        raise InputError(
            f"{run}: the weights after its first stage are {found}, this run was planned with {expected}: "
            "restore them, or choose another --out"
        )
    path = _end_of_first_stage(run)
    cursor = Cursor.parse(path.name)
    assert cursor is not None
    checkpoint = CheckpointFolder(path.parent).load(cursor)
    if checkpoint.meta.get("classes") != dataset.classes:
        raise InputError(f"{run} was trained on other classes than {dataset.name!r} has now")
    draw = checkpoint.meta.get("draw_hash")
    if draw != dataset.draw_hash and dataset.base is not None:
        _require_unseen(run, dataset)
    elif draw != dataset.draw_hash and dataset.val is not None:
        raise InputError(
            f"{run} was trained on other images (draw {draw}, here {dataset.draw_hash}), perhaps on those held out for "
            "validation: train it with the same data, --val, --imbalance and --draw-seed"
        )
    checkpoint.fill(model)
    if draw == dataset.draw_hash:
        return []
    return [f"warning: the first stage was trained on other images (draw {draw}, here {dataset.draw_hash})"]


def _require_unseen(run: Path, dataset: Dataset) -> None:
    """Raises InputError where ``run`` was trained on test or validation images of ``dataset``, or has no record."""
    trained = trained_images(run)
    if trained is None:
        raise InputError(
            f"{run} was trained on other images than {dataset.name!r} has now, and does not record which: some may be "
            "test images here; train it again with the same data"
        )
    for word, split in (("test", dataset.test), ("validation", dataset.val)):
        seen = among(split, dataset.base, trained) if split is not None else np.zeros(0, dtype=bool)
        if seen.any():
            raise InputError(
                f"{run} was trained on {int(seen.sum())} of the {len(seen)} {word} images that {dataset.name!r} has "
                "now: train it again with the same data, --val, --imbalance and --draw-seed"
            )


def _end_of_first_stage(run: Path) -> Path:
    config = configuration.load(run)
    if config.start:
        return _end_of_first_stage(run / config.start)
    wanted = Cursor(0, config.stages[0].epochs)
    path = run / files.CHECKPOINT / wanted.folder
    if not (path / WEIGHTS).is_file():
        raise InputError(
            f"{run}: no checkpoint after the {counted(wanted.epoch, 'epoch')} of its first stage: "
            "let it finish (run the same command again)"
        )
    return path


def _differing(one: Stage, two: Stage) -> list[str]:
    """Fields, other than the name, in which two stages differ."""
    return [name for name in vars(one) if name != "name" and getattr(one, name) != getattr(two, name)]
