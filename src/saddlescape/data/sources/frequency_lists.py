"""``imagenet-lt`` and ``inat2018``: published lists of natural-size images, classes re-indexed by frequency.

ImageNet-LT: Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019. iNaturalist 2018: Van Horn
et al., CVPR 2018. Lists, path shapes, constants and the re-indexing are those of the paper's official code (inherited
from MiSLAS): class 0 is the most frequent class of the training list, and test labels go through the same map.

Deviations from the reference implementation:

1. Classes of equal count keep the order of their original labels (``frequency.frequency_order``); the reference's order
   depends on NumPy's version and on the processor. ``ties="reference"`` gives the one of NumPy before 1.25.
2. A class that no training line has, or a file that is not there, is an error before the first epoch.
3. The classes keep the names of their folders ("n01440764", "Plantae/7291"), and the words for them where a file with
   those lies in the data's folder.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from saddlescape.data.paths import PackedPaths
from saddlescape.data.places import data_roots
from saddlescape.data.sources.found import Found, Published, Request
from saddlescape.data.sources.frequency import frequency_order
from saddlescape.data.sources.listfile import EXPECTED, read_text
from saddlescape.data.types import FileSplit, Preprocess
from saddlescape.errors import InputError, counted


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one set lies on disk, and what was published of it."""

    train: str
    test: str
    published: Published
    preprocess: Preprocess
    folders: tuple[str, ...]  # where lists or images may lie below the data's folder
    names: str  # a file with words for the classes
    advice: str


LAYOUTS = {
    "imagenet-lt": Layout(
        train="ImageNet_LT_train.txt",
        test="ImageNet_LT_test.txt",
        published=Published(classes=1000, train=115_846, largest=1280, smallest=5, test_per_class=50),
        preprocess=Preprocess(
            image_size=224, resize_to=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        ),
        folders=("imagenet-lt", "ImageNet_LT", "ImageNet-LT", "imagenet", "ImageNet", "ILSVRC/Data/CLS-LOC"),
        names="LOC_synset_mapping.txt",
        advice="train/ and val/ are ImageNet's (ILSVRC 2012), one folder a synset in each",
    ),
    "inat2018": Layout(
        train="iNaturalist18_train.txt",
        test="iNaturalist18_val.txt",
        published=Published(classes=8142, train=437_513, largest=1000, smallest=2, test_per_class=3),
        preprocess=Preprocess(
            image_size=224, resize_to=256, mean=(0.466, 0.471, 0.380), std=(0.195, 0.194, 0.192)
        ),
        folders=("inat2018", "iNaturalist18", "iNaturalist2018", "inaturalist2018", "iNat18"),
        names="categories.json",
        advice="train_val2018/ is that of the competition, one folder a kingdom with one a category inside",
    ),
}  # fmt: skip
LIST_FOLDERS = ("", "lists", "list", "data_txt", "datasets/data_txt", "splits")
AUGMENT = "resized-crop-flip-jitter"
_PROBES = 32


@dataclass
class Lines:
    """A list: ``paths`` as written, ``labels`` int64 [N], ``numbers`` of their lines."""

    file: Path
    paths: list[str]
    labels: NDArray[np.int64]
    numbers: list[int]


@dataclass
class _Missing:
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def load_frequency_lists(request: Request) -> Found:
    """Find lists and images of ``request.name`` under ``request.root``, ``$SADDLESCAPE_DATA`` or the user cache.

    Lists lie in that folder, in a folder of the set's name, or in ``lists``, ``data_txt`` or ``splits`` in one of
    these; paths in them are relative to one of the same folders. A copy with fewer classes than were published is
    taken as it is. Raises ``InputError``: no such lists, gaps in the labels, files that are not there (with list and
    line), a label or a folder that contradicts the training list.
    """
    layout = LAYOUTS[request.name]
    places = [place for root in data_roots(request.root) for place in _places(root, layout)]
    train_list = _list_file(request.name, layout.train, places, layout)
    test_list = request.test or _list_file(request.name, layout.test, [train_list.parent, *places], layout)
    train, test = read_lines(train_list), read_lines(test_list)
    counts = _counts(train)
    order = frequency_order(counts.tolist(), request.ties)
    new_label = np.empty(len(order), dtype=np.int64)
    new_label[order] = np.arange(len(order))
    beyond = np.flatnonzero(test.labels >= len(order))
    if len(beyond):
        line, label = test.numbers[beyond[0]], test.labels[beyond[0]]
        raise InputError(f"{test_list} line {line}: label {label} is outside 0..{len(order) - 1} of {train_list.name}")
    folders, notes = _class_folders(train)
    if folders is not None:
        _check_folders(test, folders, train_list)
    base = _base(train, [train_list.parent, train_list.parent.parent, *places])
    words = _words(layout.names, [base, train_list.parent, *places])
    names = [str(label) for label in range(len(order))] if folders is None else folders
    names = [f"{name} {words[key]}" if (key := _key(name)) in words else name for name in names]
    missing = _Missing()
    parts = [_split(lines, base, new_label, request, missing) for lines in (train, test)]
    notes += [f"lists {train_list} and {test_list.name}, images below {base}", _order_note(request.ties)]
    if not request.test and (other := train_list.with_name(layout.train.replace("train", "val"))) != test_list:
        notes += [f"{other.name} is not used, as in the paper"] if other.is_file() else []
    if len(order) != layout.published.classes:
        notes.append(f"this copy has {len(order):,} of the {layout.published.classes:,} published classes")
    return Found(
        name=request.name,
        kind="list files",
        classes=[names[label] for label in order.tolist()],
        original_labels=order.tolist(),
        train=parts[0],
        test=parts[1],
        preprocess=layout.preprocess,
        augment=AUGMENT,
        streamed=True,
        published=layout.published,
        notes=notes,
        unreadable=missing.unreadable,
    )


def read_lines(file: Path) -> Lines:
    """The lines of a list: path, one space (or a tab), integer label. Raises ``InputError`` with the line number."""
    paths: list[str] = []
    labels: list[int] = []
    numbers: list[int] = []
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        line = line.strip()
        if not line:
            continue
        path, _, label = line.replace("\t", " ").rpartition(" ")
        if not path or not label.isdecimal():
            raise InputError(f"{file} line {number}: {EXPECTED}, the label an integer, found {line[:60]!r}")
        paths.append(path.rstrip())
        labels.append(int(label))
        numbers.append(number)
    if not paths:
        raise InputError(f"{file}: empty; {EXPECTED} on every line")
    return Lines(file, paths, np.array(labels, dtype=np.int64), numbers)


def _places(root: Path, layout: Layout) -> list[Path]:
    return [root, *(root / folder for folder in layout.folders if (root / folder).is_dir())]


def _list_file(name: str, file: str, places: Sequence[Path], layout: Layout) -> Path:
    for place in places:
        for folder in LIST_FOLDERS:
            if (place / folder / file).is_file():
                return place / folder / file
    looked = " or ".join(dict.fromkeys(str(place) for place in places[:2]))
    raise InputError(
        f"{name}: no {file} in {looked} or its folders lists/ and data_txt/: put the published list there "
        f"(--root names the folder; {layout.advice})"
    )


def _counts(train: Lines) -> NDArray[np.int64]:
    # A slip of the pen in a label must not make an array of a billion classes.
    largest = int(train.labels.max())
    present = np.unique(train.labels)
    if len(present) != largest + 1:
        gap = next(label for label, there in enumerate([*present.tolist(), -1]) if label != there)
        at = train.numbers[int(train.labels.argmax())]
        raise InputError(
            f"{train.file}: no line has label {gap}, but line {at} has {largest}: labels must be 0..C-1 without gaps"
        )
    return np.bincount(train.labels)


def _folder(path: str) -> str:
    """The folder of an image without the split's: "train/n01440764/x.JPEG" -> "n01440764"."""
    return path.replace("\\", "/").rpartition("/")[0].partition("/")[2]


def _class_folders(train: Lines) -> tuple[list[str] | None, list[str]]:
    """The folder of each class, or None (and a note) where folders do not tell the classes apart."""
    first: dict[int, str] = {}
    odd: dict[int, int] = {}
    for i, (path, label) in enumerate(zip(train.paths, train.labels.tolist(), strict=True)):
        folder = _folder(path)
        if first.setdefault(label, folder) != folder:
            odd.setdefault(label, i)
    folders = [first[label] for label in range(len(first))]
    if len(set(folders)) < len(folders) or "" in folders or 2 * len(odd) > len(folders):
        return None, ["classes are called by their original labels: folders do not tell them apart"]
    if odd:
        label, i = next(iter(odd.items()))
        raise InputError(
            f"{train.file} line {train.numbers[i]}: label {label} has images in the folders {first[label]} and "
            f"{_folder(train.paths[i])}: one of them is wrong"
        )
    return folders, []


def _check_folders(test: Lines, folders: list[str], train_list: Path) -> None:
    label_of = {folder: label for label, folder in enumerate(folders)}
    for path, label, line in zip(test.paths, test.labels.tolist(), test.numbers, strict=True):
        known = label_of.get(_folder(path), label)
        if known != label:
            raise InputError(
                f"{test.file} line {line}: label {label}, but the folder {folders[known]} has label {known} in "
                f"{train_list.name}: the two lists are not of one kind"
            )


def _base(train: Lines, candidates: Sequence[Path]) -> Path:
    """The folder below which most of a few lines are found; the first one where none is."""
    step = max(1, len(train.paths) // _PROBES)
    probes = [path.replace("\\", "/") for path in train.paths[::step][:_PROBES]]
    options = list(dict.fromkeys(place for start in candidates for place in (start, start / "images")))
    return max(options, key=lambda place: sum((place / path).is_file() for path in probes))


def _split(
    lines: Lines, base: Path, new_label: NDArray[np.int64], request: Request, missing: _Missing
) -> FileSplit:
    paths = [path.replace("\\", "/") for path in lines.paths]
    there = _present(paths, base, request, lines.file.name)
    if not there.all():
        gone = np.flatnonzero(~there)
        messages = [f"{lines.file} line {lines.numbers[i]}: no file {base / paths[i]}" for i in gone.tolist()]
        if not request.lenient:
            more = f" (and {counted(len(gone) - 1, 'more line')} like it)" if len(gone) > 1 else ""
            raise InputError(f"{messages[0]}{more}: complete the images, or go on without: --bad-images skip")
        missing.unreadable += [(str(base / paths[i]), text) for i, text in zip(gone.tolist(), messages, strict=True)]
        paths = [paths[i] for i in np.flatnonzero(there).tolist()]
    return FileSplit(PackedPaths.pack(paths, base), torch.from_numpy(new_label[lines.labels[there]]))


def _present(paths: Sequence[str], base: Path, request: Request, what: str) -> NDArray[np.bool_]:
    """Which files exist, bool [N]: folder by folder, since one listing is far cheaper than a question a file."""
    inside: dict[str, list[int]] = defaultdict(list)
    for i, path in enumerate(paths):
        inside[path.rpartition("/")[0]].append(i)
    there = np.zeros(len(paths), dtype=bool)
    for done, (folder, rows) in enumerate(inside.items(), start=1):
        try:
            names = set(os.listdir(base / folder))  # noqa: PTH208  # names, not a Path each
        except OSError:
            names = set()  # its files are then the missing ones
        for i in rows:
            there[i] = paths[i].rpartition("/")[2] in names
        if request.progress and (done % 64 == 0 or done == len(inside)):
            request.progress(f"looking for the files of {what}", done, len(inside))
    return there


def _key(name: str) -> str:
    return name.rpartition("/")[2]


def _words(file: str, places: Sequence[Path]) -> dict[str, str]:
    """What the classes are called in words: synset -> words, or category number -> species; empty without a file."""
    found = next((place / file for place in places if (place / file).is_file()), None)
    if found is None:
        return {}
    text = read_text(found)
    if found.suffix != ".json":
        pairs = (line.partition(" ") for line in text.split("\n") if line.strip())
        return {key: words.strip() for key, _, words in pairs if words.strip()}
    try:
        return {str(entry["id"]): str(entry["name"]) for entry in json.loads(text)}
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{found}: expected a list of objects with id and name ({error}); mend or remove it") from None


def _order_note(ties: str) -> str:
    how = "in the order of their original labels" if ties == "stable" else "as NumPy's old quicksort leaves them"
    return f"labels re-indexed by frequency, 0 the most frequent class, ties {how}"
