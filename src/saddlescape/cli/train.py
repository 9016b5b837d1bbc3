"""``saddlescape train``: one run, from a word and a place to a folder with a result."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from saddlescape.cli.display import TrainingBar, bar, console, percent, reading, say
from saddlescape.cli.whole import Whole
from saddlescape.errors import InputError, counted

if TYPE_CHECKING:
    from saddlescape.data.types import Dataset
    from saddlescape.records.config import RunConfig, Stage


def train(
    data: str,
    /,
    *,
    method: str | None = None,
    out: Path | None = None,
    imbalance: float | None = None,
    profile: str = "exp",
    epochs: Whole | None = None,
    seed: Whole | None = None,
    rho: float | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    batch_size: Whole | None = None,
    augment: str | None = None,
    model: str | None = None,
    pretrained: bool = False,
    image_size: Whole | None = None,
    val: float = 0.0,
    root: str | None = None,
    draw_seed: Whole = 0,
    bad_images: str = "error",
    download: bool = False,
    device: str = "auto",
    precision: str = "auto",
    compile: bool | None = None,
    eval_every: Whole = 1,
    keep_every: Whole = 0,
    save_every: float = 10.0,
    track_curvature: str | None = None,
    tensorboard: bool = False,
    log: str = "",
    recipe: Path | None = None,
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    sync_sam: Annotated[bool, Parameter(negative=())] = False,
    sync_batchnorm: Annotated[bool, Parameter(negative=())] = False,
    dry_run: bool = False,
    set_: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True, negative=())] = None,
) -> None:
    """Train a classifier. Running the same command again resumes; a finished run says so.

    Example: saddlescape train cifar10 --method ldam+drw+sam --imbalance 100 --epochs 200 --out runs/ldam-drw-sam

    Parameters
    ----------
    data:
        digits, cifar10, cifar100, imagenet-lt, inat2018, or the path of a folder of images, a "path label" list, or
        parquet files.
    method:
        A sum such as ce+drw+sam, or a named system; see `saddlescape methods`. Default: follows from the data.
    out:
        The run folder. Default: runs/DATA-METHOD-seedS ("default" where no method is named).
    imbalance:
        Ratio of the largest to the smallest class to draw the training set with (default: as the data are).
    profile:
        Shape of the drawn long tail: exp or step.
    epochs:
        Length of training; every milestone of the recipe stretches with it.
    seed:
        Seed of initialisation, order and augmentation (default 0). The images drawn follow --draw-seed.
    rho:
        Radius of SAM's ascent step.
    lr, weight_decay, batch_size, augment, model:
        Override the recipe's value.
    pretrained:
        Start from pretrained weights (models timm/<name>; timm must be able to find or fetch them).
    image_size:
        Pixels a side that a person's own images are scaled to.
    val:
        Fraction of each class to hold out of training for validation (0: none).
    root:
        Folder with the data; default $SADDLESCAPE_DATA, then the user cache.
    bad_images:
        error, or skip: go on without files that cannot be read (they are listed and counted).
    download:
        Fetch CIFAR from its home page if it is not found.
    device:
        auto, cpu, cuda or cuda:N.
    precision:
        auto, float32, bf16 or fp16.
    compile:
        torch.compile the model. Default: on long CPU runs, where it pays.
    eval_every:
        Test every so many epochs (and after the last).
    keep_every:
        Keep the checkpoint of every so many epochs, for the course of the curvature.
    save_every:
        Minutes after which a checkpoint is written in the middle of an epoch too (0: after epochs only).
    track_curvature:
        Measure each class's lambda_min and lambda_max while training: every=10, or every=10,samples=256,products=60.
        Loggers get them too; tensorboard and wandb also a histogram of each class's spectrum (spectra=20 Lanczos steps;
        spectra=0: none).
    tensorboard:
        Also write TensorBoard files into the run folder.
    log:
        Other loggers, joined by commas: tensorboard, wandb, mlflow (extras of these names).
    recipe:
        Train exactly what this config.toml says (another run's, or edited by hand); other flags are then refused.
    from_:
        A run whose first stage a system (crt, lws, disalign, ...) goes on from, instead of training its own.
    sync_sam:
        Under torchrun: SAM climbs the gradient of the whole batch, not each process that of its part.
    sync_batchnorm:
        Under torchrun, on GPUs: BatchNorm sees the whole batch, not each process its part.
    dry_run:
        Decide everything, print it as TOML, and train nothing.
    set_:
        Any field of a stage: --set train.momentum=0.95 train.loss_options.max_margin=0.3
    """
    import dataclasses

    from saddlescape.cli.processes import joined
    from saddlescape.measure.course import LiveCourse, parse_tracking
    from saddlescape.methods.resolve import canonical
    from saddlescape.runs.config import begun
    from saddlescape.runs.execute import execute
    from saddlescape.runs.plan import Request, plan, plan_from_file
    from saddlescape.training.loggers import logger_names, open_logger

    with joined() as ranks:
        if not (math.isfinite(save_every) and save_every >= 0):
            raise InputError(f"--save-every {save_every}: minutes, 0 or more")
        tracking = None if track_curvature is None else parse_tracking(track_curvature)
        flags: dict[str, Any] = {
            "rho": None if rho is None else (rho,),
            "lr": lr,
            "weight_decay": weight_decay,
            "batch_size": batch_size,
            "augment": augment,
        }
        request = Request(
            data=data, method=method, model=model, imbalance=imbalance, profile=profile, draw_seed=draw_seed, root=root,
            val=val, image_size=image_size, bad_images=bad_images, download=download, seed=seed or 0, epochs=epochs,
            flags=flags, settings=set_ or (), device=device, precision=precision, compile=compile,
            pretrained=pretrained, eval_every=eval_every, keep_every=keep_every, start=from_, processes=ranks.size,
            sync_sam=sync_sam, sync_batchnorm=sync_batchnorm,
        )  # fmt: skip
        named = "recipe" if recipe else canonical(method) if method else "default"
        folder = out or Path("runs") / f"{Path(data).expanduser().resolve().name}-{named}-seed{seed or 0}"
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
        if recipe and seed is not None:
            config = dataclasses.replace(config, seed=seed)
        for note in notes:
            say(note)
        if dry_run:
            from saddlescape.runs.config import to_toml

            if ranks.first:
                print(to_toml(config), end="")
            return
        counts = f"{dataset.class_counts[0]} .. {min(dataset.class_counts)}"
        say(f"{config.method}{_changed(config, dataset)} on {dataset.name}: "
            f"{sum(dataset.class_counts)} training images, "
            f"{counted(dataset.num_classes, 'class', 'classes')} ({counts}), {config.device}, {config.precision}"
            f"{', compiled' if config.compile else ''}{_shared(config)} -> {folder}")  # fmt: skip
        live = None if tracking is None else LiveCourse(folder, config, dataset, tracking, say)
        names = logger_names(f"tensorboard,{log}" if tensorboard else log)
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


def _changed(config: RunConfig, dataset: Dataset) -> str:
    from saddlescape.runs.plan import changed

    found = changed(config, dataset)
    return f" (changed: {', '.join(found)})" if found else ""


def _label(config: RunConfig, stage: Stage) -> str:
    return config.method if len(config.stages) == 1 else f"{config.method}, stage {stage.name}"


def _shared(config: RunConfig) -> str:
    if config.processes == 1:
        return ""
    climbs = ", SAM in step" if config.sync_sam else ""
    return f", {config.processes} processes{climbs}"


def show(result: dict[str, Any], folder: Path) -> None:
    """One line for a person, on stdout."""
    groups = ", ".join(f"{name} {percent(result.get(name))}" for name in ("head", "mid", "tail"))
    console.print(
        f"{result['method']}: accuracy {percent(result['accuracy'])} ({groups}) after the last epoch; "
        f"best epoch on the test set {percent(result['best_accuracy'])} (epoch {result['best_epoch']} of "
        f"{result['stage_epochs'][-1]}{' of the last stage' if len(result['stage_epochs']) > 1 else ''}); "
        f"{result['seconds']:.0f} s -> {folder / 'result.json'}"
    )  # fmt: skip
