"""Run folders and grids -> plain data. A missing or damaged part is None and a note, never a crash."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from saddlescape.disk import read_npz
from saddlescape.errors import InputError, counted
from saddlescape.milestones import beginnings
from saddlescape.records import files
from saddlescape.records.config import RunConfig, read_config
from saddlescape.records.course import Moment
from saddlescape.records.curvature import Curvature, CurvatureFile
from saddlescape.records.escape import EscapeFile
from saddlescape.records.metrics import Epoch, read_metrics
from saddlescape.records.predictions import (
    PREDICTIONS,
    TAIL_ERRORS,
    Predictions,
    TailErrors,
    read_predictions,
    read_tail_errors,
)
from saddlescape.records.record import convert
from saddlescape.records.result import Result
from saddlescape.records.rho_advice import AdviceFile
from saddlescape.report.groups import Groups, recovered, valid
from saddlescape.report.table import published_name
from saddlescape.report.text import clean

SPECTRUM_FORMAT, SURFACE_FORMAT = "saddlescape-spectrum-1", "saddlescape-surface-1"
COURSE_FORMAT = "saddlescape-curvature-course-1"
PAPER_ORDER = ("ce", "ce+drw", "ldam+drw", "vs")  # rows of the paper's table; each is followed by the same with SAM
T = TypeVar("T")


@dataclass(frozen=True)
class Note:
    """What a page cannot show of a run, and the command that mends it ("" where none does)."""

    run: str
    text: str
    command: str = ""


@dataclass(frozen=True)
class Surface:
    """One class's loss: ``losses`` float64 [A, B] (or [A] for a line) over ``alphas`` [A] and ``betas`` [B]."""

    label: int
    directions: str
    alphas: np.ndarray
    betas: np.ndarray
    losses: np.ndarray
    center: float
    slopes: tuple[float, ...]
    curvatures: tuple[float, ...]


@dataclass(frozen=True)
class Spectrum:
    """Lanczos nodes and weights of one class, float64 [probes, steps]."""

    label: int
    values: np.ndarray
    weights: np.ndarray


@dataclass
class RunData:
    """What one run folder holds. Labels are positions in ``classes``; percent; see docs/formats.md."""

    path: Path
    plan: RunConfig | None = None
    settings: dict[str, Any] = field(default_factory=dict)  # config.toml as it is
    epochs: list[Epoch] = field(default_factory=list)
    result: Result | None = None
    raw_result: dict[str, Any] | None = None
    curvature: CurvatureFile | None = None
    course: list[Moment] = field(default_factory=list)
    course_settings: dict[str, Any] = field(default_factory=dict)
    advice: AdviceFile | None = None
    surfaces: list[Surface] = field(default_factory=list)
    escape: EscapeFile | None = None
    predictions: Predictions | None = None
    tail_errors: TailErrors | None = None
    notes: list[Note] = field(default_factory=list)
    name: str = ""  # unique on a page; set by ``read``

    @property
    def method(self) -> str:
        return self.result.method if self.result else self.plan.method if self.plan else self.path.name

    @property
    def title(self) -> str:
        """The method as the paper writes it."""
        return clean(published_name(self.method))

    @property
    def dataset(self) -> str:
        return self.result.dataset if self.result else self.plan.data.name if self.plan else ""

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
        if self.result and self.result.classes:
            return self.result.classes
        named = {row.label: row.name for row in self.curvature.classes} if self.curvature else {}
        return [
            named.get(label, str(label)) for label in range(max((k for k in named if k is not None), default=-1) + 1)
        ]

    def class_name(self, label: int) -> str:
        return "all classes" if label == -1 else self.classes[label] if label < len(self.classes) else f"class {label}"

    @cached_property
    def groups(self) -> Groups | None:
        """Head, mid and tail; None where no file tells."""
        size = len(self.classes)
        told = [
            self.result.groups if self.result else None,
            self.curvature.group_labels if self.curvature else None,
            self.escape.group_labels if self.escape else None,
        ]
        found = next((groups for groups in (valid(each, size) for each in told) if groups), None)
        if found is None and self.counts:
            scores = [{"per_class": e.test.per_class, "head": e.test.head, "tail": e.test.tail} for e in self.tested]
            found = recovered(self.counts, scores)
        return found

    def group_of(self, label: int) -> str | None:
        return next((name for name, members in (self.groups or {}).items() if label in members), None)

    @property
    def tested(self) -> list[Any]:
        """Epochs with test scores."""
        return [epoch for epoch in self.epochs if epoch.test is not None]

    @property
    def uses_sam(self) -> bool:
        """Whether any stage takes SAM's step or a variant's."""
        if self.plan and self.plan.stages:
            return any("sam" in stage.optimizer for stage in self.plan.stages)
        return any("sam" in word for word in self.method.split("+"))

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

    def spectrum(self, row: Curvature) -> Spectrum | None:
        """The saved spectrum of a row of ``curvature.json``; None, and a note, where it cannot be read."""
        if row.file is None or row.label is None:
            return None
        label = row.label

        def load() -> Spectrum:
            path = (self.path / str(row.file)).resolve()
            if not path.is_relative_to(self.path.resolve()):
                raise InputError(f"curvature.json points outside the run, at {row.file}")
            arrays, _ = read_npz(path, SPECTRUM_FORMAT)
            values, weights = arrays["ritz_values"].astype(float), arrays["ritz_weights"].astype(float)
            if values.ndim != 2 or values.shape != weights.shape or not np.isfinite(values).all() or not values.size:
                raise InputError(f"{path.name} holds no spectrum; measure it again")
            return Spectrum(label, values, weights)

        return _part(self, load)


def read(paths: Sequence[Path]) -> list[RunData]:
    """The runs at ``paths``: each a run folder, or a folder of runs (a grid); each run once, with a name of its own.

    Raises:
        InputError: a path that is neither.
    """
    folders: list[Path] = []
    for path in paths:
        found = [path] if files.is_run(path) else runs_in(path)
        if not found:
            if not path.exists():
                raise InputError(f"there is no folder {path}; give a run folder or a folder of runs")
            raise InputError(f"{path} is neither a run (it has no {files.CONFIG}) nor a folder of runs")
        folders += found
    unique = {folder.resolve(): folder for folder in reversed(folders)}
    runs = sorted((read_run(folder) for folder in reversed(unique.values())), key=_order)
    _share_groups(runs)
    for study in studies(runs):
        _name(study)
    return runs


def studies(runs: Sequence[RunData]) -> list[list[RunData]]:
    """Runs on the same data and imbalance belong together; in order of appearance."""
    found: dict[tuple[str, float | None], list[RunData]] = {}
    for run in runs:
        imbalance = run.result.imbalance if run.result else run.plan.data.imbalance if run.plan else None
        found.setdefault((run.dataset, imbalance or None), []).append(run)
    return list(found.values())


def _share_groups(runs: Sequence[RunData]) -> None:
    """A run whose files do not tell the groups has those of another run on the same images."""
    known = {run.result.draw_hash: run.groups for run in runs if run.result and run.groups}
    for run in runs:
        if run.result and not run.groups and run.result.draw_hash in known:
            run.__dict__["groups"] = known[run.result.draw_hash]


def _order(run: RunData) -> tuple[int, str, int, int]:
    words = run.method.split("+")
    base = "+".join(word for word in words if word != "sam")
    place = PAPER_ORDER.index(base) if base in PAPER_ORDER else len(PAPER_ORDER)
    return place, base, int("sam" in words), run.seed


def runs_in(path: Path) -> list[Path]:
    """Run folders directly below ``path``, by name; those of a ``--tune`` or hidden folder are not looked into."""
    try:
        return sorted(child for child in path.iterdir() if child.is_dir() and files.is_run(child))
    except OSError:
        return []


def _name(runs: Sequence[RunData]) -> None:
    """Method; where two runs have the same, also the seed, then the folder."""

    def doubled(names: Iterable[str]) -> set[str]:
        seen = list(names)
        return {name for name in seen if seen.count(name) > 1}

    titles = [run.title for run in runs]
    for run in runs:
        run.name = run.title
    several = doubled(titles)
    for run in runs:
        if run.title in several:
            run.name = f"{run.title}, seed {run.seed}"
    several = doubled(run.name for run in runs)
    for run in runs:
        if run.name in several:
            run.name = f"{run.name} ({clean(run.path.name)})"
    several = doubled(run.name for run in runs)
    for run in runs:
        if run.name in several:
            run.name = f"{run.name} in {clean(run.path.parent)}"
    for run in runs:
        run.notes = [Note(run.name, note.text, note.command) for note in run.notes]


def read_run(path: Path) -> RunData:
    """Everything a report can show of one run folder."""
    run = RunData(path)
    settings = _part(run, lambda: tomllib.loads((path / files.CONFIG).read_text(encoding="utf-8")), files.CONFIG)
    run.settings = settings or {}
    if settings is not None:
        run.plan = _part(run, lambda: read_config(settings, files.CONFIG))
    run.epochs = _part(run, lambda: read_metrics(path / files.METRICS)) or []
    if (path / files.RESULT).is_file():
        run.raw_result = _part(run, lambda: _object(path / files.RESULT))
        if run.raw_result is not None:
            run.result = _part(run, lambda: _result(run.raw_result))
            if run.result is None:
                run.raw_result = None
    else:
        done = f"{counted(len(run.epochs), 'epoch')} done" if run.epochs else "it has not begun"
        run.notes.append(Note("", f"The run is not finished ({done}), so it is not in the table.",
                              f"saddlescape train --out {path} (with the words it was begun with)"))  # fmt: skip
    size = len(run.result.classes) if run.result else 0
    _read_curvature(run)
    _read_surfaces(run)
    if (path / "escape.json").is_file():
        run.escape = _part(run, lambda: convert(_object(path / "escape.json"), EscapeFile, "escape.json"))
    if size and (path / PREDICTIONS).is_file():
        run.predictions = _part(run, lambda: read_predictions(path / PREDICTIONS, size))
    if size and (path / TAIL_ERRORS).is_file():
        run.tail_errors = _part(run, lambda: read_tail_errors(path / TAIL_ERRORS, size))
    _tell_missing(run)
    return run


def _read_curvature(run: RunData) -> None:
    path = run.path / "curvature.json"
    if path.is_file():
        found = _part(run, lambda: convert(_object(path), CurvatureFile, path.name))
        if found is not None:
            run.notes += [Note("", note) for note in found.notes]
        run.curvature = found
    path = run.path / "curvature-course.jsonl"
    if path.is_file():
        lines = _part(run, lambda: files.read_rows(path)) or []
        if lines and isinstance(lines[0], dict) and lines[0].get("format") == COURSE_FORMAT:
            run.course_settings = dict(lines[0].get("settings") or {})
            run.course = _part(run, lambda: [convert(line, Moment, path.name) for line in lines[1:]]) or []
        elif lines:
            run.notes.append(Note("", f"{path.name} is of a format that this version does not read."))
    path = run.path / "rho-advice.json"
    if path.is_file():
        run.advice = _part(run, lambda: convert(_object(path), AdviceFile, path.name))
        if run.advice is not None:
            run.advice.classes.sort(key=lambda row: row.label)


def _read_surfaces(run: RunData) -> None:
    for path in sorted(run.path.glob("surface-*.npz")):
        found = _part(run, lambda path=path: _surfaces(path))  # type: ignore[misc]
        run.surfaces += found or []


def _surfaces(path: Path) -> list[Surface]:
    raw, meta = read_npz(path, SURFACE_FORMAT)
    arrays = {name: array.astype(float) for name, array in raw.items()}
    losses, alphas, betas = arrays["losses"], arrays["alphas"], arrays["betas"]
    labels = [int(label) for label in meta["labels"]]
    wanted = (len(labels), len(alphas), len(betas)) if len(betas) else (len(labels), len(alphas))
    if losses.shape != wanted:
        raise InputError(f"{path.name} holds losses of shape {losses.shape}, not {wanted}; measure it again")
    return [
        Surface(
            label, str(meta["directions"]), alphas, betas, losses[i], float(arrays["center"][i]),
            tuple(map(float, arrays["slopes"][i])), tuple(map(float, arrays["curvatures"][i])),
        )
        for i, label in enumerate(labels)
    ]  # fmt: skip


def _tell_missing(run: RunData) -> None:
    """A note for each part that could be there and is not."""
    shown, tell = run.path, run.notes.append
    damaged = " ".join(note.text for note in run.notes)
    if run.curvature is None and "curvature.json" not in damaged:
        tell(
            Note("", "Curvature was not measured: no spectra, no saddles to be told.", f"saddlescape curvature {shown}")
        )
    if not run.course and "curvature-course" not in damaged:
        tell(Note("", "The course of curvature over training was not measured.",
                  f"saddlescape curvature {shown} --over-training"))  # fmt: skip
    if run.advice is None and "rho-advice" not in damaged:
        tell(Note("", "SAM's gain over rho was not measured.", f"saddlescape curvature {shown} --advise-rho"))
    if not run.surfaces and "surface-" not in damaged:
        tell(Note("", "No loss surface was measured.", f"saddlescape surface {shown} --classes all"))
    if run.predictions is None and PREDICTIONS not in damaged:
        tell(Note("", "Its answers on single test images were not kept: no confusion, no calibration.",
                  f"saddlescape evaluate {shown}"))  # fmt: skip


def _result(raw: Any) -> Result:
    found: Result = convert(raw, Result, files.RESULT)
    size = len(found.classes)
    if not size or len(found.class_counts) != size or len(found.per_class) != size:
        raise InputError(f"{files.RESULT} is damaged: classes, class_counts and per_class differ in length")
    return found


def _object(path: Path) -> dict[str, Any]:
    raw = files.read_json(path)
    if not isinstance(raw, dict):
        raise InputError(f"{path.name} is damaged: an object was expected; delete it and measure again")
    return raw


def _part(run: RunData, load: Callable[[], T], name: str = "") -> T | None:
    """What ``load`` reads, or None and a note that says why not."""
    try:
        return load()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as problem:
        told = " ".join(str(problem).replace(f"{run.path}/", "").split())
        note = Note(
            run.name,
            f"{name + ': ' if name else ''}{told if isinstance(problem, InputError) else f'damaged ({told})'}.",
        )
        if note not in run.notes:
            run.notes.append(note)
        return None
