"""Parquet shards in the Hugging Face layout: an image column (``{bytes, path}`` or plain bytes) and a label column."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saddlescape.data.sources.classes import read_class_names
from saddlescape.data.sources.features import found_in
from saddlescape.data.sources.found import Found, SourceRequest
from saddlescape.data.types import EncodedSplit
from saddlescape.errors import InputError, MissingExtraError, counted

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "picture", "bytes")
LABEL_COLUMNS = ("label", "fine_label", "labels", "target", "class", "cls")
_SHARD = re.compile(r"-(\d+)-of-(\d+)")
_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test", "val": "val", "valid": "val",
           "validation": "val", "dev": "val"}  # fmt: skip


def load_parquet(request: SourceRequest) -> Found:
    """A folder of shards named ``train-*.parquet``, ``test-*`` and ``validation-*`` (training is enough), or one file.

    Class names: the schema's Hugging Face ``ClassLabel`` names, else ``classes.txt`` beside the shards, else the label
    numbers; a text label column names its classes itself (sorted). Raises ``InputError`` naming the file.
    """
    where = request.where or Path()
    shards = [where] if where.is_file() else shards_under(where)
    if not shards:
        raise InputError(f"{where}: no .parquet files here")
    splits: dict[str, list[Path]] = {}
    for shard in shards:
        splits.setdefault(split_of(shard) or "train", []).append(shard)
    if "train" not in splits:
        raise InputError(f"{where}: no training shards: expected files named like train-00000-of-00001.parquet")
    arrays = feature_columns(splits)
    if arrays is not None:
        return found_in(arrays, str(where), read_class_names(shards[0].parent))
    notes = [note for paths in splits.values() for note in missing_shards(paths)]
    tables = {split: ShardedTable(paths, labelled=split == "train") for split, paths in splits.items()}
    for split in [split for split, table in tables.items() if table.unlabelled]:
        rows = counted(len(tables.pop(split).raw_labels), "image")
        notes.append(f"the {split} shards have {rows} without labels, not used here; predict takes images as files")
    names = tables["train"].class_names() or read_class_names(shards[0].parent)
    if tables["train"].text_labels:
        names = names or sorted(set(tables["train"].raw_labels))
    elif names is None:
        largest = max((max(table.raw_labels, default=-1) for table in tables.values()), default=-1)
        if largest >= sum(len(table.raw_labels) for table in tables.values()):
            raise InputError(
                f"{where}: label {largest}, but fewer images than that: labels must be 0..C-1 without gaps"
            )
        names = [str(i) for i in range(largest + 1)]
    images = {split: table.images(names) for split, table in tables.items()}
    test = images.get("test") or images.get("val")
    return Found(
        name=where.stem if where.is_file() else where.name,
        kind="parquet shards",
        classes=list(names),
        train=images["train"],
        test=test,
        val=images.get("val") if "test" in images else None,
        notes=notes,
    )


def feature_columns(splits: Mapping[str, Sequence[Path]]) -> dict[str, Any] | None:
    """Arrays for ``features.found_in`` where the shards of each split have a column of lists of numbers, not images."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return None
    arrays: dict[str, Any] = {}
    for split, paths in splits.items():
        schema = ShardedTable._guarded(paths[0], lambda paths=paths: pq.read_schema(paths[0]))
        lists = [f.name for f in schema if isinstance(f.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType)]
        lists = [name for name in lists if pa.types.is_primitive(schema.field(name).type.value_type)]
        if not lists or any(name in schema.names for name in IMAGE_COLUMNS):
            return None
        label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
        if len(lists) > 1 or label is None:
            raise InputError(
                f"{paths[0]}: features need one column of lists of numbers (found {', '.join(lists)}) and one of "
                f"labels, named {', '.join(LABEL_COLUMNS[:3])}"
            )
        read = [ShardedTable._guarded(path, lambda path=path: pq.read_table(path)) for path in paths]
        rows = [row for table in read for row in table.column(lists[0]).to_pylist()]
        widths = sorted({-1 if row is None else len(row) for row in rows})
        if len(widths) != 1:
            raise InputError(f"{paths[0]}: column {lists[0]!r} has lists of {widths[0]} to {widths[-1]} numbers")
        arrays[f"{split}_features"] = np.array(rows)
        arrays[f"{split}_labels"] = np.array([value for table in read for value in table.column(label).to_pylist()])
    return arrays


def shards_under(folder: Path) -> list[Path]:
    """The .parquet files in a folder or in its ``data`` or ``plain_text`` sub-folder, sorted by name."""
    for place in (folder, folder / "data", folder / "plain_text"):
        found = sorted(p for p in place.glob("*.parquet") if p.is_file() and not p.name.startswith("."))
        if found:
            return found
    return []


def split_of(shard: Path) -> str | None:
    """``train``, ``test`` or ``val`` from the first word of a shard's name; None if it says nothing."""
    return _SPLITS.get(re.split(r"[-_.]", shard.name.lower())[0])


def missing_shards(paths: Sequence[Path]) -> list[str]:
    """A note where the names say that there are more shards than are here."""
    numbers = [match for path in paths if (match := _SHARD.search(path.name))]
    if not numbers or len({match.group(2) for match in numbers}) != 1:
        return []
    have, total = len({int(match.group(1)) for match in numbers}), int(numbers[0].group(2))
    split = paths[0].name.split("-")[0]
    return [f"{paths[0].parent}: {have} of {total} shards of {split} are here"] if have < total else []


def _label_types(types: Any) -> list[Any]:
    """pyarrow's tests of the types that a label may have; older versions lack the last one."""
    names = ("integer", "floating", "decimal", "boolean", "string", "large_string", "binary", "large_binary",
             "string_view")  # fmt: skip
    return [getattr(types, f"is_{name}") for name in names if hasattr(types, f"is_{name}")]


class ShardedTable:
    """Some shards read as one table: labels at once, image bytes only for the rows asked for.

    Labels are integers, whole floats or decimals, names (text or UTF-8 bytes) or booleans (the names "False" and
    "True"), dictionary-encoded or not. ``labelled`` False: there may be none, in which case ``unlabelled`` is True: no
    label column, or nothing but nulls or -1 in it.
    """

    def __init__(self, paths: Sequence[Path], *, labelled: bool = True) -> None:
        try:
            import pyarrow.parquet as pq
        except ImportError:
            raise MissingExtraError("reading parquet files", "parquet", "pyarrow") from None
        self.paths = list(paths)
        self.files: list[Any] = []
        self.raw_labels: list[Any] = []
        self.starts = [0]
        for path in self.paths:
            file = self._guarded(path, lambda path=path: pq.ParquetFile(path))
            names = file.schema_arrow.names
            self.image_column = self._column(path, file, IMAGE_COLUMNS, "image")
            self.files.append(file)
            if labelled or any(name in names for name in LABEL_COLUMNS):
                self.label_column = self._column(path, file, LABEL_COLUMNS, "label")
                labels = self._guarded(path, lambda file=file: file.read(columns=[self.label_column]))
                self.raw_labels += labels.column(names[names.index(self.label_column)]).to_pylist()
            else:
                self.raw_labels += [None] * file.metadata.num_rows
            self.starts.append(len(self.raw_labels))
        self.unlabelled = not labelled and all(label in (None, -1) for label in self.raw_labels)
        if not self.unlabelled:
            self.raw_labels = [self._plain(row, label) for row, label in enumerate(self.raw_labels)]
        kinds = {isinstance(label, str) for label in self.raw_labels}
        if len(kinds) > 1:
            raise InputError(f"{self.paths[0]}: its labels are partly integers and partly names")
        self.text_labels = kinds == {True}

    def _plain(self, row: int, label: Any) -> int | str:
        if isinstance(label, bool):
            return str(label)
        if isinstance(label, bytes):
            label = label.decode("utf-8", errors="replace")
        if isinstance(label, str):
            return unicodedata.normalize("NFC", label)
        if isinstance(label, int) or (isinstance(label, float | Decimal) and label == label // 1):
            return int(label)
        raise InputError(f"{self.where(row)}: label is {label!r}, expected an integer or a name")

    def class_names(self) -> list[str] | None:
        """Names of the label column's ``ClassLabel`` feature in the schema's Hugging Face metadata, if there."""
        metadata = (self.files[0].schema_arrow.metadata or {}).get(b"huggingface")
        if metadata is None:
            return None
        try:
            feature = json.loads(metadata)["info"]["features"][self.label_column]
            names = feature["names"]
        except (ValueError, KeyError, TypeError):
            return None  # other tools write other things here
        if isinstance(names, dict):
            names = [names[key] for key in sorted(names, key=int)]
        return [str(name) for name in names] or None

    def images(self, classes: Sequence[str]) -> EncodedSplit:
        """All rows as images; text labels are mapped by name. ``InputError`` for a label outside the classes."""
        numbers = {name: i for i, name in enumerate(classes)}
        labels = np.empty(len(self.raw_labels), dtype=np.int64)
        for row, label in enumerate(self.raw_labels):
            number = numbers.get(label, -1) if self.text_labels else label
            if not 0 <= number < len(classes):
                raise InputError(f"{self.where(row)}: label {label!r} is none of the {len(classes)} classes")
            labels[row] = number
        return EncodedSplit(self.fetch, np.arange(len(labels)), torch.from_numpy(labels), self.where, self.identity())

    def identity(self) -> str:
        """Path, size and time of change of every shard."""
        states = [(path.resolve(), path.stat()) for path in self.paths]
        return "\n".join(f"{path}\0{state.st_size}\0{state.st_mtime_ns}" for path, state in states)

    def where(self, row: int) -> str:
        """``shard.parquet row 17`` for messages."""
        shard = int(np.searchsorted(self.starts, row, side="right")) - 1
        return f"{self.paths[shard].name} row {row - self.starts[shard]}"

    def fetch(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Encoded bytes of these rows, in this order; row groups without any of them are not read."""
        wanted: dict[int, bytes] = {}
        chosen = np.unique(rows)
        for shard, file in enumerate(self.files):
            start = self.starts[shard]
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                here = chosen[(chosen >= start) & (chosen < end)]
                if len(here):
                    column = self._guarded(
                        self.paths[shard],
                        lambda file=file, group=group: file.read_row_group(group, columns=[self.image_column]),
                    ).column(0)
                    self._collect(column.combine_chunks(), start, here, wanted)
                start = end
        return [wanted[int(row)] for row in rows]

    def _collect(self, column: Any, start: int, rows: NDArray[np.int64], wanted: dict[int, bytes]) -> None:
        import pyarrow as pa

        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        values = column.field("bytes") if pa.types.is_struct(column.type) else column
        for row in rows:
            content = values[int(row - start)].as_py()
            # An image without bytes is as unreadable as an empty file: the reader says so and names the row.
            wanted[int(row)] = content or b""

    def _column(self, path: Path, file: Any, known: Sequence[str], what: str) -> str:
        import pyarrow as pa

        schema = file.schema_arrow

        def fits(kind: Any) -> bool:
            if what == "label":
                kind = kind.value_type if pa.types.is_dictionary(kind) else kind
                return any(test(kind) for test in _label_types(pa.types))
            binary = (pa.types.is_binary, pa.types.is_large_binary)
            if pa.types.is_struct(kind):
                return any(f.name == "bytes" and any(test(f.type) for test in binary) for f in kind)
            return any(test(kind) for test in binary)

        for name in known:
            if name in schema.names and fits(schema.field(name).type):
                return name
        fitting = [f.name for f in schema if fits(f.type)] if what == "image" else []
        if len(fitting) == 1:
            return fitting[0]
        for name in known:
            if name in schema.names:
                wanted = "integers or names" if what == "label" else "encoded images (bytes)"
                raise InputError(f"{path}: its column {name!r} holds {schema.field(name).type}, expected {wanted}")
        raise InputError(
            f"{path}: no {what} column among {', '.join(schema.names)}: expected one named {', '.join(known[:3])}"
        )

    @staticmethod
    def _guarded(path: Path, read: Any) -> Any:
        """Run one of pyarrow's readers; its errors become one line that names the file."""
        import pyarrow as pa

        try:
            return read()
        except (pa.ArrowException, OSError, EOFError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"{path}: not a readable parquet file, damaged or truncated ({reason}): fetch it again"
            ) from error
