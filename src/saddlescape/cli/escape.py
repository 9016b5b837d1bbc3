"""``saddlescape escape``: does SAM leave the tail's saddle, and does Momentum-SAM as well?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from saddlescape.cli.curvature import at_least_one
from saddlescape.cli.display import TrainingBar, bar, console, print_table, reading, say
from saddlescape.runs.request import Whole

if TYPE_CHECKING:
    from saddlescape.records.escape import EscapeFile


def escape(
    run: Path,
    /,
    *,
    checkpoint: str | None = None,
    epochs: Whole = 10,
    lr: float = 0.01,
    arms: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    seeds: Annotated[list[Whole] | None, Parameter(consume_multiple=True, negative=())] = None,
    classes: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    samples_per_class: Whole = 256,
    products: Whole = 60,
    device: str = "auto",
    root: str | None = None,
    out: Path | None = None,
) -> None:
    """Go on from a checkpoint of an SGD run with SGD, PGD, SAM and Momentum-SAM, and follow the tail's lambda_min.

    If amplified negative curvature is why SAM helps the tail, Momentum-SAM should help it as much. Run again, it goes
    on with the arms that are missing.

    Example: saddlescape escape runs/ce-drw --checkpoint s0-e00160-b000000

    Args:
        run: A run folder.
        checkpoint: Where to start: a folder under RUN/checkpoint (default: the newest).
        epochs: Epochs of each arm.
        lr: Constant learning rate of each arm.
        arms: Optimisers with their radii: sgd pgd@0.5 sam@0.1 momentum-sam@1.5 (default: nine arms).
        seeds: Seeds of the order of images (default: 0); several make the noise known.
        classes: Whose curvature is followed (default: the tail).
        samples_per_class: Images of each larger class that curvature is measured on.
        products: Most Hessian products per class and epoch.
        device: auto, cpu, cuda or cuda:N.
        root: Folder with the data, if it has moved.
        out: The result file (default: RUN/escape.json).
    """
    from saddlescape.measure import escape as experiment
    from saddlescape.measure.subject import open_subject, parse_classes

    at_least_one(samples_per_class=samples_per_class, products=products)
    trial = experiment.Trial(
        arms=tuple(arms) if arms else experiment.ARMS, epochs=epochs, lr=lr, seeds=tuple(seeds or (0,)),
        samples=samples_per_class, products=products,
    )  # fmt: skip
    for text in trial.arms:
        experiment.parse_arm(text)
    with reading() as progress:
        subject = open_subject(run, checkpoint=checkpoint, device=device, root=root, progress=progress)
    started = subject.opened.config.stages[subject.opened.cursor.stage]
    if started.optimizer != "sgd":
        say(f"note: {run} was trained with {started.optimizer}, not from a point that SGD reached")
    labels = None if classes is None else parse_classes(classes, subject.dataset)
    with bar() as progress_bar:
        content = experiment.escape(
            subject, trial, classes=labels, out=out, say=say,
            watchers=lambda stage: [TrainingBar(progress_bar, stage, 0, stage.name)],
        )  # fmt: skip
    show(content)
    console.print(f"-> {out or run / content.NAME}")


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
