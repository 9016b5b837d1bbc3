"""From a name or a path to what reads it. A new data set is one file here and one line in ``saddlescape.names``."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from saddlescape.data.places import data_roots
from saddlescape.data.reader import looks_like_image
from saddlescape.data.sources.classes import look_alikes
from saddlescape.data.sources.features import SUFFIXES as FEATURES
from saddlescape.data.sources.features import load_features, npy_files
from saddlescape.data.sources.folder import load_folder
from saddlescape.data.sources.found import Found, SourceRequest
from saddlescape.data.sources.listfile import load_list
from saddlescape.data.sources.parquet import load_parquet, shards_under
from saddlescape.disk import beside, expanded
from saddlescape.errors import InputError
from saddlescape.names import SOURCES, TAKES

Reader = Callable[[SourceRequest], Found]

_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".rar", ".7z", ".bz2", ".xz"})
_OTHER = frozenset(
    {".mat", ".h5", ".hdf5", ".pkl", ".pickle", ".pt", ".pth", ".json", ".jsonl"}
    | {".arrow", ".feather", ".tfrecord", ".xlsx", ".xls", ".db", ".sqlite", ".lmdb", ".pdf", ".toml", ".yaml", ".yml"}
)


def dataset_names() -> dict[str, str]:
    """Known names, each with one line about it."""
    return {name: line for name, (_, line) in SOURCES.items()}


def _loader(name: str) -> Reader:
    module, _, function = SOURCES[name][0].partition(":")
    loader: Reader = getattr(importlib.import_module(f"saddlescape.data.sources.{module}"), function)
    return loader


def find(request: SourceRequest) -> Found:
    """Read what ``request.name`` names: a known data set, else a folder, a list or parquet. Raises ``InputError``.

    A known name means the data set, also where the current folder has an entry of that name (a note says so); a path
    that begins with "./" means that entry.
    """
    name = request.name
    if name in SOURCES:
        return _known(request)
    found = _at_path(request)
    # Recipes and groups go by the name of the data: own images in a folder called "cifar10" are not CIFAR-10.
    called = f"./{found.name}" if found.name in SOURCES else found.name
    return replace(found, name=called, notes=[*found.notes, *look_alikes(found.classes)])


def _known(request: SourceRequest) -> Found:
    name = request.name
    own = Path(name).exists() and Path.cwd() not in [root.resolve() for root in data_roots(request.root)]
    hint = f"{name} here means the data set of that name; for your own {name} in this folder give ./{name}"
    try:
        found = _loader(name)(request)
    except InputError as error:
        raise (InputError(f"{error}; {hint}") if own else error) from error
    return replace(found, notes=[*found.notes, hint]) if own else found


def name_of(data: str | Path) -> str:
    """What ``SourceRequest.name`` is for this; a ``Path`` is a path, also where its text is a known name."""
    return f"./{data}" if isinstance(data, Path) and str(data) in SOURCES else str(data)


def _at_path(request: SourceRequest) -> Found:
    name = request.name
    if re.match(r"[a-z][a-z0-9+.-]+://", name, flags=re.IGNORECASE):
        raise InputError(f"{name}: an address; data is read from disk: fetch it first, then give {TAKES}")
    path = locate(name, request.root)
    if path is None:
        raise InputError(_unknown(name))
    request = replace(request, where=path)
    base = path if path.is_dir() else request.root or path.parent
    return replace(_read(path, request), base=base)


def locate(name: str, root: Path | None) -> Path | None:
    """Where the data called ``name`` lie: there, or below ``root``, where a folder may have been moved."""
    path = expanded(name)
    places = [path] if root is None else [path, root / path, root / path.name]
    return next((place for place in places if place.exists()), None)


def _read(path: Path, request: SourceRequest) -> Found:
    if path.suffix.lower() in FEATURES or (path.is_dir() and npy_files(path)):
        return load_features(request)
    if path.is_dir():
        return load_parquet(request) if shards_under(path) else load_folder(request)
    if path.suffix.lower() == ".parquet":
        return load_parquet(request)
    if path.suffix.lower() in _ARCHIVES:
        raise InputError(f"{path}: an archive; unpack it and give the folder")
    if not path.is_file():
        raise InputError(f"{path}: neither a folder nor a file")
    if path.suffix.lower() in _OTHER:
        raise InputError(f"{path}: not images or a list of them; give {TAKES}")
    try:
        with path.open("rb") as file:
            first = file.read(16)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if looks_like_image(first):
        raise InputError(f"{path}: a single image; give {TAKES}")
    return load_parquet(request) if first[:4] == b"PAR1" else load_list(request)


def _unknown(name: str) -> str:
    looks_like_path = any(sign in name for sign in "/\\") or Path(name).suffix != ""
    if looks_like_path:
        return f"{name}: no such file or folder{beside(name) or '; give a path as this system writes it'}"
    close = difflib.get_close_matches(name.lower(), SOURCES, n=1)
    hint = f": did you mean {close[0]!r}?" if close else (beside(name) or ".")
    return (
        f"unknown data set {name!r}{hint} Known are {', '.join(SOURCES)}, or give a path to a folder, list or parquet"
    )
