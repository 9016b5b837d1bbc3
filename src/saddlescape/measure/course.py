"""The course of curvature over a training: ``RUN/curvature-course.jsonl``, from saved checkpoints or live.

First line: format and settings. Then for each measured epoch one row a class and, below, one a group with the means of
its classes. Measurements are warm-started from those of the epoch before (``warm``). Epochs count from 1: ``epoch`` is
the number of whole epochs done in the stage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from saddlescape.curvature import CurvatureTracker, Spectrum, TrackPoint, class_spectra
from saddlescape.curvature.guards import held_still
from saddlescape.data.types import Dataset
from saddlescape.errors import InputError
from saddlescape.losses.base import ClassLoss
from saddlescape.measure.spectra import SPECTRA, duration
from saddlescape.measure.subject import (
    DTYPES,
    LOSSES,
    Subject,
    check_memory,
    class_samples,
    open_subject,
    parse_classes,
    present_classes,
    set_aside,
    training_loss,
)
from saddlescape.records import files
from saddlescape.records.config import RunConfig, Stage
from saddlescape.records.metrics import read_metrics
from saddlescape.runs import config as configuration
from saddlescape.runs.opened import open_run
from saddlescape.training.checkpoint import CheckpointFolder, Cursor
from saddlescape.training.loggers import Logger
from saddlescape.training.loggers.values import name_of
from saddlescape.training.loop import Parts
from saddlescape.training.tracker import CurvatureWatcher

FORMAT = "saddlescape-curvature-course-1"
COURSE, LOCKED = "curvature-course.jsonl", ".course"
SPECTRUM_STEPS = 20  # enough for the shape of a histogram, and a third of what the extremes may cost
MEANS = ("lambda_min", "lambda_max", "nonconvexity", "loss", "train_accuracy", "test_accuracy")
Say = Callable[[str], None]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Tracking:
    """``every`` so many epochs (live only); ``samples``: images of each larger class; ``products``: most products per
    class and epoch; ``tol``: residual beside the value at which a pair is settled; ``loss``: ce or train; ``spectra``:
    Lanczos steps for a spectrum of each class besides (live only; default: 20 where a logger shows them, else none);
    ``views``: of each image, augmented as in the first stage's training, 0 being the image as it is."""

    every: int = 10
    samples: int = 256
    products: int = 60
    tol: float = 1e-2
    loss: str = "ce"
    dtype: str = "float32"
    batch_size: int = 256
    seed: int = 0
    spectra: int | None = None
    views: int = 0


def parse_tracking(text: str) -> Tracking:
    """``10``, ``every=10`` or ``every=10,samples=500,products=100,tol=0.001,loss=train,views=4``.

    Raises:
        InputError: another word, or a number out of range.
    """
    known: dict[str, Callable[[str], Any]] = {
        "every": int, "samples": int, "products": int, "tol": float, "loss": str, "spectra": int, "views": int,
    }  # fmt: skip
    given: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition("=") if "=" in part else ("every", "=", part)
        if name.strip() not in known:
            raise InputError(f"--track-curvature {text}: unknown word {name!r}; known are {', '.join(known)}")
        try:
            given[name.strip()] = known[name.strip()](value.strip())
        except ValueError:
            raise InputError(f"--track-curvature {text}: {value!r} is no number; write every=10") from None
    for name in ("every", "samples", "products"):
        if given.get(name, 1) < 1:
            raise InputError(f"--track-curvature {text}: {name} must be at least 1")
    if given.get("spectra", 0) < 0:
        raise InputError(f"--track-curvature {text}: spectra is a number of Lanczos steps, 0 for none")
    if given.get("views", 0) < 0:
        raise InputError(f"--track-curvature {text}: views must not be negative")
    if not 0 < given.get("tol", 0.1) < 1:
        raise InputError(f"--track-curvature {text}: tol lies between 0 and 1")
    if given.get("loss", "ce") not in LOSSES:
        raise InputError(f"--track-curvature {text}: loss is {' or '.join(LOSSES)}")
    return Tracking(**given)


def settings_of(tracking: Tracking, dataset: Dataset) -> dict[str, Any]:
    """All that moves a figure, whichever checkpoints are measured."""
    plain = asdict(tracking)
    del plain["every"], plain["batch_size"], plain["spectra"]  # spectra move no figure of a row
    if not tracking.views:  # which files of former versions do not name
        del plain["views"]
    return {"draw_hash": dataset.draw_hash, **plain}


class Course:
    """The file: what is in it under ``settings``, and how more comes to it.

    A file with other settings is renamed, not lost. Raises InputError where another process is writing it.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], say: Say = lambda line: None) -> None:
        self.path = folder / COURSE
        self.settings = dict(settings)
        # A lock of its own: a run that is being tracked can be measured in other ways meanwhile.
        files.make_folder(folder / SPECTRA / LOCKED)
        self._held = ExitStack()
        self._held.enter_context(files.locked(folder / SPECTRA / LOCKED))
        self.rows: Rows = []
        lines = files.read_rows(self.path)
        whole = all({"stage", "epoch"} <= row.keys() for row in lines[1:])
        if whole and lines and (lines[0].get("format"), lines[0].get("settings")) == (FORMAT, self.settings):
            self.rows = lines[1:]
        elif lines:
            say(f"measuring the course with other settings; the former is now {set_aside(self.path)}")
        self._write()

    def close(self) -> None:
        self._held.close()

    def labels_at(self, stage: int, epoch: int) -> set[int]:
        """Classes that have a row for this moment."""
        return {row["label"] for row in self.rows if (row["stage"], row["epoch"]) == (stage, epoch) and "label" in row}

    def drop_after(self, stage: int, epoch: int) -> None:
        """Forget moments that a resumed training has not reached."""
        self.rows = [row for row in self.rows if (row["stage"], row["epoch"]) <= (stage, epoch)]
        self._write()

    def put(self, rows: Rows, groups: Mapping[str, Sequence[int]]) -> Rows:
        """Add the rows of classes at one moment, replacing any of theirs, and make the group rows anew."""
        stage, epoch = rows[0]["stage"], rows[0]["epoch"]
        moment = (stage, epoch)
        new = {row["label"] for row in rows}
        here = [row for row in self.rows if (row["stage"], row["epoch"]) == moment and "label" in row]
        together = sorted([*rows, *(row for row in here if row["label"] not in new)], key=lambda row: row["label"])
        means = group_rows(together, groups)
        others = [row for row in self.rows if (row["stage"], row["epoch"]) != moment]
        self.rows = sorted([*others, *together, *means], key=lambda row: (row["stage"], row["epoch"]))
        self._write()
        return means

    def _write(self) -> None:
        files.keep_rows(self.path, [{"format": FORMAT, "settings": self.settings}, *self.rows])


def class_rows(
    points: Sequence[TrackPoint],
    dataset: Dataset,
    *,
    stage: int,
    source: str,
    warm: bool,
    train_accuracy: Mapping[int, float],
    test_accuracy: Sequence[float | None] | None,
) -> Rows:
    """One row a class; accuracies in percent, that of training on the images measured."""
    rows = []
    for point in points:
        plain = asdict(point)
        epoch, label = plain.pop("epoch"), plain.pop("label")
        group = next((name for name, members in dataset.groups.items() if label in members), None)
        rows.append(
            {
                "stage": stage,
                "epoch": epoch,
                "class": dataset.classes[label],
                "label": label,
                "group": group,
                "nonconvexity": point.nonconvexity if math.isfinite(point.nonconvexity) else None,
                **plain,
                "train_accuracy": train_accuracy[label],
                "test_accuracy": None if test_accuracy is None else test_accuracy[label],
                "warm": warm,
                "source": source,
            }
        )
    return rows


def group_rows(rows: Rows, groups: Mapping[str, Sequence[int]]) -> Rows:
    """Means over the classes of each group that were measured; those of infinite nonconvexity are left out of its
    mean."""
    means: Rows = []
    for name, members in groups.items():
        inside = [row for row in rows if row["label"] in members]
        if inside:
            values: dict[str, Any] = {}
            for key in MEANS:
                present = [row[key] for row in inside if row[key] is not None]
                values[key] = sum(present) / len(present) if present else None
            values["converged"] = all(row["converged"] for row in inside)
            at = {"stage": inside[0]["stage"], "epoch": inside[0]["epoch"]}
            means.append({**at, "group": name, "classes": len(inside), **values})
    return means


def accuracy(model: nn.Module, data: Mapping[int, tuple[torch.Tensor, torch.Tensor]], batch: int) -> dict[int, float]:
    """Percent of each class's images that are classified rightly; the model is left as it was."""
    first = next(model.parameters())
    found = {}
    with held_still(model, "eval"), torch.no_grad():
        for label, (inputs, targets) in data.items():
            right = 0
            for x, y in zip(inputs.split(batch), targets.split(batch), strict=True):
                right += int((model(x.to(first)).argmax(1).cpu() == y).sum())
            found[label] = 100 * right / len(targets)
    return found


def held_images(
    dataset: Dataset, labels: Sequence[int], tracking: Tracking, augment: str = ""
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """The images of each class that the whole course is measured on; ``augment`` concerns ``tracking.views``."""
    images = sum(min(dataset.class_counts[label], tracking.samples) for label in labels)
    check_memory(dataset, images * max(tracking.views, 1))
    return {
        label: class_samples(dataset, [label], tracking.samples, tracking.seed, augment=augment, views=tracking.views)[
            0
        ]
        for label in labels
    }


def new_tracker(
    tracking: Tracking, loss: nn.Module, data: Mapping[int, tuple[torch.Tensor, torch.Tensor]]
) -> CurvatureTracker:
    joined = tuple(torch.cat(parts) for parts in zip(*data.values(), strict=True))
    return CurvatureTracker(
        loss, joined, tol=tracking.tol, products=tracking.products, batch_size=tracking.batch_size, seed=tracking.seed
    )


def measure_course(
    folder: Path,
    tracking: Tracking,
    *,
    classes: Sequence[str] | None = None,
    device: str = "auto",
    root: str | None = None,
    say: Say = lambda line: None,
    progress: Callable[..., None] | None = None,
) -> Rows:
    """Measure every kept checkpoint that has no rows yet; returns all rows. ``classes``: as ``parse_classes``.

    Raises:
        InputError: no checkpoints were kept, or what ``open_subject`` refuses.
    """
    config = configuration.load(folder)
    cursors = kept(folder, config)
    subject = open_subject(
        folder, checkpoint=cursors[0].folder, loss=tracking.loss, dtype=tracking.dtype, device=device, root=root,
        views=tracking.views, progress=progress,
    )  # fmt: skip
    labels = present_classes(subject.dataset) if classes is None else parse_classes(classes, subject.dataset)
    course = Course(folder, settings_of(tracking, subject.dataset), say)
    try:
        todo = [cursor for cursor in cursors if not set(labels) <= course.labels_at(cursor.stage, cursor.epoch)]
        if not todo:
            say(f"already measured: {course.path}")
            return course.rows
        images = held_images(subject.dataset, labels, tracking, config.stages[0].augment)
        tested = _tested(folder)
        tracker = new_tracker(tracking, subject.loss, images)
        key = _key(subject, subject.opened.cursor)
        for number, cursor in enumerate(todo, start=1):
            if _key(subject, cursor) == key:  # the same network: what was traced of it stays
                subject.model.load_state_dict(open_run(folder, cursor).model.state_dict())
            else:
                subject, key = _reopen(subject, cursor, tracking), _key(subject, cursor)
                state = tracker.state_dict()
                tracker = new_tracker(tracking, subject.loss, images)
                tracker.load_state_dict(state)
            warm = bool(tracker.points)
            points = tracker(subject.model, cursor.epoch, force=True)
            rows = class_rows(
                points, subject.dataset, stage=cursor.stage, source="checkpoint", warm=warm,
                train_accuracy=accuracy(subject.model, images, tracking.batch_size),
                test_accuracy=tested.get((cursor.stage, cursor.epoch)),
            )  # fmt: skip
            means = course.put(rows, subject.dataset.groups)
            left = tracker.seconds / number * (len(todo) - number)
            say(f"{moment(config, cursor)}: {told(means)}; about {duration(left)} left")
        return course.rows
    finally:
        course.close()


def kept(folder: Path, config: RunConfig) -> list[Cursor]:
    """Checkpoints at the ends of epochs. Raises InputError where there is no course to be seen."""
    cursors = [c for c in CheckpointFolder(folder / files.CHECKPOINT).cursors() if c.batch == 0 and c.epoch > 0]
    if len(cursors) < 2 or (len(cursors) < 3 and not config.keep_every):
        raise InputError(
            f"{folder} kept only its last checkpoints, which show no course: train with --keep-every 10, or with "
            "--track-curvature every=10"
        )
    return cursors


def moment(config: RunConfig, cursor: Cursor) -> str:
    stage = config.stages[cursor.stage]
    named = f"{stage.name}, " if len(config.stages) > 1 else ""
    return f"{named}epoch {cursor.epoch} of {stage.epochs}"


def told(means: Rows) -> str:
    """The group means of a moment in one line."""
    return ", ".join(
        f"{row['group']} lambda_min {row['lambda_min']:.3g} / lambda_max {row['lambda_max']:.3g}"
        + ("" if row["converged"] else " (not converged)")
        for row in means
    )


def _key(subject: Subject, cursor: Cursor) -> Any:
    """What must be alike for two checkpoints to be the same function of their weights."""
    if subject.loss_name == "ce":
        return cursor.stage
    loss = training_loss(subject.opened.config, cursor, subject.dataset.class_counts)
    # Where a mean divides by the weights they cancel within a class, whatever they are.
    cancels = loss.normalization == "weights"
    return cursor.stage, repr(loss), None if cancels or loss.weight is None else tuple(loss.weight.tolist())


def _reopen(subject: Subject, cursor: Cursor, tracking: Tracking) -> Subject:
    return open_subject(
        subject.folder, checkpoint=cursor.folder, loss=tracking.loss, dtype=tracking.dtype,
        device=str(subject.device), dataset=subject.dataset,
    )  # fmt: skip


def _tested(folder: Path) -> dict[tuple[int, int], list[float | None]]:
    """Test accuracy per class by (stage, epochs done), where the epoch was evaluated."""
    rows = read_metrics(folder / files.METRICS)
    return {(row.stage, row.epoch + 1): row.test.per_class or [] for row in rows if row.test is not None}


def course_folder(folder: Path, stage: int, epoch: int, loss: str) -> Path:
    """Where spectra that were taken while training lie, a file a class."""
    return folder / SPECTRA / f"course-s{stage}-e{epoch:05d}-{loss}"


class LiveCourse:
    """Makes the watcher of each stage of a run in progress; all write the same file as ``measure_course``.

    ``watcher(stage, start)`` as ``execute`` asks for it, within ``with``, which holds the file. On a resume the rows of
    epochs that are trained again are dropped, and the first measurement starts cold.
    """

    def __init__(self, folder: Path, config: RunConfig, dataset: Dataset, tracking: Tracking, say: Say) -> None:
        if tracking.dtype not in DTYPES:
            raise InputError(f"unknown number format {tracking.dtype!r}")
        self.folder, self.config, self.dataset, self.tracking, self.say = folder, config, dataset, tracking, say
        self._images: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._course: Course | None = None

    def __enter__(self) -> LiveCourse:
        return self

    def __exit__(self, *problem: object) -> None:
        if self._course is not None:
            self._course.close()

    def watcher(self, stage: Stage, start: int, loggers: Sequence[Logger] = ()) -> CurvatureWatcher:
        index = next(i for i, each in enumerate(self.config.stages) if each is stage)
        if self._course is None:
            self._course = Course(self.folder, settings_of(self.tracking, self.dataset), self.say)
            before = len(self._course.rows)
            self._course.drop_after(index, start)
            if start or before:
                self.say("curvature: the first measurement after a resume starts cold")
        if not self._images:
            self._images = held_images(
                self.dataset, present_classes(self.dataset), self.tracking, self.config.stages[0].augment
            )
        tracker = _LossPerEpoch(self, index)
        return CurvatureWatcher(tracker, self.tracking.every, self._recorder(index, tracker, loggers), self.say)

    def _recorder(
        self, stage: int, tracker: _LossPerEpoch, loggers: Sequence[Logger]
    ) -> Callable[[Parts, dict[str, Any], list[TrackPoint]], None]:
        def record(parts: Parts, row: dict[str, Any], points: list[TrackPoint]) -> None:
            assert self._course is not None
            rows = class_rows(
                points, self.dataset, stage=stage, source="live", warm=tracker.was_warm,
                train_accuracy=accuracy(parts.model, self._images, self.tracking.batch_size),
                test_accuracy=row["test"]["per_class"] if "test" in row else None,
            )  # fmt: skip
            means = self._course.put(rows, self.dataset.groups)
            done = row["epoch"] + 1
            self.say(f"curvature after epoch {done}: {told(means)}")
            steps = self.tracking.spectra
            if steps is None:
                steps = SPECTRUM_STEPS if any(logger.takes_spectra for logger in loggers) else 0
            spectra = self._spectra(parts, stage, done, tracker, steps) if steps else {}
            for logger in loggers:
                logger.on_curvature(done, [*rows, *means], spectra)

        return record

    def _spectra(
        self, parts: Parts, stage: int, done: int, tracker: _LossPerEpoch, steps: int
    ) -> dict[str, list[Spectrum]]:
        """A spectrum of each class, kept in ``course_folder``; those of a group's classes stand under its name too."""
        inputs, targets = (torch.cat(parts) for parts in zip(*self._images.values(), strict=True))
        loss, _ = tracker._loss(done)
        found = class_spectra(
            parts.model, loss.to(parts.device), (inputs, targets), classes=list(self._images), lanczos_steps=steps,
            batch_size=self.tracking.batch_size, seed=self.tracking.seed, trace_probes=0, refine=0, check=False,
            save_to=course_folder(self.folder, stage, done, self.tracking.loss),
        )  # fmt: skip
        names = {label: name_of({"label": label, "class": self.dataset.classes[label]}) for label in found}
        spectra = {names[label]: [one] for label, one in found.items()}
        for group, members in self.dataset.groups.items():
            inside = [found[label] for label in members if label in found]
            if inside:
                spectra[f"{group}, mean over its classes"] = inside
        return spectra


class _LossPerEpoch:
    """A tracker whose loss follows the stage's where the run's own loss was asked for."""

    def __init__(self, live: LiveCourse, stage: int) -> None:
        self._live, self._stage = live, stage
        self._tracker: CurvatureTracker | None = None
        self._key: Any = None
        self.was_warm = False

    def __call__(self, model: nn.Module, epoch: int, *, force: bool = False) -> list[TrackPoint]:
        loss, key = self._loss(epoch)
        if self._tracker is None or key != self._key:
            state = None if self._tracker is None else self._tracker.state_dict()
            device = next(model.parameters()).device
            self._tracker, self._key = new_tracker(self._live.tracking, loss.to(device), self._live._images), key
            if state is not None:
                self._tracker.load_state_dict(state)
        self.was_warm = bool(self._tracker.points)
        return self._tracker(model, epoch, force=force)

    def _loss(self, epoch: int) -> tuple[nn.Module, Any]:
        if self._live.tracking.loss == "ce":
            return nn.CrossEntropyLoss(), "ce"
        loss: ClassLoss = training_loss(self._live.config, Cursor(self._stage, epoch), self._live.dataset.class_counts)
        return loss, (repr(loss), None if loss.weight is None else tuple(loss.weight.tolist()))


def read_course(folder: Path) -> tuple[dict[str, Any], Rows]:
    """(settings, rows) of a run's course, from whatever wrote it. Raises InputError where there is none."""
    lines = files.read_rows(folder / COURSE)
    if not lines or lines[0].get("format") != FORMAT:
        raise InputError(f"{folder} has no {COURSE}: saddlescape curvature {folder} --over-training")
    return dict(lines[0]["settings"]), lines[1:]
