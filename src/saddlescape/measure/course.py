"""The course of curvature over a training: ``RUN/curvature-course.jsonl``, from saved checkpoints or live.

First line: format and settings. Then for each measured epoch one row a class and, below, one a group with the means of
its classes. Measurements are warm-started from those of the epoch before (``warm``). Epochs count from 1: ``epoch`` is
the number of whole epochs done in the stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from msgspec import structs
from torch import Tensor, nn

from saddlescape.curvature import CurvatureTracker, Spectrum, TrackPoint, class_spectra
from saddlescape.curvature.guards import held_still
from saddlescape.data.types import Dataset
from saddlescape.errors import InputError
from saddlescape.measure.harness import SPECTRA, Clock, Growing, Say, measure_each, quiet
from saddlescape.measure.subject import (
    check_memory,
    class_samples,
    group_of,
    open_subject,
    parse_classes,
    present_classes,
    training_loss,
)
from saddlescape.records import files
from saddlescape.records.config import RunConfig, Stage
from saddlescape.records.course import ClassPoint, CourseFile, Followed, GroupMoment, Moment
from saddlescape.records.metrics import read_metrics
from saddlescape.records.record import finite, may_be, violation
from saddlescape.runs import config as configuration
from saddlescape.runs.opened import open_run
from saddlescape.training.checkpoint import CheckpointFolder, Cursor
from saddlescape.training.loggers import Logger
from saddlescape.training.loggers.values import name_of
from saddlescape.training.parts import Parts
from saddlescape.training.tracker import CurvatureWatcher

SPECTRUM_STEPS = 20  # enough for the shape of a histogram, and a third of what the extremes may cost
MEANS = ("lambda_min", "lambda_max", "nonconvexity", "loss", "train_accuracy", "test_accuracy")
Images = Mapping[int, tuple[Tensor, Tensor]]  # (inputs, targets) of each class


@dataclass(frozen=True)
class Tracking:
    """``every`` so many epochs (live only); ``samples``: images of each larger class; ``products``: most products per
    class and epoch; ``tol``: residual beside the value at which a pair is settled; ``loss``: ce or train; ``spectra``:
    Lanczos steps for a spectrum of each class besides (live only; default: 20 where a logger shows them, else none);
    ``views``: of each image, augmented as in the first stage's training, 0 being the image as it is."""

    every: Annotated[int, may_be("at least 1", ge=1)] = 10
    samples: Annotated[int, may_be("at least 1", ge=1)] = 256
    products: Annotated[int, may_be("at least 1", ge=1)] = 60
    tol: Annotated[float, may_be("between 0 and 1", gt=0, lt=1)] = 1e-2
    loss: Annotated[str, may_be("ce or train", pattern="^(ce|train)$")] = "ce"
    dtype: str = "float32"
    batch_size: int = 256
    seed: int = 0
    spectra: Annotated[int, may_be("a number of Lanczos steps, 0 for none", ge=0)] | None = None
    views: Annotated[int, may_be("at least 0", ge=0)] = 0


def parse_tracking(text: str) -> Tracking:
    """``10``, ``every=10`` or ``every=10,samples=500,products=100,tol=0.001,loss=train,views=4``.

    Raises:
        InputError: another word, or a number out of range.
    """
    known = ("every", "samples", "products", "tol", "loss", "spectra", "views")
    given: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in (part if "=" in part else f"every={part}").partition("="))
        if name not in known:
            raise InputError(f"--track-curvature {text}: unknown word {name!r}; known are {', '.join(known)}")
        given[name] = value
    for name, value in given.items():
        if name != "loss":
            with suppress(ValueError):
                given[name] = float(value) if name == "tol" else int(value)
    wrong = violation(given, Tracking)
    if wrong is not None:
        raise InputError(f"--track-curvature {text}: {wrong[0]} is {wrong[1]}, not {wrong[2]}; write every=10")
    return Tracking(**given)


def settings_of(tracking: Tracking, dataset: Dataset) -> dict[str, Any]:
    """All that moves a figure, whichever checkpoints are measured."""
    plain = asdict(tracking)
    del plain["every"], plain["batch_size"], plain["spectra"]  # spectra move no figure of a row
    if not tracking.views:  # which files of former versions do not name
        del plain["views"]
    return {"draw_hash": dataset.draw_hash, **plain}


class Course(Growing[CourseFile]):
    """The file and how its moments are entered. Raises InputError where another process is writing it."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], say: Say = quiet) -> None:
        super().__init__(folder / CourseFile.NAME, CourseFile(settings=dict(settings)), folder, say)

    def labels_at(self, stage: int, epoch: int) -> set[int]:
        """Classes that have a row for this moment."""
        return {row.label for row in self.content.rows if row.label is not None and _when(row) == (stage, epoch)}

    def drop_after(self, stage: int, epoch: int) -> None:
        """Forget moments that a resumed training has not reached."""
        self.content.rows = [row for row in self.content.rows if _when(row) <= (stage, epoch)]
        self.changed()

    def put(self, rows: Sequence[Moment], groups: Mapping[str, Sequence[int]]) -> list[GroupMoment]:
        """Add the rows of classes at one moment, replacing any of theirs, and make the group rows anew."""
        when = _when(rows[0])
        here = {row.label: row for row in self.content.rows if isinstance(row, Moment) and _when(row) == when}
        together = sorted((here | {row.label: row for row in rows}).values(), key=lambda row: row.label or 0)
        means = []
        for name, members in groups.items():
            inside = [row for row in together if row.label in members]
            if inside:
                mean = structs.asdict(mean_of(inside, name))
                means.append(GroupMoment(stage=when[0], epoch=when[1], classes=len(inside), **mean))
        others = [row for row in self.content.rows if _when(row) != when]
        self.content.rows = sorted([*others, *together, *means], key=_when)
        self.changed()
        return means


def _when(row: Moment | GroupMoment) -> tuple[int, int]:
    return row.stage, row.epoch


def mean_of(rows: Sequence[ClassPoint], group: str) -> Followed:
    """Means over classes; what is missing or infinite is left out of its mean."""
    means = {}
    for key in MEANS:
        present = [value for row in rows if (value := getattr(row, key)) is not None]
        means[key] = sum(present) / len(present) if present else None
    return Followed(group=group, converged=all(row.converged for row in rows), **means)


def class_points(
    points: Sequence[TrackPoint],
    dataset: Dataset,
    model: nn.Module,
    images: Images,
    *,
    batch: int,
    test_accuracy: Sequence[float | None] | None,
    warm: bool,
) -> list[ClassPoint]:
    """What was measured of each class with its accuracies, that of training on ``images``, ``batch`` at a time."""
    trained = accuracy(model, images, batch)
    found = []
    for point in points:
        plain = asdict(point)
        del plain["epoch"]
        found.append(
            ClassPoint(
                name=dataset.classes[point.label],
                group=group_of(dataset, point.label),
                nonconvexity=finite(point.nonconvexity),
                train_accuracy=trained[point.label],
                test_accuracy=None if test_accuracy is None else test_accuracy[point.label],
                warm=warm,
                **plain,
            )
        )
    return found


def accuracy(model: nn.Module, data: Images, batch: int) -> dict[int, float]:
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


def held_images(dataset: Dataset, labels: Sequence[int], tracking: Tracking, augment: str = "") -> Images:
    """The images of each class that the whole course is measured on; ``augment`` concerns ``tracking.views``."""
    images = sum(min(dataset.class_counts[label], tracking.samples) for label in labels)
    check_memory(dataset, images * max(tracking.views, 1))
    found = {}
    for label in labels:
        found[label], _ = class_samples(
            dataset, [label], tracking.samples, tracking.seed, augment=augment, views=tracking.views
        )
    return found


def new_tracker(tracking: Tracking, loss: nn.Module, data: Images) -> CurvatureTracker:
    joined = tuple(torch.cat(parts) for parts in zip(*data.values(), strict=True))
    return CurvatureTracker(
        loss, joined, tol=tracking.tol, products=tracking.products, batch_size=tracking.batch_size, seed=tracking.seed
    )


class Follower:
    """A tracker over the ``images`` of a run; its loss follows that of ``stage`` where the run's own was asked for."""

    def __init__(self, config: RunConfig, dataset: Dataset, tracking: Tracking, images: Images, stage: int) -> None:
        self.config, self.dataset, self.tracking, self.images, self.stage = config, dataset, tracking, images, stage
        self.was_warm = False
        self._tracker: CurvatureTracker | None = None
        self._key: Any = None

    def loss(self, epoch: int) -> tuple[nn.Module, Any]:
        """(the loss after ``epoch`` epochs, what must be alike for it to be the same)."""
        if self.tracking.loss == "ce":
            return nn.CrossEntropyLoss(), "ce"
        loss = training_loss(self.config, Cursor(self.stage, epoch), self.dataset.class_counts)
        # Where a mean divides by the weights they cancel within a class, whatever they are.
        weight = None if loss.normalization == "weights" else loss.weight
        return loss, (repr(loss), None if weight is None else tuple(weight.tolist()))

    def __call__(self, model: nn.Module, epoch: int, *, force: bool = False) -> list[TrackPoint]:
        loss, key = self.loss(epoch)
        if self._tracker is None or key != self._key:
            state = None if self._tracker is None else self._tracker.state_dict()
            self._tracker = new_tracker(self.tracking, loss.to(next(model.parameters()).device), self.images)
            self._key = key
            if state is not None:
                self._tracker.load_state_dict(state)
        self.was_warm = bool(self._tracker.points)
        return self._tracker(model, epoch, force=force)

    def rows(
        self, model: nn.Module, points: Sequence[TrackPoint], source: str, tested: Sequence[float | None] | None
    ) -> list[Moment]:
        """The rows of what was measured last."""
        found = class_points(
            points, self.dataset, model, self.images, batch=self.tracking.batch_size, test_accuracy=tested,
            warm=self.was_warm,
        )  # fmt: skip
        epoch = points[0].epoch
        return [Moment(stage=self.stage, epoch=epoch, source=source, **structs.asdict(point)) for point in found]


def measure_course(
    folder: Path,
    tracking: Tracking,
    *,
    classes: Sequence[str] = (),
    device: str = "auto",
    root: str | None = None,
    say: Say = quiet,
    progress: Callable[..., None] | None = None,
) -> CourseFile:
    """Measure every kept checkpoint that has no rows yet; returns all rows. ``classes``: as ``parse_classes`` (all).

    Raises:
        InputError: no checkpoints were kept, or what ``open_subject`` refuses.
    """
    config = configuration.load(folder)
    cursors = kept(folder, config)
    subject = open_subject(
        folder, checkpoint=cursors[0].folder, loss=tracking.loss, dtype=tracking.dtype, device=device, root=root,
        views=tracking.views, progress=progress,
    )  # fmt: skip
    dataset, model, stage = subject.dataset, subject.model, cursors[0].stage
    labels = parse_classes(classes or ["all"], dataset)
    tested = {
        (row.stage, row.epoch + 1): row.test.per_class
        for row in read_metrics(folder / files.METRICS) if row.test is not None
    }  # fmt: skip
    with Course(folder, settings_of(tracking, dataset), say) as course:
        todo = [cursor for cursor in cursors if not set(labels) <= course.labels_at(cursor.stage, cursor.epoch)]
        images = held_images(dataset, labels, tracking, config.stages[0].augment) if todo else {}
        follower = Follower(config, dataset, tracking, images, stage)

        def measure(cursor: Cursor, clock: Clock) -> list[Moment]:
            nonlocal model
            opened = open_run(folder, cursor).model_for(dataset)
            if cursor.stage == follower.stage:  # the same network: what was traced of it stays
                model.load_state_dict(opened.state_dict())
            else:
                model = opened.to(device=subject.device, dtype=subject.dtype)
                follower.stage = cursor.stage
            points = follower(model, cursor.epoch, force=True)
            return follower.rows(model, points, "checkpoint", tested.get((cursor.stage, cursor.epoch)))

        def add(cursor: Cursor, rows: list[Moment]) -> str:
            return f"{_named(config, cursor)}: {figures(course.put(rows, dataset.groups))}"

        measure_each(course, todo, measure, add, say)
        return course.content


def kept(folder: Path, config: RunConfig) -> list[Cursor]:
    """Checkpoints at the ends of epochs. Raises InputError for fewer than show a course."""
    cursors = [c for c in CheckpointFolder(folder / files.CHECKPOINT).cursors() if c.batch == 0 and c.epoch > 0]
    if len(cursors) < 2 or (len(cursors) < 3 and not config.keep_every):
        raise InputError(
            f"{folder} kept only its last checkpoints, which show no course: train with --keep-every 10, or with "
            "--track-curvature every=10"
        )
    return cursors


def _named(config: RunConfig, cursor: Cursor) -> str:
    stage = config.stages[cursor.stage]
    named = f"{stage.name}, " if len(config.stages) > 1 else ""
    return f"{named}epoch {cursor.epoch} of {stage.epochs}"


def figures(means: Sequence[GroupMoment]) -> str:
    """The group means of a moment in one line."""
    return ", ".join(
        f"{row.group} lambda_min {row.lambda_min:.3g} / lambda_max {row.lambda_max:.3g}"
        + ("" if row.converged else " (not converged)")
        for row in means
    )


class LiveCourse:
    """Makes the watcher of each stage of a run in progress; all write the same file as ``measure_course``.

    ``watcher(stage, start)`` as ``execute`` asks for it, within ``with``, which holds the file. On a resume the rows of
    epochs that are trained again are dropped, and the first measurement starts cold.
    """

    def __init__(self, folder: Path, config: RunConfig, dataset: Dataset, tracking: Tracking, say: Say) -> None:
        self.folder, self.config, self.dataset, self.tracking, self.say = folder, config, dataset, tracking, say
        self._images: Images = {}
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
            before = len(self._course.content.rows)
            self._course.drop_after(index, start)
            if start or before:
                self.say("curvature: the first measurement after a resume starts cold")
            labels = present_classes(self.dataset)
            self._images = held_images(self.dataset, labels, self.tracking, self.config.stages[0].augment)
        course, follower = self._course, Follower(self.config, self.dataset, self.tracking, self._images, index)

        def record(parts: Parts, row: dict[str, Any], points: list[TrackPoint]) -> None:
            tested = row["test"]["per_class"] if "test" in row else None
            rows = follower.rows(parts.model, points, "live", tested)
            means = course.put(rows, self.dataset.groups)
            course.flush()  # its epoch is not trained again after a kill
            done = row["epoch"] + 1
            self.say(f"curvature after epoch {done}: {figures(means)}")
            steps = self.tracking.spectra
            if steps is None:
                steps = SPECTRUM_STEPS if any(logger.takes_spectra for logger in loggers) else 0
            spectra = self._spectra(parts, follower, done, steps) if steps else {}
            for logger in loggers:
                logger.on_curvature(done, msgspec.to_builtins([*rows, *means]), spectra)

        return CurvatureWatcher(follower, self.tracking.every, record, self.say)

    def _spectra(self, parts: Parts, follower: Follower, done: int, steps: int) -> dict[str, list[Spectrum]]:
        """A spectrum of each class, kept on disk; those of a group's classes stand under its name too."""
        inputs, targets = (torch.cat(parts) for parts in zip(*self._images.values(), strict=True))
        loss, _ = follower.loss(done)
        found = class_spectra(
            parts.model, loss.to(parts.device), (inputs, targets), classes=list(self._images), lanczos_steps=steps,
            batch_size=self.tracking.batch_size, seed=self.tracking.seed, trace_probes=0, refine=0, check=False,
        )  # fmt: skip
        kept = self.folder / SPECTRA / f"course-s{follower.stage}-e{done:05d}-{self.tracking.loss}"
        files.make_folder(kept)
        for label, one in found.items():
            one.save(kept / f"class_{label}.npz")
        names = {label: name_of({"label": label, "class": self.dataset.classes[label]}) for label in found}
        spectra = {names[label]: [one] for label, one in found.items()}
        for group, members in self.dataset.groups.items():
            inside = [found[label] for label in members if label in found]
            if inside:
                spectra[f"{group}, mean over its classes"] = inside
        return spectra
