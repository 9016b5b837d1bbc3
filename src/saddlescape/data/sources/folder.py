"""A folder per class, with ``train/`` and ``test/`` or ``val/`` above, or the class folders alone."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import torch

from saddlescape.data.reader import looks_like_image
from saddlescape.data.sources.classes import plain_name
from saddlescape.data.sources.found import Found, SourceRequest
from saddlescape.data.types import FileSplit
from saddlescape.disk import is_output
from saddlescape.errors import InputError, counted

SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test", "val": "val", "valid": "val",
               "validation": "val", "dev": "val"}  # fmt: skip
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".heic", ".heif"}
    | {".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico"}
)
# Left behind by file managers, notebooks and network drives.
_STRAY_NAMES = frozenset(
    {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found", "__pycache__"}
    | {".ipynb_checkpoints", ".git", ".svn", ".hg", ".cache", ".thumbnails", ".trash", ".trashes", ".appledouble"}
    | {".venv", ".idea", ".vscode", ".spotlight-v100", ".fseventsd", ".dvc", ".directory", ".comments"}
)
LAYOUT = (
    "expected one folder per class, at least two, with images inside: FOLDER/cat/1.jpg, FOLDER/dog/2.jpg, "
    "or the same under FOLDER/train/ and FOLDER/test/"
)


def load_folder(request: SourceRequest) -> Found:
    """Classes are the sorted names of the training folders (Unicode NFC); the other splits are mapped **by name**.

    The layout is that of splits where every folder with images has the name of a split and ``train/`` has class
    folders; otherwise all folders are classes, also one called "val". A class that a test or validation split lacks
    keeps its label and is simply not measured; a class there that training does not know is an ``InputError``. Images
    lie at any depth below their class folder, in the order of their paths. What counts as an image: a known ending, or
    else a content that begins like an image. Stray files (``.DS_Store``, ``Thumbs.db``, ``.ipynb_checkpoints``, text
    ...) are ignored and listed; run folders and figures of ours are not used. With ``val/`` but no ``test/``, ``val/``
    is the test set. A ``test/`` or ``val/`` with images but without class folders is unlabelled: a note says so, and it
    is not used.

    Raises:
        InputError: a link to nothing in the place of a split or class, a folder that cannot be listed, or images with
            neither a class nor a split (with ``request.lenient`` these go into ``Found.unreadable``).
    """
    root = request.where or Path()
    notes: list[str] = []
    ignored: list[str] = []
    loose: list[Path] = []
    parts = _splits(root, notes)
    class_folders = _class_folders(parts["train"], notes)
    classes = sorted(class_folders)
    if not (request.partial and classes):
        _require_classes(root, parts["train"], classes)
    numbers = {name: label for label, name in enumerate(classes)}
    splits: dict[str, FileSplit] = {}
    for split, folder in parts.items():
        beside = _loose_images(folder, ignored)
        splits[split] = _split(folder, class_folders if split == "train" else None, numbers, ignored, notes)
        if split != "train" and beside and not len(splits[split]):
            del splits[split]
            notes.append(
                f"{folder.name}/: {counted(len(beside), 'image')} without labels (no class folders), not used here; "
                f"predict takes them: saddlescape predict RUN {folder}/*"
            )
        else:
            loose += beside
    if parts["train"] != root:
        loose += _loose_images(root, ignored)
    if loose and not request.lenient:
        raise InputError(
            f"{loose[0].parent}: {counted(len(loose), 'image')} beside the folders, without a class, first "
            f"{loose[0].name}: move them into a class folder or away, or leave them out: --bad-images skip"
        )
    if all(len(images) == 0 for images in splits.values()):
        raise InputError(f"{root}: no images in {len(classes)} class folders; {LAYOUT}")
    test = splits.get("test", splits.get("val"))
    if test is not None and len(test) == 0:
        raise InputError(f"{root}: no images in the {parts.get('test', parts.get('val', root)).name}/ folder")
    if "val" in splits and "test" not in splits:
        notes.append(f"{parts['val'].name}/ serves as the test set")
    if ignored:
        notes.append(f"{counted(len(ignored), 'stray file')} ignored, e.g. {ignored[0]}")
    return Found(
        name=root.resolve().name,
        kind="folder per class",
        classes=classes,
        train=splits["train"],
        test=test,
        val=splits["val"] if "test" in splits and len(splits.get("val", ())) else None,
        notes=notes,
        ignored=ignored,
        unreadable=[(str(path), f"{path}: has no class: it lies beside the class folders") for path in loose],
    )


def _splits(root: Path, notes: list[str]) -> dict[str, Path]:
    """Split -> folder; ``{"train": root}`` where the folders of ``root`` are classes."""
    folders = _subfolders(root, notes)
    parts: dict[str, Path] = {}
    for folder in folders:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None:
            continue
        if split in parts and "train" in {split, *parts}:
            raise InputError(f"{root}: {parts[split].name}/ and {folder.name}/ both look like the {split} split")
        parts[split] = folder
    if parts and len(parts) == len(folders) and "train" not in parts:
        raise InputError(f"{root}: has {', '.join(p.name + '/' for p in parts.values())} but no train/ folder")
    if "train" not in parts or (len(parts) < len(folders) and not _subfolders(parts["train"], [])):
        return {"train": root}
    others = [folder for folder in folders if folder not in parts.values()]
    beside = [folder.name for folder in others if images_below(folder, [])]
    if beside:
        raise InputError(
            f"{root}: {beside[0]}/ has images but is not a split, while {parts['train'].name}/ has class folders "
            f"inside: move {beside[0]}/ elsewhere, or rename {parts['train'].name}/ if it is a class"
        )
    if others:
        notes.append(f"folders beside the splits, without images: {', '.join(folder.name for folder in others)}")
    return parts


def _subfolders(root: Path, notes: list[str]) -> list[Path]:
    """Folders below, by name, without those that programs leave behind; ``notes`` hears of hidden ones with images."""
    try:
        entries = sorted(root.iterdir(), key=lambda p: p.name)
    except OSError as error:
        raise InputError(f"{root}: cannot be listed: {error.strerror}") from error
    for path in entries:
        if path.is_symlink() and not path.exists() and not _is_stray(path.name):
            raise InputError(f"{path}: a link to {path.readlink()}, which is not there: restore it or remove the link")
    folders = [path for path in entries if path.is_dir()]
    hidden = [p.name for p in folders if p.name.startswith(".") and p.name.lower() not in _STRAY_NAMES]
    hidden = [name for name in hidden if images_below(root / name, [])]
    if hidden:
        notes.append(f"hidden folders with images in {root}, not used (rename them to use them): {', '.join(hidden)}")
    folders = [path for path in folders if not _is_stray(path.name)]
    outputs = [path for path in folders if is_output(path)]
    line = f"results of saddlescape in {root}, not used: {', '.join(path.name for path in outputs)}"
    if outputs and line not in notes:
        notes.append(line)
    return [path for path in folders if path not in outputs]


def _is_stray(name: str) -> bool:
    return name.startswith(".") or name.lower() in _STRAY_NAMES


def _class_folders(folder: Path, notes: list[str]) -> dict[str, Path]:
    # One system writes "é" as one character, another as two: the same class all the same.
    found: dict[str, Path] = {}
    for path in _subfolders(folder, notes):
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
    if inner.is_dir() and len(_subfolders(inner, [])) >= 2:
        raise InputError(f"{train}: its only folder is {classes[0]!r}, which has folders inside: did you mean {inner}?")
    raise InputError(f"{train}: only one class folder, {classes[0]!r}; {LAYOUT}")


def _split(
    folder: Path, places: dict[str, Path] | None, numbers: dict[str, int], ignored: list[str], notes: list[str]
) -> FileSplit:
    paths: list[Path] = []
    labels: list[int] = []
    for name, place in (_class_folders(folder, notes) if places is None else places).items():
        images = images_below(place, ignored)
        if name not in numbers:
            if not images:
                continue
            alike = [known for known in numbers if plain_name(known) == plain_name(name)]
            raise InputError(
                f"{place}: class {name!r} is not among the training classes ({', '.join(list(numbers)[:8])}"
                f"{', ...' if len(numbers) > 8 else ''}): rename the folder"
                + (f" to {alike[0]!r}" if alike else " or add it to training")
            )
        paths += images
        labels += [numbers[name]] * len(images)
    order = np.argsort(np.asarray(labels, dtype=np.int64), kind="stable")
    return FileSplit([paths[i] for i in order], torch.tensor(labels, dtype=torch.int64)[order])


def _loose_images(folder: Path, ignored: list[str]) -> list[Path]:
    """Images directly in a folder of folders; its other files go to ``ignored``."""
    files = [path for path in sorted(folder.iterdir()) if not path.is_dir() and not _is_stray(path.name)]
    images = [path for path in files if _is_image(path)]
    ignored += [str(path) for path in files if path not in set(images)]
    return images


def images_below(place: Path, ignored: list[str]) -> list[Path]:
    """Images at any depth, by path; links are followed, but no folder is entered twice.

    A link to nothing counts as an image: whoever decodes it names it. Raises ``InputError`` for a folder that cannot
    be listed: its images must not vanish.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed: {error.strerror}")

    found: list[Path] = []
    seen: set[str] = set()
    for here, below, files in os.walk(place, followlinks=True, onerror=refuse):
        real = os.path.realpath(here)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not (_is_stray(name) or is_output(os.path.join(here, name))))  # noqa: PTH118
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
    if path.suffix.lower() in IMAGE_SUFFIXES or not path.exists():
        return True  # a link to nothing may have been any image
    if not path.is_file():
        return False  # a pipe would never end
    try:
        with path.open("rb") as file:
            return looks_like_image(file.read(16))
    except OSError:
        return False  # an unreadable file without an image's ending: stray
