"""Features of a person's own (embeddings, measurements, text vectors) as data: arrays in a file, in memory, in parquet.

A vector of d numbers is treated as an image of 1 x 1 with d channels, so that everything that takes images takes them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saddlescape.data.preprocess import Preprocess
from saddlescape.data.sources.classes import read_class_names
from saddlescape.data.sources.found import Found, SourceRequest
from saddlescape.data.types import ArraySplit
from saddlescape.errors import InputError

SUFFIXES = (".npz", ".npy", ".safetensors")
EXPECTED = "arrays features [N, d] and labels [N]; test_features and test_labels, val_..., class_names where there are"
_SPLITS = {"train": ("", "train_"), "test": ("test_",), "val": ("val_",)}


def load_features(request: SourceRequest) -> Found:
    """An ``.npz`` or ``.safetensors`` file, or a folder of ``.npy`` files, with the arrays of :data:`EXPECTED`.

    ``train_features`` and ``train_labels`` are other names of the first two. Labels are integers 0..C-1, or names.
    Nothing in a file is executed (no pickled objects). Raises ``InputError`` with the file and the array.
    """
    where = request.where or Path()
    names = read_class_names(where if where.is_dir() else where.parent)
    return found_in(_arrays(where), str(where), names)


def npy_files(folder: Path) -> bool:
    """Whether ``folder`` is one of features: ``features.npy`` or ``train_features.npy`` is in it."""
    return any((folder / f"{name}features.npy").is_file() for name in _SPLITS["train"])


def found_in(arrays: Mapping[str, Any], where: str = "arrays", names: Sequence[str] | None = None) -> Found:
    """The data in ``arrays`` (NumPy arrays, tensors or lists; see :data:`EXPECTED`); ``where`` is for messages.

    Raises:
        InputError: an array is missing, has another shape, or holds what is not a number or not a label.
    """
    known = {prefix + kind for prefixes in _SPLITS.values() for prefix in prefixes for kind in ("features", "labels")}
    if strangers := sorted(set(arrays) - known - {"class_names"}):
        raise InputError(f"{where}: unknown array {strangers[0]!r}; expected {EXPECTED}")
    given: dict[str, tuple[NDArray[np.float32], NDArray[Any]]] = {}
    for split, prefixes in _SPLITS.items():
        there = [prefix for prefix in prefixes if f"{prefix}features" in arrays]
        if len(there) > 1:
            raise InputError(f"{where}: both features and train_features; keep one of them")
        for prefix in there:
            given[split] = _pair(arrays, prefix, where)
    if "train" not in given:
        raise InputError(f"{where}: no array 'features'; expected {EXPECTED}")
    width = given["train"][0].shape[1]
    for split, (features, _) in given.items():
        if features.shape[1] != width:
            raise InputError(f"{where}: {split} features have {features.shape[1]} columns, training ones {width}")
    if "class_names" in arrays:
        names = [str(name) for name in np.asarray(arrays["class_names"]).ravel()]
    train = given["train"][1]
    words = train.dtype.kind == "U"
    if words:
        names = names or sorted(set(train.tolist()))
    elif names is None:
        if train.max() >= len(train):
            raise InputError(f"{where}: label {train.max()}, but {len(train)} rows: labels must be 0..C-1 without gaps")
        names = [str(label) for label in range(int(train.max()) + 1)]
    if len(names) < 2:
        raise InputError(f"{where}: a single class ({names[0]}); training needs at least two")
    splits = {split: _split(*pair, split, names, words, where) for split, pair in given.items()}
    return Found(
        name=Path(where).stem,
        kind=f"features, {width} numbers a row",
        classes=list(names),
        train=splits["train"],
        test=splits.get("test") or splits.get("val"),
        val=splits.get("val") if "test" in splits else None,
        preprocess=Preprocess(image_size=1, channels=width, mean=(), std=(), features=True),
        augment="none",
    )


def read_rows(path: Path) -> torch.Tensor:
    """The features [N, d, 1, 1] of a file to be classified: its only array, ``test_features`` or ``features``.

    Raises:
        InputError: the file cannot be read, or none of these is in it.
    """
    arrays = {"features": _npy(path)} if path.suffix.lower() == ".npy" else _arrays(path)
    name = next((n for n in ("test_features", "features", *arrays) if n in arrays and n != "labels"), None)
    if name is None:
        raise InputError(f"{path}: no array of features in it")
    return _as_images(_matrix(arrays[name], f"{path}: {name}"))


def _arrays(where: Path) -> dict[str, Any]:
    if where.is_dir():
        return {path.stem: _npy(path) for path in sorted(where.glob("*.npy"))}
    suffix = where.suffix.lower()
    if suffix == ".npy":
        raise InputError(
            f"{where}: a single array; put features.npy and labels.npy into one folder and give the folder, or save "
            "both as an .npz"
        )
    try:
        if suffix == ".safetensors":
            from safetensors.numpy import load_file

            return dict(load_file(where))
        with np.load(where, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise InputError(f"{where}: cannot be read as arrays ({_first_line(error)}); save it again") from error
    except Exception as error:  # safetensors has an exception class of its own
        if type(error).__name__ != "SafetensorError":
            raise
        raise InputError(f"{where}: damaged ({_first_line(error)}); save it again") from error


def _npy(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as an array ({_first_line(error)}); save it again") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _pair(arrays: Mapping[str, Any], prefix: str, where: str) -> tuple[NDArray[np.float32], NDArray[Any]]:
    features = _matrix(arrays[f"{prefix}features"], f"{where}: {prefix}features")
    if f"{prefix}labels" not in arrays:
        raise InputError(f"{where}: {prefix}features without {prefix}labels; expected {EXPECTED}")
    what = f"{where}: {prefix}labels"
    labels = np.asarray(arrays[f"{prefix}labels"])
    if labels.shape != (len(features),):
        raise InputError(f"{what} have the shape {list(labels.shape)}; {len(features)} rows need [{len(features)}]")
    if labels.dtype.kind in "OSb":
        labels = np.array([label.decode() if isinstance(label, bytes) else str(label) for label in labels.tolist()])
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind == "U":
        return features, labels
    if labels.dtype.kind not in "iu":
        raise InputError(f"{what} are {labels.dtype}; expected integers 0..C-1 or names")
    if (labels < 0).any():
        row = int(np.flatnonzero(labels < 0)[0])
        raise InputError(f"{what}: row {row} has {labels[row]}; labels count from 0")
    return features, labels


def _matrix(values: Any, what: str) -> NDArray[np.float32]:
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{what} are {array.dtype}; expected numbers")
    if array.ndim != 2 or not array.size:
        raise InputError(f"{what} have the shape {list(array.shape)}; expected [rows, columns], neither of them 0")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=np.float32)
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise InputError(
            f"{what}: {int(bad.sum())} rows hold NaN or infinity (or more than float32 can), first row "
            f"{int(np.flatnonzero(bad)[0])}: remove or fill them"
        )
    return array


def _as_images(features: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(features)[:, :, None, None]


def _split(
    features: NDArray[np.float32], labels: NDArray[Any], split: str, names: Sequence[str], words: bool, where: str
) -> ArraySplit:
    if words != (labels.dtype.kind == "U"):
        raise InputError(f"{where}: {split} labels are {'integers' if words else 'names'}, unlike the training ones")
    numbers = {name: label for label, name in enumerate(names)}
    codes = np.array([numbers.get(label, -1) for label in labels.tolist()]) if words else labels.astype(np.int64)
    outside = np.flatnonzero((codes < 0) | (codes >= len(names)))
    if len(outside):
        row = int(outside[0])
        raise InputError(f"{where}: {split} row {row} has the label {labels[row]!s}, none of the {len(names)} classes")
    rows = [f"{split} row {row}" for row in range(len(codes))]
    return ArraySplit(_as_images(features), torch.from_numpy(codes.astype(np.int64)), rows)
