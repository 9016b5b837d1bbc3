"""``saddlescape surface``: slices through a run's loss, for figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from saddlescape.cli.curvature import at_least_one
from saddlescape.cli.display import bar, console, print_table, reading, say
from saddlescape.errors import InputError
from saddlescape.runs.request import OnlyOn, Whole


def surface(
    run: Path,
    /,
    *,
    directions: str = "eigen",
    line: OnlyOn = False,
    classes: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    span: float = 1.0,
    steps: Whole = 21,
    checkpoint: str | None = None,
    loss: str = "ce",
    samples_per_class: Whole | None = None,
    batch_size: Whole = 256,
    dtype: str = "float32",
    device: str = "auto",
    root: str | None = None,
    seed: Whole = 0,
    out: Path | None = None,
) -> None:
    """Evaluate the loss on a grid around a run's weights, along eigenvectors or random directions.

    Example: saddlescape surface runs/ce-drw --classes tail

    Example: saddlescape surface runs/ce-drw --directions random --span 1 --steps 51

    Args:
        run: A run folder.
        directions: eigen: unit eigenvectors of lambda_min and lambda_max, each class along its own; random:
            filter-normalised.
        line: A line along the first direction instead of a plane.
        classes: Class names, their numbers, head, mid, tail or all: a surface for each (default: one of the mean over
            all images).
        span: From -span to span along each direction.
        steps: Points along each direction.
        checkpoint: A folder under RUN/checkpoint (default: the newest).
        loss: ce: cross-entropy on the raw logits; train: the run's own loss, margins included.
        samples_per_class: Evaluate on a fixed random sample of larger classes.
        batch_size: Images at a time; bounds memory, moves no figure.
        dtype: float32 or float64.
        device: auto, cpu, cuda or cuda:N.
        root: Folder with the data, if it has moved.
        seed: Of random directions and samples.
        out: File to write (.npz; a .json with the facts lies beside it).
    """
    import math

    from saddlescape.measure.subject import open_subject, parse_classes
    from saddlescape.measure.surface import Slice, measure_surface

    if steps < 2:
        raise InputError(f"--steps {steps}: at least 2")
    if not 0 < span < math.inf:
        raise InputError(f"--span {span:g}: a finite number above 0")
    at_least_one(samples_per_class=samples_per_class, batch_size=batch_size)
    with reading() as progress:
        subject = open_subject(
            run, checkpoint=checkpoint, loss=loss, dtype=dtype, device=device, root=root, progress=progress
        )
    for note in subject.notes:
        say(note)
    labels = None if classes is None else parse_classes(classes, subject.dataset)
    cut = Slice(
        directions=directions, dims=1 if line else 2, span=span, steps=steps, samples=samples_per_class,
        batch_size=batch_size, seed=seed,
    )  # fmt: skip
    with bar() as progress_bar:
        task = progress_bar.add_task("surface", total=None, note="")
        path, _, facts = measure_surface(
            subject, cut, classes=labels, out=out, say=say,
            progress=lambda done, total: progress_bar.update(task, completed=done, total=total),
        )  # fmt: skip
    cells = []
    for row in facts.surfaces:
        pairs = [", ".join(f"{value:.3g}" for value in values) for values in (row.slopes, row.curvatures)]
        cells.append([row.name, *(f"{value:.4g}" for value in (row.center, row.lowest, row.highest)), *pairs])
    print_table(("class", "loss at the weights", "lowest", "highest", "slopes", "curvatures"), cells)
    console.print(f"-> {path}")
