"""Class-wise curvature of a run: ``curvature.json`` and a spectrum file per class, both resumable.

    RUN/curvature.json
    RUN/curvature/CHECKPOINT-LOSS/class_3.npz           a ``saddlescape.curvature.Spectrum``
    RUN/curvature/CHECKPOINT-LOSS/group_tail/all.npz    with ``groups``

A class that stands in ``curvature.json`` under the same settings is not measured again; a Lanczos run that was cut off
goes on from its last saved step.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import saddlescape
from saddlescape.curvature import Spectrum, build_operator, class_spectra, extremes, spectrum
from saddlescape.curvature.classwise import sample
from saddlescape.curvature.extremes import nonconvexity
from saddlescape.curvature.samples import Samples, gather
from saddlescape.measure.harness import PacedFile
from saddlescape.measure.hessian_parts import hessian_parts
from saddlescape.measure.subject import Subject, present_classes, set_aside
from saddlescape.parallel.ranks import ALONE, Ranks
from saddlescape.records import files
from saddlescape.runs.execute import device_name

FORMAT = "saddlescape-curvature-1"
CURVATURE, SPECTRA = "curvature.json", "curvature"
PATIENCE = 10.0  # seconds between two lines on the way through one class: a pipe or a log is read by people too
Say = Callable[[str], None]
Item = tuple[str, int | str]  # "classes" and a label, or "groups" and a name


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


def measure_run(
    subject: Subject,
    depth: Depth,
    *,
    classes: Sequence[int] | None = None,
    groups: bool = False,
    say: Say = lambda line: None,
    patience: float = PATIENCE,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Measure classes (default: all that have images) and, with ``groups``, the mean loss of head, mid and tail.

    ``say`` gets a line when an item is done, and one on the way where it takes longer than ``patience`` seconds.

    With several ``ranks`` all of them call this: each measures some of the items, whole, so figures are those of one
    process; the first gathers the rows and writes.

    Returns what lies in ``curvature.json`` afterwards: the rows asked for and those measured before under the same
    settings. A file with other settings is renamed, not lost.

    Raises:
        InputError: a class without images, or what ``class_spectra`` refuses.
    """
    folder = subject.folder / SPECTRA
    if ranks.first:
        files.make_folder(folder)
    with files.locked(folder) if ranks.first else nullcontext():
        content = ranks.from_first(_begin(subject, depth, say) if ranks.first else {})
        labels = present_classes(subject.dataset) if classes is None else list(classes)
        wanted = [name for name, members in subject.dataset.groups.items() if members] if groups else []
        known = {row["label"] for row in content["classes"]}
        todo: list[Item] = [("classes", label) for label in labels if label not in known]
        todo += [("groups", name) for name in wanted if not any(row["group"] == name for row in content["groups"])]
        if not todo:
            say(f"already measured: {subject.folder / CURVATURE}")
        sizes = [_size(subject, depth, *item) for item in todo]
        owners = spread(sizes, ranks.size)
        mine = [number for number, owner in enumerate(owners) if owner == ranks.rank]
        work = _Work([sizes[number] for number in mine])
        missing = set(range(len(todo)))
        file = PacedFile(subject.folder / CURVATURE, content)

        def enter(number: int, row: dict[str, Any]) -> None:
            kind, key = todo[number]
            missing.remove(number)
            content[kind].append(row)
            if kind == "classes":
                content[kind].sort(key=lambda each: each["label"])
            file.changed()
            done = f"{len(todo) - len(missing)} of {len(todo)}"
            say(f"{_name(subject, key)}: {_figures(row)}; {done}, about {duration(work.left())} left")

        def collect(wait: bool) -> None:
            for number in sorted(missing - set(mine)):
                text = ranks.get(f"row-{number}", wait)
                if text is not None:
                    enter(number, json.loads(text))

        try:
            for number in mine:
                key = todo[number][1]
                tell = _teller(say, _name(subject, key), work, patience)
                began = time.monotonic()
                row = (
                    _measure_class(subject, depth, key, tell)
                    if isinstance(key, int)
                    else _measure_group(subject, depth, key, tell)
                )
                row["seconds"] = time.monotonic() - began
                work.finish()
                if ranks.first:
                    enter(number, row)
                    collect(wait=False)
                else:
                    ranks.put(f"row-{number}", json.dumps(row))
            if ranks.first:
                collect(wait=True)
        finally:
            file.flush()
        return content


def spread(sizes: Sequence[int], processes: int) -> list[int]:
    """Which process takes each item: the largest first, each to the process that has least to do so far."""
    owners, loads = [0] * len(sizes), [0] * processes
    for number in sorted(range(len(sizes)), key=lambda each: -sizes[each]):
        owners[number] = loads.index(min(loads))
        loads[owners[number]] += sizes[number]
    return owners


def _name(subject: Subject, key: int | str) -> str:
    return f"class {subject.dataset.classes[key]}" if isinstance(key, int) else f"group {key}"


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
    return {
        "checkpoint": subject.checkpoint,
        "weights": subject.weights,
        "draw_hash": subject.dataset.draw_hash,
        "loss": subject.loss_name,
        "dtype": subject.dtype_name,
        **plain,
    }


def _begin(subject: Subject, depth: Depth, say: Say) -> dict[str, Any]:
    """What was measured before under these settings, or an empty file's content."""
    path = subject.folder / CURVATURE
    settings = settings_of(subject, depth)
    if path.exists():
        old = files.read_json(path)
        before = old.get("settings", {}) if isinstance(old, dict) else {}
        if before == settings and old.get("format") == FORMAT:
            return dict(old)
        changed = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
        moved = set_aside(path)
        say(f"measuring again, because of another {', '.join(changed) or 'format'}; the former is now {moved}")
    config, cursor = subject.opened.config, subject.opened.cursor
    return {
        "format": FORMAT,
        "method": config.method,
        "dataset": subject.dataset.name,
        "model": config.model,
        "checkpoint": cursor.folder,
        "stage": cursor.stage,
        "epoch": cursor.epoch,
        "epochs_of_stage": config.stages[cursor.stage].epochs,
        "settings": settings,
        "device": device_name(str(subject.device)),
        "notes": list(subject.notes),
        "class_names": subject.dataset.classes,
        "group_labels": subject.dataset.groups,
        "classes": [],
        "groups": [],
        "version": saddlescape.__version__,
        "torch": torch.__version__,
    }


def spectra_folder(subject: Subject) -> Path:
    views = f"-{subject.views}-views" if subject.views else ""
    return subject.folder / SPECTRA / f"{subject.checkpoint}-{subject.loss_name}{views}"


def _measure_class(subject: Subject, depth: Depth, label: int, tell: Say) -> dict[str, Any]:
    # A spectrum takes its sample itself; without one, no image is decoded that is not looked at. Of augmented images
    # every view of a sampled one is looked at.
    early = depth.extremes_only or subject.views > 0
    most = None if subject.views else depth.samples_per_class
    data, available = subject.samples([label], depth.samples_per_class if early else None, depth.seed)
    chosen = sample(gather(data, check=False), most, depth.seed)
    described = {
        "class": subject.dataset.classes[label],
        "label": label,
        "group": subject.group_of(label),
        "training_images": available,
    }
    if depth.extremes_only:
        return described | _extremes(subject, depth, chosen, available * max(subject.views, 1))
    folder = spectra_folder(subject)
    found = class_spectra(
        subject.model,
        subject.loss,
        data,
        max_samples=most,
        save_to=folder,
        progress=tell,
        **_options(depth),
    )[label]
    if subject.views:
        found = dataclasses.replace(found, num_available=available * subject.views)
        found.save(folder / f"class_{label}.npz")
    row = described | found.summary() | _of_spectrum(found)
    row["file"] = str((folder / f"class_{label}.npz").relative_to(subject.folder))
    return row | _parts(subject, depth, chosen, found.vectors)


def _measure_group(subject: Subject, depth: Depth, name: str, tell: Say) -> dict[str, Any]:
    """The mean loss over all images of a group (of its sampled images): large classes count for more."""
    members = [label for label in subject.dataset.groups[name] if subject.dataset.class_counts[label]]
    data, available = subject.samples(members, depth.samples_per_class, depth.seed, depth.samples_per_group)
    chosen = gather(data, check=False)
    described = {"group": name, "labels": members, "training_images": available}
    if depth.extremes_only:
        return described | _extremes(subject, depth, chosen, available * max(subject.views, 1))
    folder = spectra_folder(subject) / f"group_{name}"
    found = spectrum(subject.model, subject.loss, data, save_to=folder, progress=tell, **_options(depth))
    vectors = found.vectors
    found = dataclasses.replace(found, num_available=available * max(subject.views, 1))
    found.save(folder / "all.npz")
    row = described | found.summary() | _of_spectrum(found)
    del row["label"]
    row["file"] = str((folder / "all.npz").relative_to(subject.folder))
    return row | _parts(subject, depth, chosen, vectors)


def _options(depth: Depth) -> dict[str, Any]:
    return {
        "lanczos_steps": depth.lanczos_steps,
        "probes": depth.probes,
        "batch_size": depth.batch_size,
        "seed": depth.seed,
        "tol": depth.tol,
        "refine": depth.refine,
        "trace_probes": depth.trace_probes,
        "keep_vectors": depth.gauss_newton,
    }


def _of_spectrum(found: Spectrum) -> dict[str, Any]:
    return {"converged": found.converged, "sampling_error": found.sampling_error}


def _extremes(subject: Subject, depth: Depth, chosen: Samples, available: int) -> dict[str, Any]:
    """The row of certified extreme pairs alone; keys as those of a spectrum, None for what was not measured."""
    operator = build_operator(subject.model, subject.loss, chosen, batch_size=depth.batch_size)
    loss, gradient = operator.loss_and_gradient()
    found = extremes(operator, tol=depth.tol, max_products=100 + depth.refine, seed=depth.seed)
    low, high = found.smallest[0], found.largest[0]
    rounding = max(low.rounding, high.rounding)
    ratio = nonconvexity(low.value, high.value, rounding)
    row = {
        "lambda_min": low.value,
        "lambda_max": high.value,
        "nonconvexity": ratio if math.isfinite(ratio) else None,
        "residual_min": low.residual,
        "residual_max": high.residual,
        "rounding": rounding,
        "converged_min": low.converged,
        "converged_max": high.converged,
        "converged": found.converged,
        "negative_curvature_proved": low.is_proof,
        "trace": None,
        "trace_stderr": None,
        "negative_mass": None,
        "num_samples": len(chosen),
        "num_available": available,
        "sampling_error": math.sqrt((1 - len(chosen) / available) / len(chosen)),
        "num_params": operator.dim,
        "loss": float(loss),
        "gradient_norm": float(gradient.norm()),
        "products": found.products,
        "dtype": subject.dtype_name,
        "notes": list(operator.function.notes),
        "file": None,
    }
    return row | _parts(subject, depth, chosen, torch.stack([low.vector, high.vector]))


def _parts(subject: Subject, depth: Depth, chosen: Samples, vectors: Tensor | None) -> dict[str, Any]:
    if not depth.gauss_newton:
        return {}
    return hessian_parts(
        subject.model, subject.loss, chosen, vectors, batch_size=depth.batch_size, tol=depth.tol, seed=depth.seed
    )


def _size(subject: Subject, depth: Depth, kind: str, key: int | str) -> int:
    """Images that one product of an item goes through."""
    members = [key] if isinstance(key, int) else subject.dataset.groups[key]
    counts = (subject.dataset.class_counts[label] for label in members)
    size = sum(count if depth.samples_per_class is None else min(count, depth.samples_per_class) for count in counts)
    size = min(size, depth.samples_per_group or size) if kind == "groups" else size
    return size * max(subject.views, 1)


class _Work:
    """Time left, from the images that were gone through."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes, self.done, self.part = sizes, 0, 0.0
        self._began = time.monotonic()

    def finish(self) -> None:
        self.done, self.part = self.done + 1, 0.0

    def left(self) -> float | None:
        behind = sum(self.sizes[: self.done]) + (self.part * self.sizes[self.done] if self.part else 0)
        if not behind:
            return None
        return (time.monotonic() - self._began) / behind * (sum(self.sizes) - behind)


def duration(seconds: float | None) -> str:
    """For a person: 40 s, 5 min, 2.5 h."""
    if seconds is None:
        return "an unknown time"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _teller(say: Say, name: str, work: _Work, patience: float) -> Say:
    """Turn the lines of ``class_spectra`` on its way ("class 3: step 25 of 100") into ones with the class's name, at
    most one in ``patience`` seconds."""
    last = time.monotonic()

    def tell(line: str) -> None:
        nonlocal last
        step = re.search(r"step (\d+) of (\d+)", line)
        if step is None:
            return
        work.part = int(step[1]) / int(step[2])
        if time.monotonic() - last >= patience:
            last = time.monotonic()
            say(f"{name}: {step[0]}, about {duration(work.left())} left for all")

    return tell


def _figures(row: dict[str, Any]) -> str:
    low, high = ("" if row[f"converged_{end}"] else " (not converged)" for end in ("min", "max"))
    return f"lambda_min {row['lambda_min']:.4g}{low}, lambda_max {row['lambda_max']:.4g}{high}"
