"""``imagenet-lt`` and ``inat2018``: published lists of natural-size images, classes re-indexed by frequency.

ImageNet-LT: Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019. iNaturalist 2018: Van Horn
et al., CVPR 2018. Lists, path shapes, constants and the re-indexing are those of the paper's official code (inherited
from MiSLAS): class 0 is the most frequent class of the training list, and test labels go through the same map.

Deviations from the reference implementation:

1. Classes of equal count keep the order of their original labels (``frequency_order``); the reference's order
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saddlescape.data.places import data_roots
from saddlescape.data.sources.found import Found, Published, SourceRequest
from saddlescape.data.sources.listfile import Lines, are_integers, class_names, files_of, parse_list, read_text
from saddlescape.data.types import Preprocess
from saddlescape.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ListLayout:
    """How one set lies on disk, and what was published of it."""

    train: str
    test: str
    published: Published
    preprocess: Preprocess
    folders: tuple[str, ...]  # where lists or images may lie below the data's folder
    names: str  # a file with words for the classes
    advice: str


LAYOUTS = {
    "imagenet-lt": ListLayout(
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
    "inat2018": ListLayout(
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
TIES = ("stable", "reference")
_PROBES = 32


def load_frequency_lists(request: SourceRequest) -> Found:
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
    train, test = parse_list(train_list), parse_list(test_list)
    for lines in (train, test):
        if not are_integers(lines):
            raise InputError(f"{lines.file}: its labels are names; those of the published list are integers")
    class_names(train, None, integers=True, partial=False)  # raises for gaps
    labels, test_labels = (np.array(list(map(int, lines.labels)), dtype=np.int64) for lines in (train, test))
    order = frequency_order(np.bincount(labels).tolist(), request.ties)
    new_label = np.empty(len(order), dtype=np.int64)
    new_label[order] = np.arange(len(order))
    wrong = np.flatnonzero((test_labels < 0) | (test_labels >= len(order)))
    if len(wrong):
        raise InputError(
            f"{test.place(wrong[0])}: label {test_labels[wrong[0]]} is outside 0..{len(order) - 1} of {train_list.name}"
        )
    folders, notes = _class_folders(train)
    if folders is not None:
        _check_folders(test, folders, train_list)
    base = _base(train, [train_list.parent, train_list.parent.parent, *places])
    words = _words(layout.names, [base, train_list.parent, *places])
    names = [str(label) for label in range(len(order))] if folders is None else folders
    names = [f"{name} {words[key]}" if (key := _key(name)) in words else name for name in names]
    unreadable: list[tuple[str, str]] = []
    splits = [
        files_of(lines, _files(lines, base, request), new_label[own], base, request.lenient, unreadable)
        for lines, own in ((train, labels), (test, test_labels))
    ]
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
        train=splits[0],
        test=splits[1],
        preprocess=layout.preprocess,
        augment=AUGMENT,
        streamed=True,
        published=layout.published,
        notes=notes,
        unreadable=unreadable,
    )


def _places(root: Path, layout: ListLayout) -> list[Path]:
    return [root, *(root / folder for folder in layout.folders if (root / folder).is_dir())]


def _list_file(name: str, file: str, places: Sequence[Path], layout: ListLayout) -> Path:
    for place in places:
        for folder in LIST_FOLDERS:
            if (place / folder / file).is_file():
                return place / folder / file
    looked = " or ".join(dict.fromkeys(str(place) for place in places[:2]))
    raise InputError(
        f"{name}: no {file} in {looked} or its folders lists/ and data_txt/: put the published list there "
        f"(--root names the folder; {layout.advice})"
    )


def frequency_order(counts: Sequence[int], ties: str = "stable") -> NDArray[np.int64]:
    """Original labels, most frequent first, int64 [C]: entry k is the original label of class k.

    ``ties``: ``"stable"`` keeps classes of equal count in the order of their original labels, on every machine.
    ``"reference"`` is ``numpy.argsort(-counts)`` as the reference implementation calls it, by the scalar quicksort
    that NumPy had for all types before 1.25. Newer ones sort integers by vector instructions, and ties differently from
    processor to processor; long doubles have none. Which of two equally frequent classes comes first matters where a
    border between head, mid and tail runs through a tie.
    """
    if ties not in TIES:
        raise InputError(f"unknown order of ties {ties!r}: choose one of {', '.join(TIES)}")
    values = -np.asarray(counts, dtype=np.int64)
    if ties == "stable":
        return np.argsort(values, kind="stable").astype(np.int64)
    return np.argsort(values.astype(np.longdouble)).astype(np.int64)


def _folder(path: str) -> str:
    """The folder of an image without the split's: "train/n01440764/x.JPEG" -> "n01440764"."""
    return path.replace("\\", "/").rpartition("/")[0].partition("/")[2]


def _class_folders(train: Lines) -> tuple[list[str] | None, list[str]]:
    """The folder of each class, or None (and a note) where folders do not tell the classes apart."""
    first: dict[int, str] = {}
    odd: dict[int, int] = {}
    for i, (path, label) in enumerate(zip(train.paths, map(int, train.labels), strict=True)):
        folder = _folder(path)
        if first.setdefault(label, folder) != folder:
            odd.setdefault(label, i)
    folders = [first[label] for label in range(len(first))]
    if len(set(folders)) < len(folders) or "" in folders or 2 * len(odd) > len(folders):
        return None, ["classes are called by their original labels: folders do not tell them apart"]
    if odd:
        label, i = next(iter(odd.items()))
        raise InputError(
            f"{train.place(i)}: label {label} has images in the folders {first[label]} and "
            f"{_folder(train.paths[i])}: one of them is wrong"
        )
    return folders, []


def _check_folders(test: Lines, folders: list[str], train_list: Path) -> None:
    label_of = {folder: label for label, folder in enumerate(folders)}
    for i, (path, label) in enumerate(zip(test.paths, map(int, test.labels), strict=True)):
        known = label_of.get(_folder(path), label)
        if known != label:
            raise InputError(
                f"{test.place(i)}: label {label}, but the folder {folders[known]} has label {known} in "
                f"{train_list.name}: the two lists are not of one kind"
            )


def _base(train: Lines, candidates: Sequence[Path]) -> Path:
    """The folder below which most of a few lines are found; the first one where none is."""
    step = max(1, len(train.paths) // _PROBES)
    probes = [path.replace("\\", "/") for path in train.paths[::step][:_PROBES]]
    options = list(dict.fromkeys(place for start in candidates for place in (start, start / "images")))
    return max(options, key=lambda place: sum((place / path).is_file() for path in probes))


def _files(lines: Lines, base: Path, request: SourceRequest) -> list[str | None]:
    """The file of each line, or None: folder by folder, since one listing is far cheaper than a question a file."""
    paths = [path.replace("\\", "/") for path in lines.paths]
    inside: dict[str, list[int]] = defaultdict(list)
    for i, path in enumerate(paths):
        inside[path.rpartition("/")[0]].append(i)
    there: list[str | None] = [None] * len(paths)
    for done, (folder, rows) in enumerate(inside.items(), start=1):
        try:
            names = set(os.listdir(base / folder))  # noqa: PTH208  # names, not a Path each
        except OSError:
            names = set()  # its files are then the missing ones
        for i in rows:
            if paths[i].rpartition("/")[2] in names:
                there[i] = os.path.join(base, paths[i])  # noqa: PTH118  # no Path each
        if request.progress and (done % 64 == 0 or done == len(inside)):
            request.progress(f"looking for the files of {lines.file.name}", done, len(inside))
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
        wanted = "a list of objects with id and name"
        raise InputError(f"{found}: expected {wanted} ({error}); repair or delete it") from None


def _order_note(ties: str) -> str:
    how = "in the order of their original labels" if ties == "stable" else "as NumPy's old quicksort leaves them"
    return f"labels re-indexed by frequency, 0 the most frequent class, ties {how}"
