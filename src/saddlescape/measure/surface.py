"""Loss surfaces of a run: ``RUN/surface-NAME.npz`` (a ``saddlescape.curvature.Surface``), a JSON of facts beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saddlescape.curvature import Surface, loss_surface
from saddlescape.errors import InputError
from saddlescape.measure.harness import Clock, Growing, Say, measure_each, quiet
from saddlescape.measure.subject import Subject, present_classes
from saddlescape.records.surface import SurfaceFact, SurfaceFacts
from saddlescape.runs.request import SurfaceOptions

TOL, PRODUCTS = 1e-2, 100  # of the pairs that "eigen" goes along


def measure_surface(
    subject: Subject,
    cut: SurfaceOptions,
    *,
    classes: Sequence[int] | None = None,
    say: Say = quiet,
    progress: Callable[[int, int], Any] | None = None,
) -> tuple[Path, Surface, SurfaceFacts]:
    """Measure a slice of the mean loss over all images (``classes`` None) or of each class's own loss.

    Returns the file, the surface and what the JSON beside it holds. A surface with the same settings is read, one with
    others is renamed.

    Raises:
        InputError: a class without images, or what ``loss_surface`` refuses.
    """
    dims = 1 if cut.line else 2
    name = f"surface-{cut.directions}-{dims}d-{subject.loss_name}-{subject.checkpoint}.npz"
    path = cut.out or subject.folder / name
    if path.suffix != ".npz" or path.is_dir():
        raise InputError(f"--out {path}: give a file that ends in .npz")
    settings = subject.identity | {
        "classes": None if classes is None else list(classes), "directions": cut.directions, "dims": dims,
        "span": cut.span, "steps": cut.steps, "samples": cut.samples_per_class, "tol": TOL, "max_products": PRODUCTS,
        "seed": cut.seed,
    }  # fmt: skip
    labels = present_classes(subject.dataset) if classes is None else list(classes)
    fresh = SurfaceFacts(**subject.header, settings=settings)
    with Growing(path.with_suffix(".json"), fresh, subject.folder, say, beside=path) as file:
        facts = file.content

        def measure(labels: list[int], clock: Clock) -> Surface:
            data, facts.num_available = subject.samples(labels, cut.samples_per_class, cut.seed)
            facts.num_samples = len(data[1])
            return loss_surface(
                subject.model, subject.loss, data, directions=cut.directions, span=cut.span, steps=cut.steps,
                dims=dims, classes=classes, batch_size=cut.batch_size, seed=cut.seed, tol=TOL, max_products=PRODUCTS,
                progress=progress,
            )  # fmt: skip

        def add(labels: list[int], found: Surface) -> str:
            found.save(path)  # before its JSON, which is never beside another surface's numbers
            facts.surfaces = [
                SurfaceFact(
                    label=label,
                    name="all" if label == -1 else subject.dataset.classes[label],
                    center=float(found.center[i]),
                    lowest=float(found.losses[i].min()),
                    highest=float(found.losses[i].max()),
                    slopes=found.slopes[i].tolist(),
                    curvatures=found.curvatures[i].tolist(),
                )
                for i, label in enumerate(found.labels)
            ]
            return ""

        measure_each(file, [] if facts.surfaces and path.exists() else [labels], measure, add, say)
        return path, Surface.load(path), facts
