"""Run folders and grids as ``RunData``. A missing or damaged file is None and a note, never a crash."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple, TypeVar

import numpy as np

from saddlescape.disk import beside, read_npz, read_text
from saddlescape.errors import InputError, counted
from saddlescape.records import files
from saddlescape.records.config import RunConfig, read_config
from saddlescape.records.course import CourseFile, GroupMoment, Moment
from saddlescape.records.curvature import Curvature, CurvatureFile
from saddlescape.records.escape import EscapeFile
from saddlescape.records.metrics import EpochRow, read_metrics
from saddlescape.records.milestones import beginnings
from saddlescape.records.predictions import (
    PREDICTIONS,
    SAMPLES,
    TAIL_ERRORS,
    Predictions,
    TailErrors,
    read_predictions,
    read_samples,
    read_tail_errors,
)
from saddlescape.records.record import MeasuredFile, convert
from saddlescape.records.result import Result
from saddlescape.records.rho_advice import AdviceFile
from saddlescape.report.table import published_name
from saddlescape.report.text import clean

SPECTRUM_FORMAT, SURFACE_FORMAT = "saddlescape-spectrum-1", "saddlescape-surface-1"
GROUPS = ("head", "mid", "tail")
PAPER_ORDER = ("ce", "ce+drw", "ldam+drw", "vs")  # rows of the paper's table; each is followed by the same with SAM
# (field of RunData, its file, what a page lacks without it, the command that measures it)
MEASUREMENTS = (
    ("curvature", CurvatureFile.NAME, "Curvature was not measured: no spectra, no saddles.", "curvature {}"),
    ("course", CourseFile.NAME, "The course of curvature over training was not measured.",
     "curvature {} --over-training"),
    ("advice", AdviceFile.NAME, "SAM's gain over rho was not measured.", "curvature {} --advise-rho"),
    ("surfaces", "surface-", "No loss surface was measured.", "surface {} --classes all"),
    ("predictions", PREDICTIONS, "Its predictions on single test images were not kept: no confusion, no calibration.",
     "evaluate {}"),
)  # fmt: skip
T = TypeVar("T")
M = TypeVar("M", bound=MeasuredFile)
Groups = dict[str, list[int]]


class Missing(NamedTuple):
    """What a page cannot show of a run, and the command that repairs it ("" where none does)."""

    text: str
    command: str = ""


@dataclass(frozen=True)
class ClassSurface:
    """One class's loss: ``losses`` float64 [A, B] (or [A] for a line) over ``alphas`` [A] and ``betas`` [B]."""

    label: int
    directions: str
    alphas: np.ndarray
    betas: np.ndarray
    losses: np.ndarray
    center: float
    curvatures: tuple[float, ...]


class Nodes(NamedTuple):
    """Lanczos nodes and weights of one class's spectrum, float64 [probes, steps]."""

    values: np.ndarray
    weights: np.ndarray


@dataclass
class RunData:
    """What one run folder holds. Labels are positions in ``classes``; percent; see docs/formats.md."""

    path: Path
    plan: RunConfig | None = None
    settings: dict[str, Any] = field(default_factory=dict)  # config.toml as it is
    epochs: list[EpochRow] = field(default_factory=list)
    result: Result | None = None
    raw_result: dict[str, Any] | None = None
    curvature: CurvatureFile | None = None
    course: CourseFile | None = None
    advice: AdviceFile | None = None
    surfaces: list[ClassSurface] = field(default_factory=list)
    escape: EscapeFile | None = None
    predictions: Predictions | None = None
    tail_errors: TailErrors | None = None
    samples: tuple[np.ndarray, np.ndarray] | None = None  # training images uint8 [K, H, W, C], labels [K]
    notes: list[Missing] = field(default_factory=list)
    name: str = ""  # unique on a page; set by ``read``

    @property
    def method(self) -> str:
        return self.result.method if self.result else self.plan.method if self.plan else self.path.name

    @property
    def base(self) -> str:
        """The method without SAM."""
        return "+".join(word for word in self.method.split("+") if word != "sam")

    @property
    def title(self) -> str:
        """The method as the paper writes it."""
        return clean(published_name(self.method))

    @property
    def dataset(self) -> str:
        return self.result.dataset if self.result else self.plan.data.name if self.plan else ""

    @property
    def imbalance(self) -> float | None:
        return (self.result.imbalance if self.result else self.plan.data.imbalance if self.plan else None) or None

    @property
    def seed(self) -> int:
        return self.result.seed if self.result else self.plan.seed if self.plan else 0

    @property
    def counts(self) -> list[int]:
        return self.result.class_counts if self.result else []

    @property
    def per_class(self) -> list[float | None]:
        return self.result.per_class if self.result else []

    @cached_property
    def classes(self) -> list[str]:
        """Names as they are in the files: escape them where they are shown."""
        if self.result:
            return self.result.classes
        named = {row.label: row.name for row in self.measured if row.label is not None}
        return [named.get(label, str(label)) for label in range(max(named, default=-1) + 1)]

    def class_name(self, label: int | None) -> str:
        if label == -1:
            return "all classes"
        return self.classes[label] if label is not None and label < len(self.classes) else f"class {label}"

    @cached_property
    def groups(self) -> Groups | None:
        """Head, mid and tail; None where no file names them."""
        files_of_groups = (
            self.result and self.result.groups,
            self.curvature and self.curvature.group_labels,
            self.escape and self.escape.group_labels,
        )
        return next((found for each in files_of_groups if (found := valid_groups(each, len(self.classes)))), None)

    @property
    def tested(self) -> list[Any]:
        """Epochs with test scores."""
        return [epoch for epoch in self.epochs if epoch.test is not None]

    @property
    def measured(self) -> list[Curvature]:
        """Curvature of single classes."""
        return [row for row in self.curvature.classes if row.label is not None] if self.curvature else []

    @property
    def moments(self) -> Sequence[Moment | GroupMoment]:
        """The course of curvature over training."""
        return self.course.rows if self.course else []

    @property
    def sam_radii(self) -> list[float]:
        """The radii of the SAM that the run was trained with, as the measured advice names them."""
        trained = self.advice.trained_with if self.advice else None
        return trained.rho if trained and "sam" in trained.optimizer else []

    def offset(self, stage: int) -> int:
        """Epochs of the stages before ``stage``."""
        return sum(each.epochs for each in self.plan.stages[:stage]) if self.plan else 0

    @property
    def marks(self) -> list[tuple[float, str]]:
        """(epochs done, what begins there): deferred re-weighting, a later loss or SAM, a further stage."""
        found: list[tuple[float, str]] = []
        for index, stage in enumerate(self.plan.stages if self.plan else []):
            start = self.offset(index)
            if index:
                found.append((start, f"stage {clean(stage.name)}"))
            found += [(start + begun, f"{what} starts") for begun, what in beginnings(stage) if begun < stage.epochs]
        return found

    def spectrum(self, row: Curvature) -> Nodes | None:
        """The saved spectrum of a row of ``curvature.json``; None, and a note, where it cannot be read."""
        if row.file is None:
            return None

        def load() -> Nodes:
            path = (self.path / str(row.file)).resolve()
            if not path.is_relative_to(self.path.resolve()):
                raise InputError(f"curvature.json points outside the run, at {row.file}")
            arrays, _ = read_npz(path, SPECTRUM_FORMAT)
            values, weights = arrays["ritz_values"].astype(float), arrays["ritz_weights"].astype(float)
            if values.ndim != 2 or values.shape != weights.shape or not np.isfinite(values).all() or not values.size:
                raise InputError(f"{path.name} holds no spectrum; measure it again")
            return Nodes(values, weights)

        return self.attempt(load)

    def attempt(self, load: Callable[[], T], name: str = "") -> T | None:
        """What ``load`` returns, or None and a note that says why not; ``name`` begins the note."""
        try:
            return load()
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as problem:
            why = " ".join(str(problem).replace(f"{self.path}/", "").split())
            why = why if isinstance(problem, InputError) else f"damaged ({why})"
            note = Missing(f"{name + ': ' if name else ''}{why}.")
            if note not in self.notes:
                self.notes.append(note)
            return None


def valid_groups(groups: Any, classes: int) -> Groups | None:
    """``groups`` as read from a file, if it names each class at most once and no other."""
    if not isinstance(groups, Mapping) or not set(groups) <= set(GROUPS):
        return None
    members = [groups.get(name, []) for name in GROUPS]
    if not all(isinstance(group, list) and all(type(label) is int for label in group) for group in members):
        return None
    flat = [label for group in members for label in group]
    if not flat or len(set(flat)) != len(flat) or not all(0 <= label < classes for label in flat):
        return None
    return dict(zip(GROUPS, members, strict=True))


def read(paths: Sequence[Path]) -> list[RunData]:
    """The runs at ``paths``: each a run folder, or a folder of runs (a grid); each run once, with a name of its own.

    Raises:
        InputError: a path that is neither.
    """
    unique: dict[Path, Path] = {}
    for path in paths:
        found = [path] if files.is_run(path) else runs_in(path)
        if not found and not path.exists():
            raise InputError(f"there is no folder {path}{beside(path) or '; give a run folder or a folder of runs'}")
        if not found:
            raise InputError(f"{path} is neither a run (it has no {files.CONFIG}) nor a folder of runs: "
                             "give the --out of saddlescape train or reproduce")  # fmt: skip
        for folder in found:
            unique.setdefault(folder.resolve(), folder)
    runs = sorted((read_run(folder) for folder in unique.values()), key=_order)
    for study in studies(runs):
        _name(study)
    return runs


def studies(runs: Sequence[RunData]) -> list[list[RunData]]:
    """Runs on the same data and imbalance belong together; in order of appearance."""
    found: dict[tuple[str, float | None], list[RunData]] = {}
    for run in runs:
        found.setdefault((run.dataset, run.imbalance), []).append(run)
    return list(found.values())


def _order(run: RunData) -> tuple[int, str, int, int]:
    place = PAPER_ORDER.index(run.base) if run.base in PAPER_ORDER else len(PAPER_ORDER)
    return place, run.base, int(run.base != run.method), run.seed


def runs_in(path: Path) -> list[Path]:
    """Run folders directly below ``path``, by name; those of a ``--tune`` or hidden folder are not looked into."""
    try:
        return sorted(child for child in path.iterdir() if child.is_dir() and files.is_run(child))
    except OSError:
        return []


def _name(runs: Sequence[RunData]) -> None:
    """Method; where two runs have the same, also the seed, then the folder."""
    further: tuple[Callable[[RunData], str], ...] = (
        lambda run: f", seed {run.seed}",
        lambda run: f" ({clean(run.path.name)})",
        lambda run: f" in {clean(run.path.parent)}",
    )
    for run in runs:
        run.name = run.title
    for words in further:
        names = Counter(run.name for run in runs)
        for run in runs:
            run.name += words(run) if names[run.name] > 1 else ""


def read_run(path: Path) -> RunData:
    """Everything a report can show of one run folder."""
    run = RunData(path)

    def record(kind: type[M]) -> M | None:
        return run.attempt(lambda: _record(path, kind)) if (path / kind.NAME).is_file() else None

    run.settings = run.attempt(lambda: tomllib.loads(read_text(path / files.CONFIG)), files.CONFIG) or {}
    if run.settings:
        run.plan = run.attempt(lambda: read_config(run.settings, files.CONFIG))
    run.epochs = run.attempt(lambda: read_metrics(path / files.METRICS)) or []
    if (path / files.RESULT).is_file():
        run.result = run.attempt(lambda: _result(run))
    else:
        done = f"{counted(len(run.epochs), 'epoch')} done" if run.epochs else "it has not begun"
        text = f"The run is not finished ({done}), so it is not in the table: repeat the command that began it."
        run.notes.append(Missing(text))
    run.curvature = record(CurvatureFile)
    run.notes += [Missing(note) for note in run.curvature.notes] if run.curvature else []
    run.course = record(CourseFile)
    run.advice = record(AdviceFile)
    if run.advice:
        run.advice.classes.sort(key=lambda row: row.label)
    for file in sorted(path.glob("surface-*.npz")):
        run.surfaces += run.attempt(lambda file=file: _surfaces(file)) or []  # type: ignore[misc]
    run.escape = record(EscapeFile)
    if run.result and (path / PREDICTIONS).is_file():
        run.predictions = run.attempt(lambda: read_predictions(path / PREDICTIONS, len(run.classes)))
    if run.result and (path / TAIL_ERRORS).is_file():
        run.tail_errors = run.attempt(lambda: read_tail_errors(path / TAIL_ERRORS, len(run.classes)))
    if run.result and (path / SAMPLES).is_file():
        run.samples = run.attempt(lambda: read_samples(path / SAMPLES, len(run.classes)))
    damaged = " ".join(note.text for note in run.notes)
    run.notes += [
        Missing(text, f"saddlescape {command.format(quote(str(path)))}")
        for name, file, text, command in MEASUREMENTS
        if not getattr(run, name) and file not in damaged
    ]
    return run


def _record(path: Path, kind: type[M]) -> M:
    found = kind.read(path / kind.NAME)
    if found.format != kind().format:  # type: ignore[call-arg]
        raise InputError(f"{kind.NAME} is of format {found.format!r}, which this version does not read")
    return found


def _result(run: RunData) -> Result:
    raw = files.read_json(run.path / files.RESULT)
    found: Result = convert(raw, Result, files.RESULT)
    if not found.classes or not len(found.classes) == len(found.class_counts) == len(found.per_class):
        raise InputError(f"{files.RESULT} is damaged: classes, class_counts and per_class differ in length")
    run.raw_result = raw
    return found


def _surfaces(path: Path) -> list[ClassSurface]:
    arrays, meta = read_npz(path, SURFACE_FORMAT)
    names = ("alphas", "betas", "losses", "center", "curvatures")
    alphas, betas, losses, center, curvatures = (arrays[name].astype(float) for name in names)
    wanted = (len(meta["labels"]), len(alphas), len(betas)) if len(betas) else (len(meta["labels"]), len(alphas))
    if losses.shape != wanted:
        raise InputError(f"{path.name} holds losses of shape {losses.shape}, not {wanted}; measure it again")
    return [
        ClassSurface(int(label), str(meta["directions"]), alphas, betas, losses[i], float(center[i]),
                     tuple(map(float, curvatures[i])))
        for i, label in enumerate(meta["labels"])
    ]  # fmt: skip
