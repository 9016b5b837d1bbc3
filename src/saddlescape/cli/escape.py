"""``saddlescape escape``: does SAM leave the tail's saddle, and does Momentum-SAM as well?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from saddlescape.cli.display import TrainingBar, bar, console, print_table, reading, say
from saddlescape.records.config import check_flags
from saddlescape.runs.request import EscapeOptions

if TYPE_CHECKING:
    from saddlescape.records.escape import EscapeFile


def escape(
    run: Path,
    /,
    *,
    options: Annotated[EscapeOptions, Parameter(name="*")] = EscapeOptions(),  # noqa: B008, frozen
) -> None:
    """Go on from a checkpoint of an SGD run with SGD, PGD, SAM and Momentum-SAM, and follow the tail's lambda_min.

    If amplified negative curvature is why SAM helps the tail, Momentum-SAM should help it as much. Run again, it goes
    on with the arms that are missing.

    Example: saddlescape escape runs/ce-drw --checkpoint s0-e00160-b000000

    Args:
        run: A run folder.
    """
    from saddlescape.measure import escape as experiment
    from saddlescape.measure.subject import open_subject, parse_classes

    check_flags(vars(options), EscapeOptions)
    for text in options.arms:
        experiment.parse_arm(text)
    with reading() as progress:
        subject = open_subject(
            run, checkpoint=options.checkpoint, device=options.device, root=options.root, progress=progress
        )
    started = subject.opened.config.stages[subject.opened.cursor.stage]
    if started.optimizer != "sgd":
        say(f"note: {run} was trained with {started.optimizer}, not from a point that SGD reached")
    labels = parse_classes(options.classes, subject.dataset) if options.classes else None
    with bar() as progress_bar:
        content = experiment.escape(
            subject, options, classes=labels, say=say,
            watchers=lambda stage: [TrainingBar(progress_bar, stage, 0, stage.name)],
        )  # fmt: skip
    show(content)
    console.print(f"-> {options.out or run / content.NAME}")


def show(content: EscapeFile) -> None:
    """First and last epoch of each arm, then the verdict."""
    cells = []
    for row in content.arms:
        first, last = row.epochs[0], row.epochs[-1]
        keys = ("tail", "accuracy", "lambda_min", "loss")
        figures = [_from_to(getattr(first, key), getattr(last, key)) for key in keys]
        cells.append([row.arm, str(row.seed), *(figures if row.problem is None else ["diverged", "", "", ""])])
    print_table(("arm", "seed", "tail accuracy", "accuracy", "lambda_min", "class loss"), cells)
    verdict = content.verdict
    console.print(verdict.text if verdict else "no verdict: it needs the arms sgd, sam@RHO and momentum-sam@RHO")


def _from_to(first: float | None, last: float | None) -> str:
    return " -> ".join("n/a" if value is None else f"{value:.3g}" for value in (first, last))
