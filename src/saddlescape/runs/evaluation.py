"""Score a trained run on images: its own test set, or others of the same classes, matched by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from saddlescape.data.load import load
from saddlescape.data.loader import build_loader
from saddlescape.data.types import ArraySplit, Dataset, FileSplit, Split
from saddlescape.errors import InputError
from saddlescape.losses.logit_adjustment import post_hoc_adjust
from saddlescape.runs import format as files
from saddlescape.runs.answers import write_answers
from saddlescape.runs.opened import Opened, open_run
from saddlescape.runs.plan import load_data
from saddlescape.training.batches import EVALUATION_BATCH, decoder
from saddlescape.training.evaluate import score
from saddlescape.training.metrics import Scores
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
) -> tuple[Scores, Dataset]:
    """Scores and the data set they are for; see ``saddlescape evaluate --help``.

    On its own test set a finished run's answers are kept in the run folder, for the report; a folder that cannot be
    written is told to ``say`` and costs nothing else.

    Raises:
        InputError: no such split, classes that the run does not know, or data that cannot be read.
    """
    opened = open_run(folder)
    dataset = run_data(opened, data=data, root=root, progress=progress)
    chosen: Split | None = {"train": dataset.train, "val": dataset.val, "test": dataset.test}.get(split)
    if chosen is None:
        raise InputError(f"--split {split}: this data has no such split; use test or train")
    where = resolve_device(device)
    model = opened.model.to(device=where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = build_loader(
        chosen, opened.preprocess, batch_size=EVALUATION_BATCH, device=where, decode=decoder(opened.preprocess)
    )
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
            write_answers(folder, scorer, dataset, opened.preprocess)
        except InputError as error:
            say(f"warning: the answers are not kept for the report: {error}")
    return scorer.scores(dataset.groups), dataset


def run_data(
    opened: Opened, *, data: str | None = None, root: str | None = None, progress: Callable[..., None] | None = None
) -> Dataset:
    """The data of a run, or ``data`` with its labels mapped by class name to the run's."""
    config = opened.config.data
    white = opened.preprocess.white_level  # scaled as in training, whatever the range of these images
    if data is None:
        here = dataclasses.replace(config, root=root or config.root)
        dataset = load_data(here, progress=progress, white_level=white)
        if dataset.classes != opened.classes:
            raise InputError(f"the data at {config.name!r} now has other classes than the run was trained on")
        return dataset
    size = None if opened.config.data.image_size == 0 else opened.preprocess.image_size
    dataset = load(data, root=root, image_size=size, progress=progress, white_level=white)
    unknown = sorted(set(dataset.classes) - set(opened.classes))
    if unknown:
        raise InputError(
            f"{data}: class {unknown[0]!r} is unknown to the run, which has {', '.join(opened.classes[:20])}"
        )
    place = {name: label for label, name in enumerate(opened.classes)}
    position = torch.tensor([place[name] for name in dataset.classes])
    own = load_data(config, progress=progress, white_level=white)
    return dataclasses.replace(
        own,
        name=dataset.name,
        train=_relabelled(dataset.train, position),
        test=_relabelled(dataset.test, position),
        val=None if dataset.val is None else _relabelled(dataset.val, position),
    )


def _relabelled(split: Split, position: Tensor) -> Split:
    labels = position[split.labels]
    if isinstance(split, FileSplit):
        return FileSplit(split.paths, labels)
    return ArraySplit(split.images, labels, split.names)
