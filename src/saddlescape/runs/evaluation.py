"""Score a trained run on images: its own test set, or others of the same classes, matched by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saddlescape.data.images import draw_hash
from saddlescape.data.load import load
from saddlescape.data.loader import build_loader
from saddlescape.data.sources.registry import dataset_names
from saddlescape.data.types import Dataset, Split
from saddlescape.disk import expanded
from saddlescape.errors import InputError
from saddlescape.losses.logit_adjustment import post_hoc_adjust
from saddlescape.records import files
from saddlescape.runs.frozen import with_features
from saddlescape.runs.images import Image, among, identify, require_same, trained_images
from saddlescape.runs.opened import Opened, open_run
from saddlescape.runs.plan import load_data, moved
from saddlescape.runs.predictions import keep_predictions
from saddlescape.training.batches import EVALUATION_BATCH
from saddlescape.training.metrics import Scorer, Scores, score
from saddlescape.training.precision import Precision, resolve_device


def evaluate_run(
    folder: Path,
    *,
    data: str | None = None,
    root: str | None = None,
    split: str = "test",
    post_hoc: float | None = None,
    device: str = "auto",
    progress: Callable[..., None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Scores, dict[str, list[float | None]], Dataset]:
    """Scores, the report of each class and the data set they are for; see ``saddlescape evaluate --help``.

    On its own test set a finished run's answers are kept in the run folder, for the report; a folder that cannot be
    written is reported by ``say`` and has no other effect.

    Raises:
        InputError: no such split, classes that the run does not know, or data that cannot be read.
    """
    opened = open_run(folder)
    if data is None:
        dataset = run_data(opened, root=root, progress=progress, say=say)
    else:
        dataset = other_data(opened, data, split, root=root, progress=progress, say=say)
    chosen = _chosen(dataset, split)
    where = resolve_device(device)
    model = opened.model_for(dataset).to(device=where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = build_loader(chosen, dataset.preprocess, batch_size=EVALUATION_BATCH, device=where)
    adjust: Callable[[Tensor], Tensor] | None = None
    if post_hoc is not None:
        counts, tau = dataset.class_counts, post_hoc

        def adjust(logits: Tensor) -> Tensor:
            return post_hoc_adjust(logits, counts, tau=tau)

    precision = Precision(opened.config.precision, where.type)
    scorer = score(model, loader.epoch(0), dataset.num_classes, precision, adjust, opened.logit_scale)
    # Answers of an unfinished run would pass for those of the finished one later on.
    if data is None and split == "test" and post_hoc is None and files.read_result(folder) is not None:
        try:
            keep_predictions(folder, scorer, dataset.source or dataset, opened.preprocess)
        except InputError as error:
            say(f"warning: the answers are not kept for the report: {error}")
    return scorer.scores(dataset.groups), class_report(scorer), dataset


def class_report(scorer: Scorer) -> dict[str, list[float | None]]:
    """``precision``, ``recall`` and ``f1`` [C] in percent by scikit-learn; None for a class without images.

    A class that is never predicted has precision 0.
    """
    from sklearn.metrics import precision_recall_fscore_support

    *figures, images = precision_recall_fscore_support(
        *scorer.predicted(), labels=range(scorer.num_classes), zero_division=0
    )
    return {
        name: [100 * float(value) if count else None for value, count in zip(values, images, strict=True)]
        for name, values in zip(("precision", "recall", "f1"), figures, strict=True)
    }


def run_data(
    opened: Opened,
    *,
    root: str | None = None,
    held: bool = True,
    progress: Callable[..., None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Dataset:
    """The data of a run, as they were; ``root``: where they have moved. ``held``: test and validation images as well.

    Raises:
        InputError: they cannot be found or read, or have changed.
    """
    config = opened.config
    data = moved(config.data, root)
    try:
        dataset = load_data(data, progress=progress, white_level=opened.preprocess.white_level)
    except InputError as error:
        own = data.name not in dataset_names()
        if own and root is None and not expanded(data.name).exists():
            raise InputError(f"{error}; if the data have moved, name their folder with --root") from error
        raise
    if dataset.classes != opened.classes and sorted(dataset.classes) == sorted(opened.classes):
        say("the data have the same classes in another order; matched by name")
        dataset = _in_order(dataset, opened.classes)
    if data.split == "position":
        for note in dataset.notes:
            if note.startswith("no test set given"):
                say(f"{opened.folder} is of an older version, which split by position; {note}")
    if set(dataset.classes) != set(opened.classes):
        raise InputError(
            f"the data at {data.name!r} now has other classes than the run was trained on"
            f" ({_differences(opened.classes, dataset.classes)}): restore them, or score other images with --data"
        )
    repair = "restore the data as it was" + (", or score other images with --data" if held else "")
    require_same(opened.folder, config, opened.meta, dataset, repair, held)
    return with_features(config, dataset, opened.folder, say, opened.trained_on)


def other_data(
    opened: Opened,
    data: str,
    split: str,
    *,
    root: str | None = None,
    progress: Callable[..., None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Dataset:
    """Images for a run to score, labels mapped by class name to the run's. Data without a test set are one.

    Images that the run was trained on are left out of the test and validation images. Counts and groups are those of
    the run's training.

    Raises:
        InputError: a class that the run does not know, no image that it was not trained on.
    """
    own = data not in dataset_names() or opened.config.data.image_size
    size = opened.preprocess.image_size if own else None
    white = opened.preprocess.white_level  # scaled as in training, whatever the range of these images
    dataset = load(data, root=root, image_size=size, progress=progress, white_level=white, split="none",
                   preprocess=opened.preprocess if opened.config.data.mean else None)  # fmt: skip
    if (channels := dataset.preprocess.channels) != opened.preprocess.channels:
        what = "its rows have {} columns" if dataset.preprocess.features else "its images have {} channels"
        raise InputError(f"{data}: {what.format(channels)}, the run takes {opened.preprocess.channels}")
    if dataset.classes != opened.classes and sorted(dataset.classes) == sorted(opened.classes):
        say(f"{data} has the same classes in another order; matched by name")
    dataset = _in_order(dataset, opened.classes, data)
    chosen = _chosen(dataset, split)
    if split != "train":
        trained = _trained(opened, progress)
        if trained is None:
            say(f"which images {opened.folder} was trained on is not recorded; any of them that are here count too")
        elif (seen := among(chosen, dataset.base, trained)).all():
            raise InputError(f"{data}: the run was trained on all of these {len(seen)} images; give others")
        elif seen.any():
            say(f"{int(seen.sum())} of {len(seen)} images are left out: the run was trained on them")
            kept: Any = {split: chosen.take(np.flatnonzero(~seen))}
            dataset = dataclasses.replace(dataset, **kept)
    counts, groups = _counts_and_groups(opened, progress)
    return dataclasses.replace(dataset, class_counts=counts, groups=groups, preprocess=opened.preprocess)


def _chosen(dataset: Dataset, name: str) -> Split:
    split = {"train": dataset.train, "val": dataset.val, "test": dataset.test}.get(name)
    if split is None or not len(split):
        there = [word for word in ("train", "val", "test") if getattr(dataset, word) and len(getattr(dataset, word))]
        raise InputError(f"--split {name}: this data has no such split; use {' or '.join(there)}")
    return split


def _trained(opened: Opened, progress: Callable[..., None] | None) -> list[Image] | None:
    """The images that a run was trained on, as recorded or as its data still are; None where neither is known."""
    recorded = trained_images(opened.folder)
    if recorded is not None:
        return recorded
    try:
        dataset = load_data(opened.config.data, progress=progress, white_level=opened.preprocess.white_level)
    except InputError:
        return None
    return identify(dataset.train, dataset.base) if dataset.draw_hash == opened.meta.get("draw_hash") else None


def _counts_and_groups(
    opened: Opened, progress: Callable[..., None] | None
) -> tuple[list[int], dict[str, list[int]]]:
    """Those of training: from the checkpoint or the result; of an old run that is not finished, from its data."""
    for facts in (opened.meta, files.read_result(opened.folder) or {}):
        if "class_counts" in facts and "groups" in facts:
            return facts["class_counts"], facts["groups"]
    dataset = load_data(opened.config.data, progress=progress)
    return dataset.class_counts, dataset.groups


def _in_order(dataset: Dataset, classes: list[str], where: str = "") -> Dataset:
    """The same data with the labels that their class names have in ``classes``.

    Raises:
        InputError: images of a class that is not among them.
    """
    place = {name: label for label, name in enumerate(classes)}
    present = sorted({label for split in (dataset.train, dataset.val, dataset.test) if split is not None
                      for label in split.labels.tolist()})  # fmt: skip
    unknown = [dataset.classes[label] for label in present if dataset.classes[label] not in place]
    if unknown:
        listed = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
        raise InputError(f"{where}: class {unknown[0]!r} is unknown to the run, which has {listed}")
    position = torch.tensor([place.get(name, -1) for name in dataset.classes])
    splits: dict[str, Any] = {
        name: dataclasses.replace(split, labels=position[split.labels])
        for name in ("train", "test", "val")
        if (split := getattr(dataset, name)) is not None
    }
    counts = [0] * len(classes)
    for label, count in enumerate(dataset.class_counts):
        if count:
            counts[int(position[label])] = count
    return dataclasses.replace(
        dataset,
        classes=list(classes),
        class_counts=counts,
        groups={name: sorted(position[labels].tolist()) for name, labels in dataset.groups.items()},
        draw_hash=draw_hash(splits["train"]),
        held_hash=dataset.held_hash and draw_hash(*(splits[name] for name in ("test", "val") if name in splits)),
        **splits,
    )


def _differences(old: list[str], new: list[str]) -> str:
    lists = (("new", sorted(set(new) - set(old))), ("gone", sorted(set(old) - set(new))))
    return ", ".join(f"{word}: {', '.join(map(repr, some[:4]))}" for word, some in lists if some)
