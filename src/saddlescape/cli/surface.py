"""``saddlescape surface``: slices through a run's loss, for figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from saddlescape.cli.display import bar, console, print_table, reading, say
from saddlescape.records.config import check_flags
from saddlescape.runs.request import SurfaceOptions


def surface(
    run: Path,
    /,
    *,
    options: Annotated[SurfaceOptions, Parameter(name="*")] = SurfaceOptions(),  # noqa: B008, frozen
) -> None:
    """Evaluate the loss on a grid around a run's weights, along eigenvectors or random directions.

    Example: saddlescape surface runs/ce-drw --classes tail

    Example: saddlescape surface runs/ce-drw --directions random --span 1 --steps 51

    Args:
        run: A run folder.
    """
    from saddlescape.measure.subject import open_subject, parse_classes
    from saddlescape.measure.surface import measure_surface

    check_flags(vars(options), SurfaceOptions)
    with reading() as progress:
        subject = open_subject(
            run, checkpoint=options.checkpoint, loss=options.loss, dtype=options.dtype, device=options.device,
            root=options.root, progress=progress,
        )  # fmt: skip
    for note in subject.notes:
        say(note)
    labels = parse_classes(options.classes, subject.dataset) if options.classes else None
    with bar() as progress_bar:
        task = progress_bar.add_task("surface", total=None, note="")
        path, _, facts = measure_surface(
            subject, options, classes=labels, say=say,
            progress=lambda done, total: progress_bar.update(task, completed=done, total=total),
        )  # fmt: skip
    cells = []
    for row in facts.surfaces:
        pairs = [", ".join(f"{value:.3g}" for value in values) for values in (row.slopes, row.curvatures)]
        cells.append([row.name, *(f"{value:.4g}" for value in (row.center, row.lowest, row.highest)), *pairs])
    print_table(("class", "loss at the weights", "lowest", "highest", "slopes", "curvatures"), cells)
    console.print(f"-> {path}")
