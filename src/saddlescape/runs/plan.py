"""From what a person asked for to a run's configuration and its data: everything is decided here, before training."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from saddlescape.data.load import load
from saddlescape.data.sources.registry import dataset_names, locate
from saddlescape.data.split import hold_out
from saddlescape.data.types import Dataset
from saddlescape.disk import expanded, read_text
from saddlescape.errors import InputError
from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.resolve import resolve
from saddlescape.published import recipes
from saddlescape.records.config import BackboneConfig, DataConfig, RunConfig, check_flags, check_stages, flag
from saddlescape.runs.backbone import backbone_of, preprocess_of, resolved
from saddlescape.runs.config import from_toml
from saddlescape.runs.first_stage import continue_from
from saddlescape.runs.rehearsal import rehearse
from saddlescape.runs.request import Request
from saddlescape.training.precision import has_fast_bf16, resolve_device, resolve_precision
from saddlescape.training.tuning import seconds_per_step

# On a CPU a person's own photos are trained at no more than this size unless --image-size says otherwise: the cost
# grows with its square.
CPU_IMAGE_SIZE = 64

OWN_SPLIT = "name"  # how a person's own images are split, see ``stratified_split``

# A run shorter than this many steps is over before a compiler has earned its cold start (30 to 50 s) back.
LONG_RUN_STEPS = 3000

# From here on it pays to measure which number format is faster; in a run that is not long only if steps are slow.
MEASURED_RUN_STEPS = 100
SLOW_STEP = 0.1  # seconds


def load_data(
    config: DataConfig,
    *,
    download: bool = False,
    progress: Callable[..., None] | None = None,
    size_limit: int | None = None,
    white_level: float | None = None,
) -> Dataset:
    """The data set of a configuration, validation split included; ``white_level``: that of a trained run."""
    dataset = load(
        config.name,
        root=config.root or None,
        imbalance=config.imbalance or None,
        profile=config.profile,
        seed=config.draw_seed,
        image_size=config.image_size or None,
        bad_images=config.bad_images,
        download=download,
        progress=progress,
        size_limit=size_limit,
        white_level=white_level,
        split=config.split,
        extra=config.val == "extra",
        preprocess=preprocess_of(config),
    )
    return hold_out(dataset, config.val, config.draw_seed) if config.val and config.val != "extra" else dataset


def moved(config: DataConfig, root: str | None) -> DataConfig:
    """``config`` for data that have moved below ``root``: there by their name, or ``root`` is their folder."""
    if root is None or config.name in dataset_names():
        return dataclasses.replace(config, root=root or config.root)
    place, stored = expanded(root), Path(config.name)
    places = [place / stored.name, *([place] if place.name == stored.name else [])]
    if not stored.is_absolute():
        places.insert(0, place / stored)
    found = next((path for path in places if path.exists()), None)
    if found is None and stored.exists():  # a list that stays, of images that have moved
        return dataclasses.replace(config, root=root)
    return dataclasses.replace(config, name=str(found or place), root=root if config.root else "")


def _identified(request: Request) -> str:
    """The data's name, or where they really lie, so that no spelling of a path and no working folder matters."""
    if request.data in dataset_names():
        return request.data
    found = locate(request.data, expanded(request.root) if request.root else None)
    return request.data if found is None else str(found.resolve())


def facts_of(dataset: Dataset, device: torch.device, frozen: bool = False) -> Facts:
    """What a method may know of the data and the device. ``frozen``: it sees a frozen backbone's features of them."""
    return Facts(
        dataset=dataset.name,
        class_counts=dataset.class_counts,
        image_size=dataset.preprocess.image_size,
        augment=dataset.augment,
        features=frozen or dataset.preprocess.features,
        device_type=device.type,
    )


def recipe_of(request: Request, facts: Facts, tune: str = "") -> Recipe:
    """The recipe that was asked for. Raises InputError as ``resolve`` does."""
    names = ("lr", "weight_decay", "batch_size", "augment")
    overrides: dict[str, Any] = {name: getattr(request, name) for name in names}
    overrides["rho"] = None if request.rho is None else (request.rho,)
    return resolve(
        request.method, facts, epochs=request.epochs, budget=request.budget, flags=overrides,
        settings=request.settings, model=request.model, tune=tune,
    )  # fmt: skip


def changed(config: RunConfig, dataset: Dataset) -> list[str]:
    """What in ``config`` differs from its recipe at the same length, as ``field value (recipe value)``."""
    epochs = next((stage.epochs for stage in config.stages if not stage.head_fit), None)
    facts, tune = facts_of(dataset, torch.device(config.device), config.backbone.frozen), config.backbone.trained
    recipe = resolve(config.method, facts, epochs=epochs, tune=tune, model=config.model if tune else None)
    lines = [] if recipe.model == config.network else [f"model {config.model} ({recipe.model})"]
    for mine, theirs in zip(config.stages, recipe.stages, strict=False):
        for field_ in dataclasses.fields(mine):
            ours, usual = getattr(mine, field_.name), getattr(theirs, field_.name)
            if ours != usual:
                lines.append(f"{field_.name} {_plain(ours)} ({_plain(usual)})")
    return lines


def _plain(value: Any) -> str:
    return ", ".join(f"{number:g}" for number in value) if isinstance(value, tuple) else str(value)


@dataclass
class Loaded:
    """What one call of :func:`plan` leaves for the next, so that a grid reads data and measures speed once."""

    data: dict[DataConfig, Dataset] = field(default_factory=dict)
    faster: dict[str, tuple[str, str]] = field(default_factory=dict)  # model -> (precision, reason)


def plan(
    request: Request,
    progress: Callable[..., None] | None = None,
    loaded: Loaded | None = None,
    begun: RunConfig | None = None,
    folder: Path | None = None,
) -> tuple[RunConfig, Dataset, list[str]]:
    """Decide everything. Returns the configuration, the loaded data, and notes that say what was chosen and why.

    ``folder`` is where the run will be; a run that continues from another one's first stage names that one from there.

    ``begun`` is the configuration that already lies in the run's folder: what was left to us to decide is then as
    it was decided there, whatever this machine would say today.

    Raises:
        InputError: anything that cannot be, with how to repair it.
    """
    check_flags(vars(request), Request)
    device = resolve_device(begun.device if begun is not None and request.device == "auto" else request.device)
    table = recipes().get(request.data, {})
    imbalance = request.imbalance if request.imbalance is not None else float(table.get("imbalance", 0.0))
    own = request.data not in dataset_names()
    data = DataConfig(
        name=_identified(request),
        root=request.root or "",
        imbalance=imbalance,
        profile=request.profile,
        draw_seed=request.draw_seed,
        val=request.val,
        image_size=request.image_size or 0,
        bad_images=request.bad_images,
        split=begun.data.split if begun is not None else OWN_SPLIT if own else "position",
    )
    name = backbone_of(request)
    network, backbone_notes = BackboneConfig(), []
    if name:
        name, data, network, note = resolved(request, data, name)
        backbone_notes = [note]
    if network.frozen:
        kept = begun is not None and request.precision == "auto"
        chosen = begun.backbone.precision if begun and kept else resolve_precision(request.precision, device)
        network = dataclasses.replace(network, precision=chosen)
    check_flags(vars(data), DataConfig)
    loaded = Loaded() if loaded is None else loaded
    if data not in loaded.data:
        limit = CPU_IMAGE_SIZE if device.type == "cpu" and not table else None
        loaded.data[data] = load_data(data, download=request.download, progress=progress, size_limit=limit)
    dataset = loaded.data[data]
    if not table and not name:  # a person's own images: write down the size that was chosen
        data = dataclasses.replace(data, image_size=dataset.preprocess.image_size)
    facts = facts_of(dataset, device, network.frozen)
    recipe = recipe_of(dataclasses.replace(request, model=name or request.model), facts, network.trained)
    check_stages(recipe.stages)
    notes = [*backbone_notes, *dataset.notes, *recipe.notes]
    notes.sort(key=lambda line: not line.startswith("method "))  # which method, and why, comes first
    steps = sum(stage.epochs * -(-facts.images // stage.batch_size) for stage in recipe.stages)
    compiled = request.compile
    if begun is not None and request.precision == "auto":
        precision = begun.precision
        loaded.faster.setdefault(recipe.model, (precision, f"{precision}: as the rows that were begun before"))
    elif request.precision == "auto" and facts.features:
        precision = "float32"
    elif request.precision == "auto" and device.type == "cpu" and steps < MEASURED_RUN_STEPS:
        precision = "float32"
        notes.append(f"float32, eager: {steps} steps are too few to tune for")
    elif request.precision == "auto":
        if recipe.model not in loaded.faster:
            loaded.faster[recipe.model] = _faster(
                recipe, dataset, device, quick=steps < LONG_RUN_STEPS, network=network
            )
        precision, reason = loaded.faster[recipe.model]
        notes.append(reason)
    else:
        precision = resolve_precision(request.precision, device)
    if compiled is None and begun is not None:
        compiled = begun.compile
    elif compiled is None:
        compiled = device.type == "cpu" and steps >= LONG_RUN_STEPS and not facts.features and can_compile()
        if compiled:
            notes.append(f"torch.compile: {steps} steps repay the compiler's start; --no-compile to do without")
    elif compiled and not can_compile():
        raise InputError("--compile: torch.compile finds no C++ compiler here; install g++ or use --no-compile")
    eval_every = request.eval_every
    if facts.features and eval_every == 1:
        eval_every = max(1, recipe.stages[0].epochs // 20)  # an epoch takes milliseconds
    config = RunConfig(
        method=recipe.method,
        model=recipe.model,
        seed=request.seed or 0,
        data=data,
        stages=recipe.stages,
        device=str(device),
        precision=precision,
        compile=compiled,
        backbone=network,
        threads=torch.get_num_threads(),
        eval_every=eval_every,
        keep_every=request.keep_every,
        processes=request.processes,
        sync_sam=request.sync_sam and request.processes > 1,  # one process is in step with itself
        sync_batchnorm=request.sync_batchnorm and request.processes > 1,
    )
    if request.start is not None:
        config, said = continue_from(config, request.start, folder or Path())
        notes += said
    rehearse(config, dataset)
    return config, dataset, notes


def _faster(
    recipe: Recipe, dataset: Dataset, device: torch.device, quick: bool, network: BackboneConfig
) -> tuple[str, str]:
    """The number format to train in and the reason; measured where both are native.

    A ``quick`` run of steps that are fast anyway stays in float32, whose choice does not hang on a measurement.
    """
    if not has_fast_bf16(device):
        return "float32", f"float32: this {device.type} has no fast bf16"
    names = ("float32", "bf16")
    stage = next((stage for stage in recipe.stages if not stage.head_fit), recipe.stages[0])
    times = seconds_per_step(stage, dataset, recipe.model, names, device, **network.options)
    if len(times) < len(names):
        return "float32", "float32: too little data to measure bf16 on"
    if quick and times["float32"] < SLOW_STEP:
        return "float32", "float32: steps are fast here and the run is short"
    faster = min(times, key=lambda name: times[name])
    measured = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in times.items())
    return faster, f"{faster}: a training step took {measured} here (eager); --precision to choose"


def can_compile() -> bool:
    """Whether torch.compile has the C++ compiler that it needs on a CPU."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def plan_from_file(
    path: Path, request: Request, progress: Callable[..., None] | None = None
) -> tuple[RunConfig, Dataset, list[str]]:
    """A run exactly as a ``config.toml`` says; only the seed, the data's root and what moves no weight come from
    the request.

    Raises:
        InputError: the file cannot be read, or flags that contradict it were given.
    """
    free = ("data", "root", "download", "seed", "eval_every", "keep_every", "processes")
    decided = [each for each in dataclasses.fields(Request) if each.name not in free]
    given = [flag(each.name) for each in decided if getattr(request, each.name) != each.default]
    if given:
        raise InputError(f"--recipe {path} decides everything: leave out {', '.join(given)}, or edit the file")
    config = from_toml(read_text(path, "give --recipe a run's config.toml"), f"--recipe {path}")
    name = _identified(request)
    if name != config.data.name and {name, config.data.name} & {*dataset_names()}:
        raise InputError(f"--recipe {path} is for data {config.data.name!r}, the command says {request.data!r}")
    resolve_device(config.device)
    data = dataclasses.replace(config.data, name=name, root=request.root or config.data.root)
    config = dataclasses.replace(
        config,
        seed=config.seed if request.seed is None else request.seed,
        data=data,
        eval_every=request.eval_every,
        keep_every=request.keep_every,
    )
    dataset = load_data(data, download=request.download, progress=progress)
    rehearse(config, dataset)
    return config, dataset, [f"recipe: {path}"]
