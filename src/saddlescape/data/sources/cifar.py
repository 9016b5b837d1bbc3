"""``cifar10`` and ``cifar100`` (Krizhevsky, 2009): from the original pickle folder or from parquet shards."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saddlescape.data.download import fetch, unpack
from saddlescape.data.places import data_roots
from saddlescape.data.sources.classes import read_class_names
from saddlescape.data.sources.found import Found, Progress, SourceRequest
from saddlescape.data.sources.parquet import ShardedTable, missing_shards, shards_under, split_of
from saddlescape.data.types import ArraySplit, Images, Preprocess
from saddlescape.errors import InputError

HOME = "https://www.cs.toronto.edu/~kriz"
BASE_VARIABLE = "SADDLESCAPE_CIFAR_URL"
# The constants of the paper's official code, used there for CIFAR-10 and CIFAR-100 alike.
PREPROCESS = Preprocess(image_size=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_CIFAR100_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""
CIFAR100_CLASSES = _CIFAR100_NAMES.split()


@dataclass(frozen=True)
class CifarLayout:
    """How one CIFAR set lies on disk. ``train`` and ``test``: pickle name -> (MD5 of the published file, images).

    ``archive`` is the published file and its MD5, with ``folder`` inside; ``meta`` is for other readers of the folder.
    """

    classes: list[str]
    folder: str
    archive: tuple[str, str]
    meta: str
    train: dict[str, tuple[str, int]]
    test: dict[str, tuple[str, int]]
    label_key: str
    parquet_label: str


LAYOUTS = {
    "cifar10": CifarLayout(
        classes=CIFAR10_CLASSES,
        folder="cifar-10-batches-py",
        archive=("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
        meta="batches.meta",
        train={
            "data_batch_1": ("c99cafc152244af753f735de768cd75f", 10000),
            "data_batch_2": ("d4bba439e000b95fd0a9bffe97cbabec", 10000),
            "data_batch_3": ("54ebc095f3ab1f0389bbae665268c751", 10000),
            "data_batch_4": ("634d18415352ddfa80567beed471001a", 10000),
            "data_batch_5": ("482c414d41f54cd18b22e5b47cb7c3cb", 10000),
        },
        test={"test_batch": ("40351d587109b95175f43aff81a1287e", 10000)},
        label_key="labels",
        parquet_label="label",
    ),
    "cifar100": CifarLayout(
        classes=CIFAR100_CLASSES,
        folder="cifar-100-python",
        archive=("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
        meta="meta",
        train={"train": ("16019d7e3df5f24257cddd939b257f8d", 50000)},
        test={"test": ("f0ef6b0ae62326f3e7ffdfab6717acfc", 10000)},
        label_key="fine_labels",
        parquet_label="fine_label",
    ),
}


def load_cifar(request: SourceRequest) -> Found:
    """Find and read ``request.name`` under ``request.root``, ``$SADDLESCAPE_DATA`` or the user cache.

    In each of these the folder itself, its sub-folder of that name and the original archive's folder are tried; the
    original pickles win over parquet shards, because published draws refer to their order. Raises ``InputError`` if
    there is neither, saying how to get the data, and for damaged, altered or malicious files (which are not executed).
    """
    layout = LAYOUTS[request.name]
    roots = data_roots(request.root)
    for root in roots:
        for folder in _candidates(root, request.name, layout):
            if _has_pickles(folder, layout):
                return _repaired(request, folder, layout)
            if _has_parquet(folder):
                return _from_parquet(request.name, folder, layout)
    if request.download:
        folder = fetch_cifar(request.name, roots[0], request.progress)
        return _from_pickles(request.name, folder, layout)
    raise InputError(
        f"{request.name} is not under {' or '.join(str(root) for root in roots)}: run again with --download, or put "
        f"{layout.folder}/ or its parquet shards there (--root or SADDLESCAPE_DATA names the place)"
    )


def _repaired(request: SourceRequest, folder: Path, layout: CifarLayout) -> Found:
    """Read the pickles; where they are incomplete or damaged and a download is allowed, fetch them again in place."""
    try:
        return _from_pickles(request.name, folder, layout)
    except InputError:
        if not request.download or folder.name != layout.folder:
            raise
        return _from_pickles(request.name, fetch_cifar(request.name, folder.parent, request.progress), layout)


def fetch_cifar(name: str, root: Path, progress: Progress | None = None) -> Path:
    """Download and unpack ``cifar10`` or ``cifar100`` under ``root``; returns the folder of pickles.

    ``$SADDLESCAPE_CIFAR_URL`` names another place that holds the archives (http or https). A part that was fetched
    before is continued. The archive is removed once it has been unpacked. Raises ``InputError``: no connection, no such
    file there, a wrong checksum, a folder that cannot be written, a full disk.
    """
    layout = LAYOUTS[name]
    file, md5 = layout.archive
    try:
        root.mkdir(parents=True, exist_ok=True)
        target = fetch(f"{os.environ.get(BASE_VARIABLE, HOME).rstrip('/')}/{file}", root / file, md5, progress=progress)
        folder = unpack(target, layout.folder, (layout.meta, *layout.train, *layout.test), root)
        target.unlink()
    except OSError as error:
        place = error.filename or root
        raise InputError(f"cannot write {name} to {place}: {error.strerror or error}: choose another --root") from error
    return folder


def _candidates(root: Path, name: str, layout: CifarLayout) -> list[Path]:
    own = [root / name, root / layout.folder, root / name / layout.folder]
    # The root itself only where its content says which set it is, or nothing else is inside.
    return [*own, *([root] if _is_own(root, name, layout) else [])]


def _is_own(root: Path, name: str, layout: CifarLayout) -> bool:
    if _has_pickles(root, layout):
        return True
    shards = [shard for shard in shards_under(root) if split_of(shard) == "train"]
    if not shards:
        return False
    return layout.parquet_label in ShardedTable(shards[:1]).files[0].schema_arrow.names


def _has_pickles(folder: Path, layout: CifarLayout) -> bool:
    # "train" and "test" are also what folders of images are called: only files count.
    return any((folder / name).is_file() for name in layout.train)


def _has_parquet(folder: Path) -> bool:
    return any(split_of(shard) == "train" for shard in shards_under(folder))


def _from_parquet(name: str, folder: Path, layout: CifarLayout) -> Found:
    shards = shards_under(folder)
    found: dict[str, Images] = {}
    notes: list[str] = []
    classes = layout.classes
    for split in ("train", "test"):
        paths = [shard for shard in shards if split_of(shard) == split]
        if not paths:
            raise InputError(f"{folder}: no {split} shard of {name}: expected {split}-00000-of-00001.parquet")
        notes += missing_shards(paths)
        table = ShardedTable(paths)
        if split == "train":
            classes = table.class_names() or read_class_names(paths[0].parent) or layout.classes
            if len(classes) != len(layout.classes):
                raise InputError(f"{folder}: {len(classes)} classes here, but {name} has {len(layout.classes)}")
        found[split] = table.images(classes)
    return _found(name, f"parquet shards in {folder}", list(classes), found["train"], found["test"], notes)


def _from_pickles(name: str, folder: Path, layout: CifarLayout) -> Found:
    notes: list[str] = []
    train, test = (_read_batches(folder, files, layout, notes) for files in (layout.train, layout.test))
    return _found(name, f"original pickles in {folder}", list(layout.classes), train, test, notes)


def _found(name: str, kind: str, classes: list[str], train: Images, test: Images, notes: list[str]) -> Found:
    if len(train) < 50000:
        notes.append(f"{name}: this copy holds {len(train):,} of the 50,000 training images")
    elif not kind.startswith("original"):
        notes.append(f"{name}: read from parquet, whose order may differ: the published counts, perhaps not the images")
    return Found(
        name=name, kind=kind, classes=classes, train=train, test=test,
        preprocess=PREPROCESS, augment="crop-flip", notes=notes,
    )  # fmt: skip


def _read_batches(folder: Path, files: dict[str, tuple[str, int]], layout: CifarLayout, notes: list[str]) -> ArraySplit:
    images, labels, where = [], [], []
    for file, (md5, published) in files.items():
        path = folder / file
        if not path.is_file():
            raise InputError(f"{path}: missing; fetch the whole archive again with --download")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        data, targets = _validated(path, restricted_loads(content, str(path)), layout)
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            # Full size but other bytes: damaged or altered. Any other size: someone's own set in CIFAR's layout.
            if len(data) == published:
                raise InputError(f"{path}: its MD5 is not the published {md5}: damaged or altered; fetch it again")
            notes.append(f"{path}: not the published file ({len(data):,} images); results are this copy's own")
        images.append(data.reshape(-1, 3, 32, 32))
        labels.append(targets)
        where += [f"{file} image {i}" for i in range(len(data))]
    return ArraySplit(torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels)), where)


def _validated(path: Path, batch: Any, layout: CifarLayout) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(batch, dict):
        raise InputError(f"{path}: holds a {type(batch).__name__}, expected CIFAR's dictionary of data and labels")
    batch = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    missing = [key for key in ("data", layout.label_key) if key not in batch]
    if missing:
        raise InputError(f"{path}: has no entry {missing[0]!r}: not a batch of this CIFAR set")
    data = batch["data"]
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == 3072):
        raise InputError(f"{path}: 'data' must be uint8 [N, 3072]")
    values = batch[layout.label_key]
    whole = isinstance(values, list) and all(isinstance(v, int) for v in values)
    whole = whole or (isinstance(values, np.ndarray) and values.ndim == 1 and np.issubdtype(values.dtype, np.integer))
    if not whole or len(values) != len(data):
        raise InputError(f"{path}: {layout.label_key!r} must be {len(data)} integers, one per image")
    targets = np.asarray(values, dtype=np.int64)
    wrong = np.flatnonzero((targets < 0) | (targets >= len(layout.classes)))
    if len(wrong):
        raise InputError(f"{path}: image {wrong[0]} has label {targets[wrong[0]]}, not 0..{len(layout.classes) - 1}")
    return data, targets


class _Restricted(pickle.Unpickler):
    """Unpickles plain containers and NumPy arrays; any other name in the stream is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return _empty_array
        if (module, name) in (("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer")):
            return _array_from_buffer
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _empty_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    # What NumPy's own helper does when an array is unpickled, for plain arrays only.
    if kind is not np.ndarray:
        raise pickle.UnpicklingError("it asks for an array of an unknown kind")
    return np.ndarray.__new__(np.ndarray, (0,), dtype=np.uint8)


def _array_from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _encode(text: str, encoding: str) -> bytes:
    # How Python 3 writes bytes with an old pickle protocol.
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


def restricted_loads(content: bytes, called: str) -> Any:
    """Unpickle data only: lists, dictionaries, numbers, text, bytes and NumPy arrays. Nothing else is ever executed.

    Raises:
        InputError: a pickle that asks for anything else, or is damaged; names ``called``.
    """
    try:
        return _Restricted(io.BytesIO(content), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise InputError(f"{called}: refused, not a plain CIFAR pickle: {error}") from error
    except Exception as error:  # a damaged stream makes the unpickler raise nearly anything
        raise InputError(
            f"{called}: damaged or truncated pickle ({type(error).__name__}); fetch the archive again"
        ) from error
