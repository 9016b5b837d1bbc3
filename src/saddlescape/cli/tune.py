"""``saddlescape tune``: search a method's hyperparameters on a validation split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from saddlescape.cli.display import TrainingBar, bar, console, reading, say
from saddlescape.runs.request import SEVERAL, Request, TuneOptions, Whole


def tune(
    data: str,
    /,
    *,
    method: str,
    out: Path,
    trials: Whole = 20,
    search: Annotated[list[str] | None, SEVERAL] = None,
    options: Annotated[TuneOptions, Parameter(name="*")] = TuneOptions(),  # noqa: B008, frozen
) -> None:
    """Search weight decay, rho and the loss's own numbers on a validation split; the test set plays no part.

    Resumes where it was stopped. `train DATA --recipe OUT/best.toml` then trains the best on all images.

    Example: saddlescape tune cifar10 --method vs+sam --imbalance 100 --epochs 60 --trials 20 --out runs/tune-vs-sam

    Args:
        data: As for train.
        method: What to tune.
        out: Folder of the search: a run folder per trial, trials.jsonl, tuned.json, best.toml.
        trials: How many runs in all; the first has the published values.
        search: Other ranges than the default ones: --search train.lr=0.02..0.5:log train.weight_decay=1e-4..1e-2:log
    """
    from saddlescape.runs.tune import tune as search_best

    request = Request(data=data, method=method, **vars(options))
    with bar() as progress_bar, reading() as progress:
        tuned = search_best(
            request, out, trials=trials, searches=search or (), say=say, progress=progress,
            watchers=lambda label, stage, start: [TrainingBar(progress_bar, stage, start, label)],
        )  # fmt: skip
    shown = Table(box=None, pad_edge=False)
    for heading in ("trial", "validation", "settings"):
        shown.add_column(heading)
    for row in sorted(tuned["trials"], key=lambda row: -(row["value"] or 0)):
        value = "failed" if row["value"] is None else f"{row['value']:.1f}"
        shown.add_row(str(row["trial"]), value, " ".join(row["settings"]) or "as published")
    console.print(shown)
    published = "failed" if tuned["as_published"] is None else f"{tuned['as_published']:.1f}"
    console.print(f"{tuned['criterion']}: {published} as published, {tuned['best_value']:.1f} best")
    console.print(f"-> {out / 'tuned.json'}; train it on all images with --recipe {out / 'best.toml'}")
