"""Class-wise curvature of a run: ``curvature.json`` and a spectrum file per class, both resumable.

    RUN/curvature.json
    RUN/curvature/CHECKPOINT-LOSS/class_3.npz           a ``saddlescape.curvature.Spectrum``
    RUN/curvature/CHECKPOINT-LOSS/group_tail/all.npz    with ``groups``

A class that stands in ``curvature.json`` under the same settings is not measured again; a Lanczos run that was cut off
goes on from its last saved step.
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from saddlescape.curvature import build_operator, class_spectra, extremes, spectrum
from saddlescape.curvature.extremes import nonconvexity
from saddlescape.curvature.samples import Samples, gather
from saddlescape.errors import duration
from saddlescape.measure.harness import SPECTRA, Clock, Growing, Say, measure_each, quiet
from saddlescape.measure.hessian_parts import hessian_parts
from saddlescape.measure.subject import Subject, group_of, present_classes
from saddlescape.parallel.ranks import ALONE, Ranks
from saddlescape.records.curvature import Curvature, CurvatureFile, Figures, GroupCurvature
from saddlescape.records.record import finite

PATIENCE = 10.0  # seconds between two lines on the way through one class: a pipe or a log is read by people too


@dataclass(frozen=True)
class Depth:
    """How closely to look. ``extremes_only``: certified extreme pairs without density, trace and negative mass.

    ``tol``: residual beside the value at which a pair is settled; ``refine``: products to spend on pairs that Lanczos
    has not settled. ``gauss_newton``: measure the two parts of the Hessian too. ``samples_per_group``: of what
    ``samples_per_class`` leaves of a group. ``batch_size`` moves no figure.
    """

    lanczos_steps: int = 100
    probes: int = 1
    tol: float = 1e-3
    refine: int = 100
    trace_probes: int = 4
    samples_per_class: int | None = None
    samples_per_group: int | None = None
    extremes_only: bool = False
    gauss_newton: bool = True
    batch_size: int = 256
    seed: int = 0


@dataclass(frozen=True)
class Item:
    """A class, or with ``label`` None a group: whose mean loss is measured, over all images of its ``labels``."""

    name: str
    label: int | None
    labels: tuple[int, ...]

    def __str__(self) -> str:
        return f"group {self.name}" if self.label is None else f"class {self.name}"


def measure_run(
    subject: Subject,
    depth: Depth,
    *,
    classes: Sequence[int] | None = None,
    groups: bool = False,
    say: Say = quiet,
    patience: float = PATIENCE,
    ranks: Ranks = ALONE,
) -> CurvatureFile:
    """Measure classes (default: all that have images) and, with ``groups``, the mean loss of head, mid and tail.

    ``say`` gets a line when an item is done, and one on the way where it takes longer than ``patience`` seconds.
    With several ``ranks`` see ``measure_each``: figures are those of one process.

    Returns what lies in ``curvature.json`` afterwards: the rows asked for and those measured before under the same
    settings. A file with other settings is renamed, not lost.

    Raises:
        InputError: a class without images, or what ``class_spectra`` refuses.
    """
    path = subject.folder / CurvatureFile.NAME
    with Growing(path, _fresh(subject, depth), subject.folder, say) if ranks.first else nullcontext() as file:
        content = ranks.from_first(_fresh(subject, depth) if file is None else file.content)
        todo = _items(subject, content, classes, groups)

        def measure(item: Item, clock: Clock) -> Figures:
            began = time.monotonic()
            row = _measure(subject, depth, item, _progress(say, str(item), clock, patience))
            return msgspec.structs.replace(row, seconds=time.monotonic() - began)

        def add(item: Item, row: Figures) -> str:
            if isinstance(row, Curvature):
                content.classes.append(row)
                content.classes.sort(key=lambda each: each.label or 0)
            elif isinstance(row, GroupCurvature):
                content.groups.append(row)
            low, high = ("" if settled else " (not converged)" for settled in (row.converged_min, row.converged_max))
            return f"{item}: lambda_min {row.lambda_min:.4g}{low}, lambda_max {row.lambda_max:.4g}{high}"

        measure_each(file, todo, measure, add, say, sizes=[_size(subject, depth, item) for item in todo], ranks=ranks)
        return content


def _items(subject: Subject, content: CurvatureFile, classes: Sequence[int] | None, groups: bool) -> list[Item]:
    """What is asked for and not measured."""
    dataset = subject.dataset
    labels = present_classes(dataset) if classes is None else classes
    items = [Item(dataset.classes[label], label, (label,)) for label in labels]
    for name, members in dataset.groups.items() if groups else ():
        if members:
            items.append(Item(name, None, tuple(label for label in members if dataset.class_counts[label])))
    known = {*(row.label for row in content.classes), *(row.group for row in content.groups)}
    return [item for item in items if (item.name if item.label is None else item.label) not in known]


def settings_of(subject: Subject, depth: Depth) -> dict[str, Any]:
    """All that moves a figure."""
    plain = asdict(depth)
    del plain["batch_size"]
    if depth.samples_per_group is None:  # which files of former versions do not name
        del plain["samples_per_group"]
    if depth.extremes_only:
        for name in ("lanczos_steps", "probes", "trace_probes"):
            del plain[name]
    if subject.views:
        plain["views"] = subject.views
    return subject.identity | plain


def _fresh(subject: Subject, depth: Depth) -> CurvatureFile:
    cursor = subject.opened.cursor
    return CurvatureFile(
        **subject.header,
        settings=settings_of(subject, depth),
        stage=cursor.stage,
        epoch=cursor.epoch,
        epochs_of_stage=subject.opened.config.stages[cursor.stage].epochs,
    )


def spectrum_path(subject: Subject, item: Item) -> Path:
    """Where the spectrum of an item lies in a run, relative to it."""
    views = f"-{subject.views}-views" if subject.views else ""
    folder = Path(SPECTRA) / f"{subject.checkpoint}-{subject.loss_name}{views}"
    return folder / (f"group_{item.name}/all.npz" if item.label is None else f"class_{item.label}.npz")


def _measure(subject: Subject, depth: Depth, item: Item, progress: Say) -> Figures:
    per_group = depth.samples_per_group if item.label is None else None
    data, images = subject.samples(item.labels, depth.samples_per_class, depth.seed, per_group)
    chosen, available = gather(data, check=False), images * max(subject.views, 1)
    if depth.extremes_only:
        vectors: torch.Tensor | None
        figures, vectors = _extremes(subject, depth, chosen)
    else:
        path = spectrum_path(subject, item)
        options: dict[str, Any] = {
            "lanczos_steps": depth.lanczos_steps, "probes": depth.probes, "batch_size": depth.batch_size,
            "seed": depth.seed, "tol": depth.tol, "refine": depth.refine, "trace_probes": depth.trace_probes,
            "keep_vectors": depth.gauss_newton, "save_to": subject.folder / path.parent, "progress": progress,
        }  # fmt: skip
        if item.label is None:
            found = spectrum(subject.model, subject.loss, data, **options)
        else:
            found = class_spectra(subject.model, subject.loss, data, **options)[item.label]
        vectors = found.vectors
        if found.num_available != available:
            found = dataclasses.replace(found, num_available=available)
            found.save(subject.folder / path)
        figures = found.summary() | {"converged": found.converged, "file": str(path)}
        del figures["label"]
    used = len(chosen)
    figures |= {"training_images": images, "num_samples": used, "num_available": available}
    figures["sampling_error"] = math.sqrt((1 - used / available) / used)
    if depth.gauss_newton:
        figures |= hessian_parts(
            subject.model, subject.loss, chosen, vectors, batch_size=depth.batch_size, tol=depth.tol, seed=depth.seed
        )
    if item.label is None:
        return GroupCurvature(group=item.name, labels=list(item.labels), **figures)
    return Curvature(name=item.name, label=item.label, group=group_of(subject.dataset, item.label), **figures)


def _extremes(subject: Subject, depth: Depth, chosen: Samples) -> tuple[dict[str, Any], torch.Tensor]:
    """(the figures of certified extreme pairs alone, their vectors [2, P])."""
    operator = build_operator(subject.model, subject.loss, chosen, batch_size=depth.batch_size)
    loss, gradient = operator.loss_and_gradient()
    found = extremes(operator, tol=depth.tol, max_products=100 + depth.refine, seed=depth.seed)
    low, high = found.smallest[0], found.largest[0]
    rounding = max(low.rounding, high.rounding)
    return {
        "lambda_min": low.value,
        "lambda_max": high.value,
        "nonconvexity": finite(nonconvexity(low.value, high.value, rounding)),
        "residual_min": low.residual,
        "residual_max": high.residual,
        "rounding": rounding,
        "converged_min": low.converged,
        "converged_max": high.converged,
        "converged": found.converged,
        "negative_curvature_proved": low.is_proof,
        "num_params": operator.dim,
        "loss": float(loss),
        "gradient_norm": float(gradient.norm()),
        "products": found.products,
        "dtype": subject.dtype_name,
        "notes": list(operator.function.notes),
    }, torch.stack([low.vector, high.vector])


def _size(subject: Subject, depth: Depth, item: Item) -> int:
    """Images that one product of an item goes through."""
    counts = (subject.dataset.class_counts[label] for label in item.labels)
    size = sum(min(count, depth.samples_per_class or count) for count in counts)
    if item.label is None:
        size = min(size, depth.samples_per_group or size)
    return size * max(subject.views, 1)


def _progress(say: Say, name: str, clock: Clock, patience: float) -> Say:
    """Turn the lines of ``class_spectra`` on its way ("class 3: step 25 of 100") into ones with the class's name, at
    most one in ``patience`` seconds."""
    last = time.monotonic()

    def progress(line: str) -> None:
        nonlocal last
        step = re.search(r"step (\d+) of (\d+)", line)
        if step is None:
            return
        clock.part = int(step[1]) / int(step[2])
        if time.monotonic() - last >= patience:
            last = time.monotonic()
            say(f"{name}: {step[0]}, about {duration(clock.left(), 'an unknown time')} left for all")

    return progress
