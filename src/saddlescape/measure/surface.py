"""Loss surfaces of a run: ``RUN/surface-NAME.npz`` (a ``saddlescape.curvature.Surface``), a JSON of facts beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import saddlescape
from saddlescape.curvature import Surface, loss_surface
from saddlescape.errors import InputError
from saddlescape.measure.subject import Subject, present_classes, set_aside
from saddlescape.records import files

FORMAT = "saddlescape-surface-facts-1"
DIRECTIONS = ("eigen", "random")


@dataclass(frozen=True)
class Slice:
    """A slice through the loss; see ``loss_surface``. ``samples``: images of each larger class."""

    directions: str = "eigen"
    dims: int = 2
    span: float = 1.0
    steps: int = 21
    samples: int | None = None
    tol: float = 1e-2
    max_products: int = 100
    batch_size: int = 256
    seed: int = 0


def surface_path(subject: Subject, cut: Slice, out: Path | None = None) -> Path:
    if out is not None:
        return out
    return subject.folder / f"surface-{cut.directions}-{cut.dims}d-{subject.loss_name}-{subject.checkpoint}.npz"


def measure_surface(
    subject: Subject,
    cut: Slice,
    *,
    classes: Sequence[int] | None = None,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], Any] | None = None,
) -> tuple[Path, Surface, dict[str, Any]]:
    """Measure a slice of the mean loss over all images (``classes`` None) or of each class's own loss.

    Returns the file, the surface and what the JSON beside it holds. A surface with the same settings is read, one with
    others is renamed.

    Raises:
        InputError: unknown directions, a class without images, or what ``loss_surface`` refuses.
    """
    if cut.directions not in DIRECTIONS:
        raise InputError(f"--directions {cut.directions}: unknown; use {' or '.join(DIRECTIONS)}")
    path = surface_path(subject, cut, out)
    if path.suffix != ".npz" or path.is_dir():
        raise InputError(f"--out {path}: give a file that ends in .npz")
    facts_path = path.with_suffix(".json")
    settings = _settings(subject, cut, classes)
    if path.exists() and facts_path.exists():
        facts = files.read_json(facts_path)
        if isinstance(facts, dict) and (facts.get("format"), facts.get("settings")) == (FORMAT, settings):
            say(f"already measured: {path}")
            return path, Surface.load(path), facts
        set_aside(facts_path)
        say(f"measuring again with other settings; the former is now {set_aside(path)}")
    files.make_folder(path.parent)
    labels = present_classes(subject.dataset) if classes is None else list(classes)
    data, available = subject.samples(labels, cut.samples, cut.seed)
    found = loss_surface(
        subject.model, subject.loss, data, directions=cut.directions, span=cut.span, steps=cut.steps, dims=cut.dims,
        classes=classes, batch_size=cut.batch_size, seed=cut.seed, tol=cut.tol, max_products=cut.max_products,
        progress=progress,
    )  # fmt: skip
    names = ["all" if label == -1 else subject.dataset.classes[label] for label in found.labels]
    facts = {
        "format": FORMAT,
        "settings": settings,
        "num_samples": len(data[1]),
        "num_available": available,
        "surfaces": [
            {
                "label": label,
                "class": name,
                "center": float(found.center[i]),
                "lowest": float(found.losses[i].min()),
                "highest": float(found.losses[i].max()),
                "slopes": [float(value) for value in found.slopes[i]],
                "curvatures": [float(value) for value in found.curvatures[i]],
            }
            for i, (label, name) in enumerate(zip(found.labels, names, strict=True))
        ],
        "notes": list(subject.notes),
        "version": saddlescape.__version__,
        "torch": torch.__version__,
    }
    facts_path.unlink(missing_ok=True)  # so that no JSON ever lies beside another surface's numbers
    found.save(path)
    files.write_json(facts_path, facts)
    return path, found, facts


def _settings(subject: Subject, cut: Slice, classes: Sequence[int] | None) -> dict[str, Any]:
    plain = asdict(cut)
    del plain["batch_size"]
    return {
        "checkpoint": subject.checkpoint,
        "weights": subject.weights,
        "draw_hash": subject.dataset.draw_hash,
        "loss": subject.loss_name,
        "dtype": subject.dtype_name,
        "classes": None if classes is None else list(classes),
        **plain,
    }
