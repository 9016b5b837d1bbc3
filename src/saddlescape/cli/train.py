"""``saddlescape train``: one run, from a method and data to a folder with a result."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from saddlescape.cli.display import TrainingBar, bar, console, percent, reading, say
from saddlescape.errors import InputError, counted
from saddlescape.published import recipes
from saddlescape.records.files import RESULT
from saddlescape.records.record import convert
from saddlescape.records.result import Result
from saddlescape.runs.request import Request, TrainOptions

if TYPE_CHECKING:
    from saddlescape.data.types import Dataset
    from saddlescape.records.config import RunConfig, Stage


def train(
    data: str,
    /,
    *,
    method: str | None = None,
    out: Path | None = None,
    options: Annotated[TrainOptions, Parameter(name="*")] = TrainOptions(),  # noqa: B008, frozen
    save_every: float = 10.0,
    track_curvature: str | None = None,
    tensorboard: bool = False,
    log: str = "",
    recipe: Path | None = None,
    report: bool = False,
    export: bool = False,
    dry_run: bool = False,
) -> None:
    """Train a classifier. Running the same command again resumes; a finished run says so.

    Example: saddlescape train cifar10 --method ldam+drw+sam --imbalance 100 --epochs 200 --out runs/ldam-drw-sam

    Args:
        data: digits, cifar10, cifar100, imagenet-lt, inat2018, or the path of a folder of images, a "path label" list,
            or parquet files.
        method: A sum such as ce+drw+sam, or a named system; see `saddlescape methods`. Default: follows from the data.
        out: The run folder. Default: runs/DATA-METHOD-seedS ("default" where no method is named).
        save_every: Minutes after which a checkpoint is written in the middle of an epoch too (0: after epochs only).
        track_curvature: Measure each class's lambda_min and lambda_max while training: every=10, or
            every=10,samples=256,products=60. Loggers get them too; tensorboard and wandb also a histogram of each
            class's spectrum (spectra=20 Lanczos steps; spectra=0: none).
        tensorboard: Deprecated: --log tensorboard.
        log: Loggers, joined by commas: tensorboard (files in the run folder), wandb, mlflow (extras of these names).
        recipe: Train exactly what this config.toml says (another run's, or edited by hand); other flags are then
            refused.
        report: Score the run and write its page too: report.html in the run folder (extra report).
        export: Write the model as one file too, which predicts without saddlescape: model.pt2 in the run folder.
        dry_run: Decide everything, print it as TOML, and train nothing.
    """
    from saddlescape.cli.processes import joined
    from saddlescape.measure.course import LiveCourse, parse_tracking
    from saddlescape.runs.config import begun, to_toml
    from saddlescape.runs.execute import execute
    from saddlescape.runs.plan import changed, plan, plan_from_file
    from saddlescape.runs.train import run_folder
    from saddlescape.training.loggers import logger_names, open_logger

    with joined() as ranks:
        if not (math.isfinite(save_every) and save_every >= 0):
            raise InputError(f"--save-every {save_every}: minutes, 0 or more")
        if report:
            from saddlescape.report.page import plotly_js

            plotly_js()  # raises where the extra is missing: now, not after training
        tracking = None if track_curvature is None else parse_tracking(track_curvature)
        if tensorboard:
            say("--tensorboard is deprecated and will go: use --log tensorboard")
        names = logger_names(f"tensorboard,{log}" if tensorboard else log)
        request = Request(data=data, method=method, processes=ranks.size, **vars(options))
        folder = out or run_folder(data, method, options.seed, "recipe" if recipe else "default")
        with reading() as progress:

            def decided(before: RunConfig | None) -> tuple[RunConfig, Dataset, list[str]]:
                if recipe:
                    return plan_from_file(recipe, request, progress)
                return plan(request, progress, begun=before, folder=folder)

            # The first process decides (and measures, and downloads); the others read the data after it.
            found = decided(begun(folder)) if ranks.first else None
            config = ranks.from_first(None if found is None else found[0])
            _, dataset, notes = found or decided(config)
        assert config is not None
        if tracking is not None and config.backbone.frozen:
            raise InputError("--track-curvature does not see a frozen backbone's features: train with --keep-every 10, "
                             "then saddlescape curvature RUN --course")  # fmt: skip
        for note in notes:
            say(note)
        if dry_run:
            if ranks.first:
                print(to_toml(config), end="")
            return
        counts = f"{max(dataset.class_counts)} .. {min(dataset.class_counts)}"
        differs = ", ".join(changed(config, dataset))
        say(f"{config.method}{f' (changed: {differs})' if differs else ''} on {dataset.name}: "
            f"{sum(dataset.class_counts)} training images, "
            f"{counted(dataset.num_classes, 'class', 'classes')} ({counts}), {config.device}, {config.precision}"
            f"{', compiled' if config.compile else ''}{_shared(config)} -> {folder}")  # fmt: skip
        live = None if tracking is None else LiveCourse(folder, config, dataset, tracking, say)
        loggers: list[Any] = []  # built once the folder is a run's, for they write into it

        def logging(closing: contextlib.ExitStack) -> list[Any]:
            if not loggers:
                for name in names:
                    loggers.append(open_logger(name, folder / name))
                    closing.callback(loggers[-1].close)
            return loggers

        with (
            bar() as progress_bar,
            contextlib.nullcontext() if live is None else live,
            contextlib.ExitStack() as closing,
        ):
            result = execute(
                config, dataset, folder, say=say, save_every=60 * save_every, ranks=ranks,
                watchers=lambda stage, start: [
                    TrainingBar(progress_bar, stage, start, _label(config, stage)),
                    *logging(closing),
                    *([live.watcher(stage, start, logging(closing))] if live else []),
                ],
            )  # fmt: skip
        show(result, folder)
        if ranks.first:
            finish(folder, report, export)


def finish(run: Path, report: bool, export: bool) -> None:
    """Write the page and the file of a trained run that were asked for, as the commands of these names do."""
    if report:
        from saddlescape.cli.evaluate import evaluate
        from saddlescape.cli.report import report as write_page

        evaluate(run)
        write_page(run, out=run / "report.html")
    if export:
        from saddlescape.cli.export import export as write_model

        write_model(run)


def _label(config: RunConfig, stage: Stage) -> str:
    return config.method if len(config.stages) == 1 else f"{config.method}, stage {stage.name}"


def _shared(config: RunConfig) -> str:
    if config.processes == 1:
        return ""
    climbs = ", SAM in step" if config.sync_sam else ""
    return f", {config.processes} processes{climbs}"


def show(result: dict[str, Any], folder: Path) -> None:
    """One line for a person, on stdout, and what to know before the run is trusted."""
    groups = ", ".join(f"{name} {percent(result.get(name))}" for name in ("head", "mid", "tail"))
    best = ""
    if result["dataset"] in recipes():  # published figures are often of the best epoch on the test set
        epoch, epochs = convert(result, Result, RESULT).best_of_stage
        last = " of the last stage" if len(result.get("stage_epochs", [])) > 1 else ""
        best = f"best epoch on the test set {percent(result['best_accuracy'])} (epoch {epoch} of {epochs}{last}); "
    console.print(
        f"{result['method']}: accuracy {percent(result['accuracy'])} ({groups}) after the last epoch; {best}"
        f"{result['seconds']:.0f} s -> {folder / 'result.json'}"
    )
    for line in result.get("warnings", []):
        say(f"warning: {line}")
