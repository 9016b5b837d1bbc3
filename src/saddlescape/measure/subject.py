"""What a curvature is measured of: a run's network at one checkpoint, its training images held still, and a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saddlescape.data.augment import build_augment
from saddlescape.data.loader import build_loader
from saddlescape.data.types import ArraySplit, Dataset
from saddlescape.errors import InputError
from saddlescape.losses.base import ClassLoss
from saddlescape.records.config import RunConfig
from saddlescape.records.files import CHECKPOINT
from saddlescape.runs.evaluation import run_data
from saddlescape.runs.execute import device_name
from saddlescape.runs.opened import Opened, open_run
from saddlescape.training.checkpoint import CheckpointFolder, Cursor
from saddlescape.training.epoch import at
from saddlescape.training.precision import resolve_device

HELD = 8 << 30  # bytes of images that are kept in memory while they are measured
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Subject:
    """``model`` is in eval mode, on ``device`` and in ``dtype``; ``loss`` is a mean over samples."""

    folder: Path
    opened: Opened
    dataset: Dataset
    model: nn.Module
    loss: nn.Module
    loss_name: str
    device: torch.device
    dtype: torch.dtype
    notes: tuple[str, ...]
    views: int = 0  # of each image, augmented as in training; 0: the image as it is

    @property
    def checkpoint(self) -> str:
        """The name of the checkpoint's folder."""
        return self.opened.cursor.folder

    @property
    def weights(self) -> str:
        """SHA-256 of the weights' file."""
        return str(self.opened.meta["sha256"]["model.safetensors"])

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that every measurement shares: which weights, data, loss and number format."""
        return {
            "checkpoint": self.checkpoint, "weights": self.weights, "draw_hash": self.dataset.draw_hash,
            "loss": self.loss_name, "dtype": self.dtype_name,
        }  # fmt: skip

    @property
    def header(self) -> dict[str, Any]:
        """Fields of every ``MeasuredFile``."""
        return {
            "method": self.opened.config.method, "dataset": self.dataset.name, "model": self.opened.config.model,
            "checkpoint": self.checkpoint, "device": device_name(str(self.device)), "notes": list(self.notes),
            "class_names": self.dataset.classes, "group_labels": self.dataset.groups,
        }  # fmt: skip

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def samples(
        self, labels: Iterable[int], per_class: int | None = None, seed: int = 0, most: int | None = None
    ) -> tuple[tuple[Tensor, Tensor], int]:
        """((inputs, targets), number of images there are): training images of some classes, see ``class_samples``."""
        augment = self.opened.config.stages[self.opened.cursor.stage].augment if self.views else ""
        return class_samples(self.dataset, labels, per_class, seed, most, augment=augment, views=self.views)


def open_subject(
    folder: Path,
    *,
    checkpoint: str | None = None,
    loss: str = "ce",
    dtype: str = "float32",
    device: str = "auto",
    root: str | None = None,
    views: int = 0,
    progress: Callable[..., None] | None = None,
) -> Subject:
    """Open a run for measuring. ``checkpoint`` is a folder name under ``checkpoint/``; default: the newest.

    ``loss``: "ce", plain cross-entropy on the raw logits, as the paper's analysis has it; or "train", the run's own
    loss at that epoch, margins and class weights included.

    Raises:
        InputError: no such run or checkpoint; data that have changed since.
    """
    opened = open_run(folder, None if checkpoint is None else find_cursor(folder, checkpoint))
    where = resolve_device(device)
    if where.type == "mps" and dtype == "float64":
        raise InputError("--dtype float64: this device has no float64; use --device cpu")
    said: list[str] = []
    dataset = run_data(opened, root=root, held=False, progress=progress, say=said.append)
    stage = opened.config.stages[opened.cursor.stage]
    notes = said if not views else [*said, f"{views} views of each image, augmented as in training ({stage.augment})"]
    if loss == "train":
        trained = training_loss(opened.config, opened.cursor, dataset.class_counts)
        function: nn.Module = trained
        if trained.weight is not None and trained.normalization == "weights":
            notes.append("class weights cancel within a class: they change the spectrum of a group, not of a class")
    else:
        function = nn.CrossEntropyLoss()
        if opened.logit_scale != 1:
            notes.append(
                f"trained on logits times {opened.logit_scale:g}; cross-entropy on the raw ones is nearly flat: "
                "compare with --loss train"
            )
    model = opened.model_for(dataset).to(device=where, dtype=DTYPES[dtype])
    return Subject(folder, opened, dataset, model, function.to(where), loss, where, DTYPES[dtype], tuple(notes), views)


def group_of(dataset: Dataset, label: int) -> str | None:
    """head, mid or tail."""
    return next((name for name, members in dataset.groups.items() if label in members), None)


def find_cursor(folder: Path, name: str) -> Cursor:
    """The checkpoint called ``name``. Raises InputError naming those that are there."""
    cursor = Cursor.parse(name)
    present = CheckpointFolder(folder / CHECKPOINT).cursors()
    if cursor is None or cursor not in present:
        listed = ", ".join(each.folder for each in present[-6:]) or "none"
        raise InputError(f"--checkpoint {name}: {folder} has no such checkpoint; the last ones are {listed}")
    return cursor


def trained_epoch(cursor: Cursor) -> int:
    """The epoch (from 0) whose steps led to the checkpoint at ``cursor``; 0 before any."""
    return cursor.epoch if cursor.batch else max(cursor.epoch - 1, 0)


def training_loss(config: RunConfig, cursor: Cursor, class_counts: Sequence[int]) -> ClassLoss:
    """The loss of the last epoch that was trained before ``cursor``, with its class weights.

    Raises:
        InputError: a loss that needs the network's features, of which a Hessian is not built here.
    """
    stage = config.stages[cursor.stage]
    loss = at(stage, class_counts, trained_epoch(cursor)).loss
    if loss.needs_features:
        raise InputError(f"--loss train: {stage.loss} needs the network's features beside its logits; use --loss ce")
    return loss


def class_samples(
    dataset: Dataset,
    labels: Iterable[int],
    per_class: int | None = None,
    seed: int = 0,
    most: int | None = None,
    *,
    augment: str = "",
    views: int = 0,
) -> tuple[tuple[Tensor, Tensor], int]:
    """((inputs, targets), number of images there are) of some classes, class by class in the order given.

    inputs float32 [N, channels, S, S] as the network sees them, on the host. ``per_class``: a fixed random sample
    without replacement of so many images of each larger class; ``most``: of so many images of all these. With
    ``views`` the images are augmented as ``augment`` says, all of them ``views`` times one after the other: drawn
    once, from ``seed``, so that the loss stays one function of the weights. The paper's own analysis augments anew in
    each pass instead, and so has another function each time.

    Raises:
        InputError: a class without training images, or more images than may be held in memory.
    """
    wanted = list(labels)
    places = torch.nonzero(torch.isin(dataset.train.labels, torch.tensor(wanted, dtype=torch.int64))).flatten()
    places = places[torch.argsort(dataset.train.labels[places], stable=True)]
    present, counts = torch.unique_consecutive(dataset.train.labels[places], return_counts=True)
    by_class = dict(zip(present.tolist(), places.split(counts.tolist()), strict=True))
    chosen, available = [], 0
    for label in wanted:
        if label not in by_class:
            raise InputError(f"class {dataset.classes[label]!r} has no training image, so its loss has no curvature")
        available += len(by_class[label])
        chosen.append(_some(by_class[label], per_class, seed))
    indices = _some(torch.cat(chosen), most, seed)
    check_memory(dataset, len(indices) * max(views, 1))
    part = dataset.train.take(indices)
    if isinstance(part, ArraySplit) and not views:
        return (dataset.preprocess.normalize(part.images), part.labels), available
    loader = build_loader(
        part, dataset.preprocess, batch_size=256, seed=seed,
        augment=build_augment(augment, dataset.preprocess.image_size) if views else None,
    )  # fmt: skip
    seen = [batch for view in range(max(views, 1)) for batch in loader.epoch(view)]
    inputs, targets = (torch.cat(each) for each in zip(*((batch.inputs, batch.targets) for batch in seen), strict=True))
    return (inputs.contiguous(), targets), available


def _some(members: Tensor, size: int | None, seed: int) -> Tensor:
    """A fixed random sample without replacement, in the original order; all where ``size`` is None or large enough."""
    if size is None or size >= len(members):
        return members
    order = torch.randperm(len(members), generator=torch.Generator().manual_seed(seed))
    return members[order[:size].sort().values]


def check_memory(dataset: Dataset, images: int) -> None:
    """Raises InputError where so many images, held as the network sees them, would take more than ``HELD`` bytes."""
    preprocess = dataset.preprocess
    held = 4 * images * preprocess.channels * preprocess.image_size**2
    if held > HELD:
        raise InputError(
            f"{images:,} images of {preprocess.image_size} x {preprocess.image_size} pixels would take "
            f"{held / 2**30:.1f} GiB of memory, more than the {HELD >> 30} GiB that may be held for measuring: "
            "sample them (--samples-per-class, --samples-per-group), or choose some classes (--classes)"
        )


def parse_classes(words: Sequence[str], dataset: Dataset) -> list[int]:
    """Labels from class names, numbers, ``head``, ``mid``, ``tail`` or ``all``; a name goes before a number.

    Raises:
        InputError: neither a class name, a label nor a group of this data.
    """
    labels: list[int] = []
    for word in words:
        if word in dataset.classes:
            labels.append(dataset.classes.index(word))
        elif word.isdigit() and int(word) < dataset.num_classes:
            labels.append(int(word))
        elif word in dataset.groups or word == "all":  # of those that have images
            members = set(dataset.groups.get(word, range(dataset.num_classes)))
            labels.extend(label for label in present_classes(dataset) if label in members)
        else:
            some = ", ".join(dataset.classes[:12]) + (", ..." if dataset.num_classes > 12 else "")
            raise InputError(
                f"--classes {word}: no class of this data; it has {some} (or their numbers 0 to "
                f"{dataset.num_classes - 1}, or {', '.join(dataset.groups)}, all)"
            )
    return list(dict.fromkeys(labels))


def present_classes(dataset: Dataset) -> list[int]:
    """Labels that have training images."""
    counts = torch.bincount(dataset.train.labels, minlength=dataset.num_classes)
    return torch.nonzero(counts).flatten().tolist()
