"""The configuration of a run: strict TOML in and out, and the differences between two."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from saddlescape.data.sources.registry import dataset_names
from saddlescape.disk import beside, expanded, read_text, write_text
from saddlescape.errors import InputError
from saddlescape.records.config import RunConfig, read_config
from saddlescape.records.files import CONFIG
from saddlescape.training.epoch import without_usual_normalization

# What may change when a run resumes: it does not move the weights.
FREE = ("eval_every", "keep_every", "threads", "data.root", "start", "backbone.weights")


def to_toml(config: RunConfig) -> str:
    return tomli_w.dumps(msgspec.to_builtins(config))


def from_toml(text: str, where: str = "config") -> RunConfig:
    """Read a configuration, strictly: unknown keys, wrong types and values are errors that name the key.

    Raises:
        InputError: not TOML, a wrong type or value, an unknown key, or another format version.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: {error}") from error
    config = read_config(raw, where, strict=True)
    return replace(config, stages=tuple(map(without_usual_normalization, config.stages)))


def save(config: RunConfig, folder: Path) -> None:
    write_text(folder / CONFIG, to_toml(config))


def load(folder: Path) -> RunConfig:
    """The configuration of a run folder. Raises InputError where it is missing."""
    path = folder / CONFIG
    if not path.is_file():
        why = f"it has no {CONFIG}" if folder.exists() else "nothing is there"
        repair = beside(folder) or "; give the --out of saddlescape train"
        raise InputError(f"{folder} is not a run folder: {why}{repair}")
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
