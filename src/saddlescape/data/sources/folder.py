"""A folder per class, with ``train/`` and ``test/`` or ``val/`` above, or the class folders alone."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np

from saddlescape.data.reader import looks_like_image
from saddlescape.data.sources.pictures import FilePictures, Found, Request
from saddlescape.errors import InputError

SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test", "val": "val", "valid": "val",
               "validation": "val", "dev": "val"}  # fmt: skip
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".heic", ".heif"}
    | {".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico"}
)
# Left behind by file managers, notebooks and network drives.
_STRAY_NAMES = frozenset(
    {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found", "__pycache__"}
)
LAYOUT = (
    "expected one folder per class, at least two, with images inside: FOLDER/cat/1.jpg, FOLDER/dog/2.jpg, "
    "or the same under FOLDER/train/ and FOLDER/test/"
)


def load_folder(request: Request) -> Found:
    """Classes are the sorted names of the training folders (Unicode NFC); the other splits are mapped **by name**.

    A class that a test or validation split lacks keeps its label and is simply not measured; a class there that
    training does not know is an ``InputError``. Images lie at any depth below their class folder, in the order of their
    paths. What counts as an image: a known ending, or else a content that begins like an image. Stray files
    (``.DS_Store``, ``Thumbs.db``, ``.ipynb_checkpoints``, text ...) are ignored and listed. With ``val/`` but no
    ``test/``, ``val/`` is the test set.
    """
    root = request.where or Path()
    folders = _subfolders(root)
    parts: dict[str, Path] = {}
    for folder in folders:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split:
            if split in parts:
                raise InputError(f"{root}: {parts[split].name}/ and {folder.name}/ both look like the {split} split")
            parts[split] = folder
    notes: list[str] = []
    ignored: list[str] = []
    if "train" in parts:
        beside = [folder.name for folder in folders if folder not in parts.values()]
        if beside:
            notes.append(f"folders beside the splits, not used: {', '.join(beside)}")
    elif parts and len(parts) == len(folders):
        raise InputError(f"{root}: has {', '.join(p.name + '/' for p in parts.values())} but no train/ folder")
    else:
        parts = {"train": root}
    class_folders = _class_folders(parts["train"])
    classes = sorted(class_folders)
    _require_classes(root, parts["train"], classes)
    numbers = {name: label for label, name in enumerate(classes)}
    splits: dict[str, FilePictures] = {}
    for split, folder in parts.items():
        splits[split] = _pictures(folder, numbers, ignored)
    if all(len(pictures) == 0 for pictures in splits.values()):
        raise InputError(f"{root}: no images in {len(classes)} class folders; {LAYOUT}")
    test = splits.get("test", splits.get("val"))
    if test is not None and len(test) == 0:
        raise InputError(f"{root}: no images in the {parts.get('test', parts.get('val', root)).name}/ folder")
    if "val" in splits and "test" not in splits:
        notes.append(f"{parts['val'].name}/ serves as the test set")
    if ignored:
        notes.append(f"{len(ignored)} stray files ignored, e.g. {ignored[0]}")
    return Found(
        name=root.resolve().name,
        kind="folder per class",
        classes=classes,
        train=splits["train"],
        test=test,
        val=splits["val"] if "test" in splits and len(splits.get("val", ())) else None,
        notes=notes,
        ignored=ignored,
    )


def _subfolders(root: Path) -> list[Path]:
    try:
        return sorted((p for p in root.iterdir() if p.is_dir() and not _is_stray(p.name)), key=lambda p: p.name)
    except OSError as error:
        raise InputError(f"{root}: cannot be listed: {error.strerror}") from error


def _is_stray(name: str) -> bool:
    return name.startswith(".") or name.lower() in _STRAY_NAMES


def _class_folders(folder: Path) -> dict[str, Path]:
    # One system writes "é" as one character, another as two: the same class all the same.
    found: dict[str, Path] = {}
    for path in _subfolders(folder):
        name = unicodedata.normalize("NFC", path.name)
        if name in found:
            raise InputError(f"{folder}: two folders are called {name!r} (written with different Unicode): merge them")
        found[name] = path
    return found


def _require_classes(root: Path, train: Path, classes: list[str]) -> None:
    if len(classes) >= 2:
        return
    if not classes:
        raise InputError(f"{train}: no class folders here; {LAYOUT}")
    inner = train / classes[0]
    if inner.is_dir() and len(_subfolders(inner)) >= 2:
        raise InputError(f"{train}: its only folder is {classes[0]!r}, which has folders inside: did you mean {inner}?")
    raise InputError(f"{train}: only one class folder, {classes[0]!r}; {LAYOUT}")


def _pictures(folder: Path, numbers: dict[str, int], ignored: list[str]) -> FilePictures:
    paths: list[Path] = []
    labels: list[int] = []
    places = _class_folders(folder)
    for name, place in places.items():
        images = _images_below(place, ignored)
        if name not in numbers:
            if not images:
                continue
            raise InputError(
                f"{place}: class {name!r} is not among the training classes ({', '.join(list(numbers)[:8])}"
                f"{', ...' if len(numbers) > 8 else ''}): rename the folder or add it to training"
            )
        paths += images
        labels += [numbers[name]] * len(images)
    for stray in sorted(folder.iterdir()):
        if stray.is_file() and not _is_stray(stray.name):
            ignored.append(str(stray))
    order = np.argsort(np.asarray(labels, dtype=np.int64), kind="stable")
    return FilePictures([paths[i] for i in order], np.asarray(labels, dtype=np.int64)[order])


def _images_below(place: Path, ignored: list[str]) -> list[Path]:
    """Images at any depth, by path; links are followed, but no folder is entered twice."""
    found: list[Path] = []
    seen: set[str] = set()
    for here, below, files in os.walk(place, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not _is_stray(name))
        for name in sorted(files):
            path = Path(here) / name
            if _is_stray(name):
                ignored.append(str(path))
            elif _is_image(path):
                found.append(path)
            else:
                ignored.append(str(path))
    return sorted(found)


def _is_image(path: Path) -> bool:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return looks_like_image(file.read(16))
    except OSError:
        return False  # an unreadable file without an image's ending: stray
