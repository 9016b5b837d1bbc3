"""Class-wise curvature of a run: ``curvature.json`` and a spectrum file per class, both resumable.

    RUN/curvature.json
    RUN/curvature/CHECKPOINT-LOSS/class_3.npz           a ``saddlescape.curvature.Spectrum``
    RUN/curvature/CHECKPOINT-LOSS/group_tail/all.npz    with ``groups``

A class that stands in ``curvature.json`` under the same settings is not measured again; a Lanczos run that was cut off
goes on from its last saved step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from saddlescape.curvature import Factorization, HessianOperator, Spectrum, build_operator, extremes, spectrum_of
from saddlescape.curvature.extremes import nonconvexity
from saddlescape.disk import read_npz, write_npz
from saddlescape.errors import InputError, duration
from saddlescape.measure.harness import SPECTRA, Clock, Growing, Say, measure_each, quiet
from saddlescape.measure.hessian_parts import hessian_parts
from saddlescape.measure.subject import Subject, group_of, present_classes
from saddlescape.parallel.ranks import ALONE, Ranks
from saddlescape.records import files
from saddlescape.records.curvature import Curvature, CurvatureFile, Figures, GroupCurvature
from saddlescape.records.record import finite
from saddlescape.runs.request import CurvatureOptions

PARTIAL = "saddlescape-lanczos-1"  # format of Lanczos runs under way
SAVE_EVERY = 25  # Lanczos steps between two savings of a run under way
TRACE_PROBES = 4
TOL, REFINE = 1e-3, 100  # of a pair, and products to settle it, unless the flags say otherwise
PATIENCE = 10.0  # seconds between two lines on the way through one class: a pipe or a log is read by people too


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
    depth: CurvatureOptions,
    *,
    classes: Sequence[int] | None = None,
    say: Say = quiet,
    patience: float = PATIENCE,
    ranks: Ranks = ALONE,
) -> CurvatureFile:
    """Measure classes (default: all that have images) and, with ``depth.groups``, the mean loss of head, mid and tail.

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
        todo = _items(subject, content, classes, depth.groups)

        def measure(item: Item, clock: Clock) -> Figures:
            began = last = time.monotonic()

            def progress(steps: int) -> None:
                nonlocal last
                clock.part = steps / (depth.lanczos_steps * depth.probes)
                if time.monotonic() - last >= patience:
                    last = time.monotonic()
                    ahead = f"about {duration(clock.left(), 'an unknown time')} left for all"
                    say(f"{item}: step {steps} of {depth.lanczos_steps * depth.probes}, {ahead}")

            row = _measure(subject, depth, item, repr(sorted(content.settings.items())), progress)
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


def settings_of(subject: Subject, depth: CurvatureOptions) -> dict[str, Any]:
    """All that moves a figure. What is not asked for is left out, since files of former versions do not name it."""
    settings = subject.identity | {
        "tol": depth.tol or TOL, "refine": depth.products or REFINE, "samples_per_class": depth.samples_per_class,
        "extremes_only": depth.extremes_only, "gauss_newton": depth.gauss_newton, "seed": depth.seed,
    }  # fmt: skip
    if depth.samples_per_group is not None:
        settings["samples_per_group"] = depth.samples_per_group
    if not depth.extremes_only:
        settings |= {"lanczos_steps": depth.lanczos_steps, "probes": depth.probes, "trace_probes": TRACE_PROBES}
    if subject.views:
        settings["views"] = subject.views
    return settings


def _fresh(subject: Subject, depth: CurvatureOptions) -> CurvatureFile:
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


def _measure(
    subject: Subject, depth: CurvatureOptions, item: Item, identity: str, progress: Callable[[int], None]
) -> Figures:
    per_group = depth.samples_per_group if item.label is None else None
    data, images = subject.samples(item.labels, depth.samples_per_class, depth.seed, per_group)
    operator = build_operator(subject.model, subject.loss, data, batch_size=depth.batch_size)
    used, available = len(operator.samples), images * max(subject.views, 1)
    vectors: Tensor | None
    if depth.extremes_only:
        figures, vectors = _extremes(operator, depth)
    else:
        path = spectrum_path(subject, item)
        found = _spectrum(operator, depth, item, subject.folder / path, identity, progress, available)
        vectors = found.vectors
        figures = found.summary() | {"converged": found.converged, "file": str(path)}
        del figures["label"]
    figures |= {"training_images": images, "num_samples": used, "num_available": available}
    figures["sampling_error"] = math.sqrt((1 - used / available) / used)
    if vectors is not None and depth.gauss_newton:
        figures |= hessian_parts(operator, vectors, tol=depth.tol or TOL, seed=depth.seed)
    if item.label is None:
        return GroupCurvature(group=item.name, labels=list(item.labels), **figures)
    return Curvature(name=item.name, label=item.label, group=group_of(subject.dataset, item.label), **figures)


def _spectrum(
    operator: HessianOperator, depth: CurvatureOptions, item: Item, path: Path, identity: str,
    progress: Callable[[int], None], available: int,
) -> Spectrum:  # fmt: skip
    """The spectrum of an item, saved as ``path``; Lanczos runs under way lie beside it in ``NAME.partial.npz``.

    ``identity``: what runs on disk must agree with to be continued. ``progress(steps)`` every ``SAVE_EVERY`` steps.
    """
    files.make_folder(path.parent)
    partial = path.with_suffix(".partial.npz")
    runs = _read_runs(partial, identity, operator.like)

    def save() -> None:
        arrays = {f"{i}.{key}": value.cpu().numpy() for i, run in enumerate(runs)
                  for key, value in run.state_dict().items()}  # fmt: skip
        write_npz(partial, PARTIAL, arrays, {"identity": identity, "runs": len(runs)})

    def after_step(probe: int, run: Factorization) -> None:
        if run.steps % SAVE_EVERY == 0:
            progress(probe * depth.lanczos_steps + run.steps)
            save()

    try:
        found = spectrum_of(
            operator, lanczos_steps=depth.lanczos_steps, probes=depth.probes, seed=depth.seed, tol=depth.tol or TOL,
            refine=depth.products or REFINE, trace_probes=TRACE_PROBES, keep_vectors=depth.gauss_newton,
            callback=after_step, factorizations=runs, label=item.label, num_available=available,
        )  # fmt: skip
    except KeyboardInterrupt:
        save()
        raise
    found.save(path)
    partial.unlink(missing_ok=True)
    return found


def _read_runs(path: Path, identity: str, like: Tensor) -> list[Factorization]:
    """The Lanczos runs in ``path``; none where there is no whole file, or it belongs to something else."""
    try:
        arrays, meta = read_npz(path, PARTIAL)
    except InputError:
        return []
    runs = []
    for i in range(meta["runs"] if meta.get("identity") == identity else 0):
        state = {key.split(".", 1)[1]: torch.from_numpy(value) for key, value in arrays.items()
                 if key.startswith(f"{i}.")}  # fmt: skip
        for key in ("basis", "next", "residual"):
            state[key] = state[key].to(like)
        runs.append(Factorization.from_state_dict(state))
    return runs


def _extremes(operator: HessianOperator, depth: CurvatureOptions) -> tuple[dict[str, Any], Tensor]:
    """(the figures of certified extreme pairs alone, their vectors [2, P])."""
    loss, gradient = operator.loss_and_gradient()
    found = extremes(operator, tol=depth.tol or TOL, max_products=100 + (depth.products or REFINE), seed=depth.seed)
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
        "dtype": str(operator.like.dtype).removeprefix("torch."),
        "notes": list(operator.function.notes),
    }, torch.stack([low.vector, high.vector])


def _size(subject: Subject, depth: CurvatureOptions, item: Item) -> int:
    """Images that one product of an item goes through."""
    counts = (subject.dataset.class_counts[label] for label in item.labels)
    size = sum(min(count, depth.samples_per_class or count) for count in counts)
    if item.label is None:
        size = min(size, depth.samples_per_group or size)
    return size * max(subject.views, 1)
