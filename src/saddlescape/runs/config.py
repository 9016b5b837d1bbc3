"""The configuration of a run: frozen dataclasses, strict TOML in and out, and the differences between two."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from saddlescape.data.sources.registry import dataset_names
from saddlescape.disk import expanded, read_text, write_text
from saddlescape.errors import InputError
from saddlescape.records.files import CONFIG
from saddlescape.training.epoch import without_usual_normalization
from saddlescape.training.stage import Stage

VERSION = 1


@dataclass(frozen=True)
class DataConfig:
    """Which images: arguments of ``saddlescape.data.load``. 0 and "" mean "not given"."""

    _: KW_ONLY
    name: str
    root: str = ""
    imbalance: float = 0.0
    profile: str = "exp"
    draw_seed: int = 0
    val: float = 0.0
    image_size: int = 0
    bad_images: str = "error"
    split: str = "position"  # how a person's own images are split; run folders without this field: by position


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the result of a run, and nothing else."""

    _: KW_ONLY
    method: str
    model: str
    seed: int
    data: DataConfig
    stages: tuple[Stage, ...]
    device: str = "cpu"
    precision: str = "float32"
    compile: bool = False
    threads: int = 0
    pretrained: bool = False
    eval_every: int = 1
    keep_every: int = 0
    start: str = ""  # another run's folder, seen from this one's, whose first stage this run goes on from
    start_hash: str = ""  # of that stage's weights
    processes: int = 1  # that share every batch
    sync_sam: bool = False  # SAM climbs the gradient of the whole batch, not each process its own
    sync_batchnorm: bool = False  # BatchNorm sees the whole batch, not each process its part
    version: int = VERSION


# What may change between two parts of one run: it does not move the weights.
FREE = ("eval_every", "keep_every", "threads", "data.root", "start")


def to_toml(config: RunConfig) -> str:
    return tomli_w.dumps(msgspec.to_builtins(config))


def from_toml(text: str, where: str = "config") -> RunConfig:
    """Read a configuration, strictly: unknown keys and wrong types are errors that name the key.

    Raises:
        InputError: not TOML, a wrong type, an unknown key, or another format version.
    """
    try:
        raw = tomllib.loads(text)
        found = msgspec.convert(raw, RunConfig)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InputError(f"{where}: {error}") from error
    # msgspec sets no field that the file lacks; an older file must equal a new one that has the default.
    stages = tuple(dataclasses.replace(stage) for stage in found.stages)
    config = dataclasses.replace(found, data=dataclasses.replace(found.data), stages=stages)
    unknown = _unknown(raw, msgspec.to_builtins(config))
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]!r}")
    if config.version != VERSION:
        raise InputError(f"{where}: written by format {config.version}, this version reads {VERSION}")
    return replace(config, stages=tuple(map(without_usual_normalization, config.stages)))


def _unknown(raw: Any, known: Any, prefix: str = "") -> list[str]:
    """Keys of ``raw`` that a round trip lost; msgspec ignores unknown keys of dataclasses."""
    if isinstance(raw, dict) and isinstance(known, dict):
        here = [prefix + key for key in raw if key not in known]
        return here + [u for key in raw if key in known for u in _unknown(raw[key], known[key], f"{prefix}{key}.")]
    if isinstance(raw, list) and isinstance(known, list | tuple):
        return [u for i, (a, b) in enumerate(zip(raw, known, strict=True)) for u in _unknown(a, b, f"{prefix}{i}.")]
    return []


def save(config: RunConfig, folder: Path) -> None:
    write_text(folder / CONFIG, to_toml(config))


def load(folder: Path) -> RunConfig:
    """The configuration of a run folder. Raises InputError where there is none."""
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder} is not a run folder: it has no {CONFIG}")
    return from_toml(read_text(path), str(path))


def begun(folder: Path) -> RunConfig | None:
    """The configuration of a folder that may be a run already, or None."""
    return load(folder) if (folder / CONFIG).is_file() else None


def differences(old: RunConfig, new: RunConfig) -> tuple[list[str], list[str]]:
    """(refused, allowed) differences, each as ``key: old -> new``.

    The path of a person's own data may differ: whether the images are the same is decided by their content.
    """
    flat_old, flat_new = _flat(msgspec.to_builtins(old)), _flat(msgspec.to_builtins(new))
    refused: list[str] = []
    allowed: list[str] = []
    for key in sorted({*flat_old, *flat_new}):
        if flat_old.get(key) != flat_new.get(key):
            if key == "data.name" and _same_place(old.data.name, new.data.name):
                continue
            line = f"{key}: {flat_old.get(key, '-')} -> {flat_new.get(key, '-')}"
            free = key in FREE or (key == "data.name" and not {old.data.name, new.data.name} & {*dataset_names()})
            (allowed if free else refused).append(line)
    return refused, allowed


def _same_place(one: str, two: str) -> bool:
    """Whether two paths, however they are written, are of one file or folder."""
    if {one, two} & {*dataset_names()}:
        return False
    return expanded(one).resolve() == expanded(two).resolve()


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key in value for k, v in _flat(value[key], f"{prefix}{key}.").items()}
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        return {k: v for i, item in enumerate(value) for k, v in _flat(item, f"{prefix}{i}.").items()}
    return {prefix.rstrip("."): value}


def replace(config: RunConfig, **changes: Any) -> RunConfig:
    return dataclasses.replace(config, **changes)
