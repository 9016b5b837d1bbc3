"""Checkpoints: a folder per saved moment, written whole or not at all, checked when read.

``checkpoint/s0-e00010-b000000/`` is stage 0 after 10 whole epochs and 0 batches of the next. It holds
``model.safetensors`` (weights and buffers), ``state.pt`` (optimiser, random generators, running sums; read with
``weights_only=True``) and ``meta.json`` (the cursor, what the caller adds, and the SHA-256 of both files). A folder is
written under a temporary name and renamed, so a kill at any moment leaves the one before it intact.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from saddlescape.disk import Sink, created, reason
from saddlescape.errors import InputError

VERSION = 1
# What unpickling damaged bytes can end in, besides its own error.
DAMAGE = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError)


@dataclass(frozen=True, order=True)
class Cursor:
    """How far a run is: ``stage`` index, whole ``epoch`` s done in it, ``batch`` es done in the next epoch."""

    stage: int = 0
    epoch: int = 0
    batch: int = 0

    @property
    def folder(self) -> str:
        return f"s{self.stage}-e{self.epoch:05d}-b{self.batch:06d}"

    @classmethod
    def parse(cls, folder: str) -> Cursor | None:
        parts = folder.split("-")
        if [part[:1] for part in parts] != ["s", "e", "b"] or not all(part[1:].isdigit() for part in parts):
            return None
        return cls(*(int(part[1:]) for part in parts))


@dataclass(frozen=True)
class Checkpoint:
    cursor: Cursor
    model: dict[str, Tensor]
    state: dict[str, Any]
    meta: dict[str, Any]
    path: Path

    def fill(self, model: nn.Module) -> None:
        """Give ``model`` these weights. Raises InputError where they do not fit."""
        try:
            model.load_state_dict(self.model)
        except RuntimeError as error:
            detail = str(error).splitlines()[-1].strip()
            raise InputError(f"{self.path}: does not fit the network ({detail})") from error


def save_weights(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors (tied or not, in any memory format) as safetensors; tied names are kept as aliases."""
    seen: dict[tuple[object, ...], str] = {}
    aliases: dict[str, str] = {}
    kept: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.storage_offset())
        if tensor.numel() and key in seen:
            aliases[name] = seen[key]
            continue
        seen[key] = name
        kept[name] = tensor.detach().cpu().contiguous().clone()
    with created(path):
        save_file(kept, path, metadata={**(metadata or {}), "aliases": json.dumps(aliases)})


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read what :func:`save_weights` wrote, aliases restored.

    Raises:
        InputError: the file is missing, truncated or not safetensors.
    """
    try:
        weights = load_file(path)
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        aliases = json.loads(header.get("__metadata__", {}).get("aliases", "{}"))
        return weights | {name: weights[target] for name, target in aliases.items()}
    except (OSError, SafetensorError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: cannot read the weights ({reason(error)})") from error


def read_state(path: Path) -> dict[str, Any]:
    """``torch.load(weights_only=True)`` with its several errors turned into one line; executes nothing."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, pickle.UnpicklingError, *DAMAGE) as error:
        # torch's own words advise to load the file unsafely: they are not shown.
        told = f" ({reason(error)})" if isinstance(error, OSError) else ""
        raise InputError(f"{path}: damaged or not a checkpoint{told}") from error
    if not isinstance(state, dict):
        raise InputError(f"{path}: not a checkpoint of saddlescape")
    return state


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(meta: Mapping[str, Any]) -> str:
    """SHA-256 of a ``meta.json`` without its own entry under "sha256", as compact JSON with sorted keys."""
    plain = json.loads(json.dumps(meta))
    plain["sha256"].pop("meta.json", None)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


class CheckpointFolder:
    """The ``checkpoint/`` folder of a run: save, find the newest that is whole, prune.

    ``keep_every``: besides the newest two, keep the end of every so many epochs (and of the first) of each stage, for
    the course of the curvature over training; 0 keeps none of them.
    """

    def __init__(self, path: Path, keep_every: int = 0) -> None:
        self.path = path
        self.keep_every = keep_every

    def cursors(self) -> list[Cursor]:
        """Every saved moment, oldest first."""
        if not self.path.is_dir():
            return []
        found = (Cursor.parse(entry.name) for entry in self.path.iterdir() if entry.is_dir())
        return sorted(cursor for cursor in found if cursor is not None)

    def save(self, cursor: Cursor, model: nn.Module, state: Mapping[str, Any], meta: Mapping[str, Any]) -> Path:
        """Write one checkpoint; the previous one is untouched until this one is whole.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        target = self.path / cursor.folder
        temporary = self.path / f".writing-{os.getpid()}"
        try:
            for left in self.path.glob(".writing-*"):  # by processes that were killed: a run folder has one writer
                shutil.rmtree(left, ignore_errors=True)
            temporary.mkdir(parents=True)
            save_weights(temporary / "model.safetensors", model.state_dict())
            sink = Sink(temporary / "state.pt")
            try:
                torch.save(dict(state), sink)  # type: ignore[arg-type]
            finally:
                sink.close()
            digests = {name: _sha256(temporary / name) for name in ("model.safetensors", "state.pt")}
            described = {"version": VERSION, "stage": cursor.stage, "epoch": cursor.epoch, "batch": cursor.batch}
            digests["meta.json"] = _digest({**described, **meta, "sha256": digests})
            text = json.dumps({**described, **meta, "sha256": digests}, indent=1)
            (temporary / "meta.json").write_text(text, encoding="utf-8")
            for name in digests:
                _sync(temporary / name)
            if target.exists():  # the same moment saved again, e.g. interrupted twice
                shutil.rmtree(target)
            temporary.rename(target)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise InputError(
                f"{target}: could not write the checkpoint ({reason(error)}); the one before it is kept: "
                "make room and run the same command again"
            ) from error
        self._prune()
        return target

    def _prune(self) -> None:
        cursors = self.cursors()
        for cursor in cursors[:-2]:
            regular = (
                self.keep_every and cursor.batch == 0 and (cursor.epoch % self.keep_every == 0 or cursor.epoch == 1)
            )
            stage_end = any(other.stage > cursor.stage for other in cursors) and cursor == max(
                other for other in cursors if other.stage == cursor.stage
            )
            if not regular and not stage_end:
                shutil.rmtree(self.path / cursor.folder, ignore_errors=True)

    def load(self, cursor: Cursor) -> Checkpoint:
        """Read one checkpoint and check it.

        Raises:
            InputError: a file is missing or damaged; the message names it.
        """
        folder = self.path / cursor.folder
        meta_path = folder / "meta.json"
        try:
            meta = json.loads(meta_path.read_text(encoding="utf-8"))
            digests = dict(meta["sha256"])
            expected = digests.get("meta.json", "")  # the first checkpoints had none
            damaged = bool(expected) and expected != _digest(meta)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{meta_path}: damaged or missing ({type(error).__name__})") from error
        if damaged:
            raise InputError(f"{meta_path}: damaged (its checksum differs)")
        if meta.get("version") != VERSION:
            raise InputError(f"{meta_path}: written by format {meta.get('version')}, this version reads {VERSION}")
        for name in ("model.safetensors", "state.pt"):
            path = folder / name
            if not path.is_file() or _sha256(path) != digests.get(name):
                raise InputError(f"{path}: missing or damaged (its checksum differs)")
        return Checkpoint(
            cursor, load_weights(folder / "model.safetensors"), read_state(folder / "state.pt"), meta, folder
        )

    def newest(self, damaged: list[str] | None = None) -> Checkpoint | None:
        """The newest checkpoint that is whole; what had to be passed over is appended to ``damaged``.

        Raises:
            InputError: checkpoints are there but every one of them is damaged.
        """
        problems: list[str] = []
        for cursor in reversed(self.cursors()):
            try:
                found = self.load(cursor)
            except InputError as error:
                problems.append(str(error))
                continue
            if damaged is not None:
                damaged.extend(problems)
            return found
        if problems:
            raise InputError(f"no checkpoint can be read: {problems[0]}; delete {self.path} to start again")
        return None
