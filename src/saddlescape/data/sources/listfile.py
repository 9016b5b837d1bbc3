"""List files: one image a line, ``path label``, as ImageNet-LT and iNaturalist 2018 are published, or a CSV table."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from saddlescape.data.paths import PackedPaths
from saddlescape.data.sources.classes import read_class_names
from saddlescape.data.sources.folder import IMAGE_SUFFIXES
from saddlescape.data.sources.found import Found, SourceRequest
from saddlescape.data.types import FileSplit
from saddlescape.errors import InputError, counted

EXPECTED = "expected 'path label', the two separated by a space, a tab or a comma"
LABELS = 100_000  # the largest label of images to be scored, where some classes may be missing
_INTEGER = re.compile(r"^(?P<path>.*?)(?:[ \t]*[,;\t][ \t]*|[ \t]+)(?P<label>[+-]?\d+)$")
_HEADERS = ("image", "img", "path", "file", "filename", "file_name", "filepath", "file_path", "image_path", "img_path",
            "image_name", "image_file", "image_id", "img_id", "images", "id", "name")  # fmt: skip
_LABEL_HEADERS = ("label", "labels", "class", "classes", "class_name", "category", "target", "y", "class_id",
                  "label_id", "category_id")  # fmt: skip
_COMMON = (".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".JPEG")  # these first: one or two tries a line
_ENDINGS = (*_COMMON, *sorted({s for e in IMAGE_SUFFIXES for s in (e, e.upper())} - {*_COMMON}))
_SAMPLE = 50


@dataclass(frozen=True)
class Lines:
    """The entries of a list: paths and labels as written, and the numbers of their lines (from 1)."""

    file: Path
    paths: list[str]
    labels: list[str]
    numbers: list[int]

    def place(self, i: int) -> str:
        return f"{self.file} line {self.numbers[i]}"


def load_list(request: SourceRequest) -> Found:
    """Read a list, and its partner for testing.

    The partner is ``request.test``, else the file beside it whose name has ``test`` (or ``val``) in place of
    ``train``; without one the list itself is split. A partner without labels is named and not used. Paths are relative
    to the list's folder, or to ``request.root``. Spaces in paths, quotes, CRLF, a byte-order mark, blank lines, a
    header line and Windows' backslashes are understood, and so are tables (see ``parse_list``). Names are compared in
    Unicode NFC. Labels are integers 0..C-1 without gaps in training, or class names (sorted); ``classes.txt`` beside
    the list gives names to integers, or the order of the names. Raises ``InputError`` with the file and line number.
    """
    path = request.where or Path()
    base = _base(path, request.root)
    lines = parse_list(path, base)
    integers = are_integers(lines)
    classes = class_names(lines, read_class_names(path.parent), integers, request.partial)
    numbers = {name: label for label, name in enumerate(classes)}
    partners = {"test": request.test} if request.test else partner_lists(path)
    unreadable: list[tuple[str, str]] = []

    def split_of(lines: Lines, base: Path) -> FileSplit:
        if are_integers(lines) != integers:
            kind = "names" if integers else "integers"
            raise InputError(f"{lines.file}: its labels are {kind}, unlike those of {path}")
        labels = [_label(lines, i, numbers, integers) for i in range(len(lines.paths))]
        there = [_located(base, written) for written in lines.paths]
        return files_of(lines, there, np.array(labels, dtype=np.int64), base, request.lenient, unreadable)

    train = split_of(lines, base)
    notes = [] if base in (request.root, path.parent) else [f"images of {path.name} are those below {base}"]
    others = {}
    for split, partner in partners.items():
        below = _base(partner, request.root, base)
        unlabelled = _unlabelled(path, base, partner, below)
        if unlabelled:
            notes.append(f"{partner}: {counted(unlabelled, 'image')} without labels, not used here; predict takes them")
        else:
            others[split] = split_of(parse_list(partner, below), below)
            notes.append(f"{split} list: {partner}")
    return Found(
        name=path.stem,
        kind="list file",
        classes=classes,
        train=train,
        test=others.get("test", others.get("val")),
        val=others.get("val") if "test" in others else None,
        notes=notes,
        unreadable=unreadable,
    )


def partner_lists(path: Path) -> dict[str, Path]:
    """``{"test": ..., "val": ...}``: the lists beside a training list that carry its name with test or val in it."""
    found = {}
    for split, words in (("test", ("test",)), ("val", ("val", "valid", "validation"))):
        for word in words:
            name = re.sub("train(ing)?", word, path.name, flags=re.IGNORECASE)
            if name != path.name and path.with_name(name).is_file():
                found[split] = path.with_name(name)
                break
    return found


def parse_list(path: Path, base: Path | None = None) -> Lines:
    """The lines of a list, blank ones and a header left out. Raises ``InputError`` with the line number.

    A table (a header, or columns in another order or more of them) has its columns found by name and by content: the
    column of images is the one whose values are files below ``base`` (the list's folder), with the ending or without.
    """
    text = read_text(path)
    table = read_table(path, text, path.parent if base is None else base)
    if table is not None:
        return table.entries()
    lines = [(number, line.strip()) for number, line in _filled(text)]
    if lines and _is_header(lines[0][1]):
        del lines[0]
    if not lines:
        raise InputError(f"{path}: empty; {EXPECTED} on every line")
    if not any(mark in text for mark in "\t,;\"'"):  # quick, for lists of half a million lines
        cuts = [line.rpartition(" ") for _, line in lines]
        rows = [(written.rstrip(), label) for written, _, label in cuts]
    else:
        integers = all(_INTEGER.match(line) for _, line in lines)
        separator = None if integers else _common_separator([line for _, line in lines])
        rows = [_cut(line, separator) for _, line in lines]
    for (number, line), (written, label) in zip(lines, rows, strict=True):
        if not written or not label:
            raise InputError(f"{path} line {number}: {EXPECTED}, found {_shortened(line)!r}")
    labels = [label for _, label in rows]
    if not text.isascii():
        labels = [unicodedata.normalize("NFC", label) for label in labels]
    return Lines(path, [written for written, _ in rows], labels, [number for number, _ in lines])


def _filled(text: str) -> list[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line and not line.isspace()]


def _cut(line: str, separator: str | None) -> tuple[str, str]:
    """Path and label of a line; ``separator`` None: the label is an integer."""
    match = _INTEGER.match(line)
    # A file of names may hold "img 7.jpg,cat"; the separator that every line has is the one that is meant.
    if match and separator in (None, " "):
        written, label = match.group("path"), match.group("label")
    else:
        written, _, label = (line.replace("\t", " ") if separator == " " else line).rpartition(separator or " ")
    return _unquoted(written), _unquoted(label)


@dataclass(frozen=True)
class Table:
    """Rows of a CSV with their line numbers, and which columns are meant. ``label`` is None where there is none."""

    path: Path
    names: list[str]
    rows: list[tuple[int, list[str]]]
    image: int
    label: int | None

    def entries(self) -> Lines:
        if self.label is None:
            raise InputError(
                f"{self.path}: columns {', '.join(self.names)}: none is called "
                f"{' or '.join(map(repr, _LABEL_HEADERS[:3]))}, and which of them is the label is not clear; rename it"
            )
        for line, row in self.rows:
            for column in (self.image, self.label):
                if not row[column].strip():
                    raise InputError(f"{self.path} line {line}: column {self.names[column]!r} is empty")
        return Lines(
            self.path,
            [row[self.image].strip() for _, row in self.rows],
            [unicodedata.normalize("NFC", row[self.label].strip()) for _, row in self.rows],
            [line for line, _ in self.rows],
        )


def read_table(path: Path, text: str, base: Path) -> Table | None:
    """The list as a table with columns of its own, or None where it is plain "path label" lines.

    Raises:
        InputError: a table in which no column names images.
    """
    rows = _equal_rows(text)
    if rows is None:
        return None
    (_, head), *rest = rows
    words = [word.strip().lower() for word in head]
    named = next((words.index(name) for name in _HEADERS if name in words), None)
    by_content = _image_column(rest, base)
    header = _is_table_header(words, head, base, by_content)
    if header and not rest:
        raise InputError(f"{path}: empty; a header and nothing below it")
    if not header and (len(head) == 1 or (len(head) == 2 and by_content in (0, None))):
        return None
    image = by_content if by_content is not None else named if header else None
    if image is None:
        raise InputError(
            f"{path}: no column names image files below {base} (columns: {', '.join(head[:8])}"
            f"{', ...' if len(head) > 8 else ''}); a list has a column of paths, relative to --root or its folder, "
            "and one of labels; a table of measurements: turn its columns into numbers and save them as an .npz with "
            "the arrays features [N, d] and labels [N]"
        )
    rows = rest if header else rows
    names = [name.strip() or "(no name)" for name in head] if header else [f"{i + 1}" for i in range(len(head))]
    others = [i for i in range(len(head)) if i != image]
    label = next((words.index(name) for name in _LABEL_HEADERS if header and words.count(name) == 1), None)
    if label is None or label == image:
        others = [i for i in others if not _is_index(words[i] if header else "", [row[i] for _, row in rows])]
        label = others[0] if len(others) == 1 else None
    return Table(path, names, rows, image, label)


def _equal_rows(text: str) -> list[tuple[int, list[str]]] | None:
    """(line, fields) of every line that is not blank, where one separator gives all of them as many fields."""
    first = text.lstrip("\n ").partition("\n")[0]
    separators = [separator for separator in ("\t", ",", ";") if separator in first]
    lines = _filled(text) if separators else []
    for separator in separators:
        rows = []
        for number, line in lines:  # a line is a row: an image's path has no line break
            rows.append((number, next(csv.reader([line], delimiter=separator, skipinitialspace=True))))
            if len(rows[-1][1]) != len(rows[0][1]):
                break
        else:
            return rows
    return None


def _image_column(rows: Sequence[tuple[int, list[str]]], base: Path) -> int | None:
    """The column most of whose first values are files, or None."""
    some = [row for _, row in rows[:_SAMPLE]]
    columns = zip(*some, strict=True)
    found = [sum(_located(base, value.strip()) is not None for value in column) for column in columns]
    return found.index(max(found)) if found and 2 * max(found) > len(some) else None


def _is_table_header(words: list[str], head: list[str], base: Path, image: int | None) -> bool:
    if any(_located(base, word.strip()) for word in head) or any(Path(word).suffix in IMAGE_SUFFIXES for word in words):
        return False
    if any(word in _LABEL_HEADERS for word in words) and (any(word in _HEADERS for word in words) or image is not None):
        return True
    if words[0] == "" or image is None:  # pandas' index has no name
        return words[0] == "" or (len(words) > 1 and any(word in _HEADERS for word in words))
    # Images below and none here: only a known name makes it a header, lest the line of a missing image be lost.
    return words[image] in _HEADERS


def _is_index(name: str, values: Sequence[str]) -> bool:
    """Whether a column is pandas' index: numbers, and no name or one that pandas gives."""
    return name in ("", "unnamed: 0", "index") and all(value.strip().isdecimal() for value in values)


def _base(path: Path, root: Path | None, other: Path | None = None) -> Path:
    """What the paths of a list are relative to: ``root``, else the list's folder, else one of the folders in it that
    commonly hold the images of a table."""
    if root is not None:
        return root
    rows = _equal_rows(read_text(path)) or []
    places = [path.parent, *([other] if other else []), *(path.parent / n for n in (path.stem, "train", "images"))]
    return next((p for p in places if len(rows) > 1 and _image_column(rows[1:], p) is not None), path.parent)


def _unlabelled(path: Path, base: Path, partner: Path, below: Path) -> int:
    """How many images a partner list names without labels; 0 where it has labels."""
    text, own = read_text(partner), read_table(path, read_text(path), base)
    rows = _equal_rows(text)
    if own is not None and rows is None:  # a single column
        lines = [line for _, line in _filled(text)]
        return len(lines) - (_unquoted(lines[0]) == own.names[own.image]) if lines else 0
    table = read_table(partner, text, below)
    if own is not None and table is not None and own.label is not None:
        # The label's column is the one of the training list.
        wanted = own.names[own.label]
        if own.names != table.names and wanted not in table.names:
            return len(table.rows)
        if wanted in table.names and not any(row[table.names.index(wanted)].strip() for _, row in table.rows):
            return len(table.rows)
        return 0
    lines = [line.strip() for _, line in _filled(text)]
    return len(lines) if lines and all(_located(below, _unquoted(line)) for line in lines) else 0


def read_text(path: Path) -> str:
    """A text file in UTF-8 or UTF-16, its lines ended by ``\\n``. Raises ``InputError``."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        if b"\0" in content[:4096]:
            raise InputError(f"{path}: not a text file; {EXPECTED} on every line") from None
        raise InputError(f"{path} line {line}: not UTF-8 text: save the list as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{path}: not a text file; {EXPECTED} on every line")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _common_separator(lines: list[str]) -> str | None:
    for separator in ("\t", ",", ";"):
        if all(separator in line for line in lines):
            return separator
    return " "


def _is_header(line: str) -> bool:
    words = [_unquoted(word).lower() for word in re.split(r"[,;\t ]+", line)]
    return len(words) == 2 and words[0] in _HEADERS and words[1] in _LABEL_HEADERS


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1].strip() if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'" else text


def _shortened(line: str) -> str:
    return line if len(line) <= 60 else line[:57] + "..."


def are_integers(lines: Lines) -> bool:
    """Whether labels are integers or names; ``InputError`` names the line where the kind changes."""
    if all(map(str.isdecimal, lines.labels)):
        return True
    numeric = [re.fullmatch(r"[+-]?\d+", label) is not None for label in lines.labels]
    if all(numeric) or not any(numeric):
        return numeric[0]
    # The rarer kind is the slip.
    mostly = sum(numeric) * 2 >= len(numeric)
    odd = numeric.index(not mostly)
    raise InputError(
        f"{lines.place(odd)}: label {lines.labels[odd]!r} is {'not ' if mostly else ''}an integer, unlike the others"
        + ("; if this line is a header, call its columns image and label" if odd == 0 else "")
    )


def class_names(lines: Lines, names: list[str] | None, integers: bool, partial: bool) -> list[str]:
    """The classes of a training list, by label. ``InputError`` names the first line whose label cannot be one."""
    if not integers:
        return names or sorted(set(lines.labels))
    first: dict[int, int] = {}
    for i, label in enumerate(map(int, lines.labels)):
        first.setdefault(label, i)
    negative = next((i for label, i in first.items() if label < 0), None)
    if negative is not None:
        raise InputError(f"{lines.place(negative)}: label {lines.labels[negative]} is negative; labels are 0..C-1")
    size = len(names) if names else max(first) + 1 if partial and max(first) < LABELS else len(first)
    beyond = next((i for label, i in first.items() if label >= size), None)
    if beyond is not None:
        if names:
            cause = f"classes.txt names {size} classes"
        else:
            missing = next(label for label in range(size) if label not in first)
            cause = f"labels must be 0..C-1 without gaps, and no line has label {missing}"
        raise InputError(f"{lines.place(beyond)}: label {lines.labels[beyond]} is too large: {cause}")
    return names or [str(label) for label in range(size)]


def _label(lines: Lines, i: int, numbers: dict[str, int], integers: bool) -> int:
    written = lines.labels[i]
    if integers:
        if not 0 <= int(written) < len(numbers):
            raise InputError(f"{lines.place(i)}: label {int(written)} is outside 0..{len(numbers) - 1}")
        return int(written)
    if written not in numbers:
        raise InputError(f"{lines.place(i)}: class {written!r} is unknown to training or classes.txt")
    return numbers[written]


def files_of(
    lines: Lines, there: Sequence[Path | str | None], labels: NDArray[np.int64], base: Path, lenient: bool,
    unreadable: list[tuple[str, str]],
) -> FileSplit:  # fmt: skip
    """The files that the lines mean; ``there`` [N] has None for those that are missing.

    These are added to ``unreadable``, or else are an ``InputError`` that names the first one's line.
    """
    missing = [i for i, path in enumerate(there) if path is None]
    messages = [f"{lines.place(i)}: no file {base / lines.paths[i]}" for i in missing]
    if missing and not lenient:
        more = f" (and {counted(len(missing) - 1, 'more line')} like it)" if len(missing) > 1 else ""
        raise InputError(
            f"{messages[0]}{more}: complete the images (--root names the folder that paths are relative to), or leave "
            "these out: --bad-images skip"
        )
    unreadable += [(str(base / lines.paths[i]), text) for i, text in zip(missing, messages, strict=True)]
    kept = np.setdiff1d(np.arange(len(labels)), missing).astype(np.int64)
    return FileSplit(PackedPaths.pack(path for path in there if path is not None), torch.from_numpy(labels[kept]))


def _located(base: Path, written: str) -> Path | None:
    """The file a line means, or None.

    A path with backslashes is tried as written and then as Windows' kind, then all in other forms of Unicode, and a
    name without an image's ending with each of these.
    """
    if not written or len(written) > 4096 or "\0" in written:
        return None
    forms = list(dict.fromkeys((written, written.replace("\\", "/"))))
    if Path(forms[-1]).suffix.lower() not in IMAGE_SUFFIXES:
        forms += [forms[-1] + ending for ending in _ENDINGS]
    try:
        found = next((base / form for form in forms if (base / form).is_file()), None)
        if found is None and not written.isascii():
            found = next((there for form in forms if (there := _in_any_form(base, form)) is not None), None)
    except OSError:  # a name that no file can have
        return None
    return found


def _in_any_form(base: Path, written: str) -> Path | None:
    """The file whose path is ``written`` in whatever form of Unicode each of its parts is stored."""
    here = base
    for part in Path(written).parts:
        forms = (part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part))
        there = next((here / form for form in forms if (here / form).exists()), None)
        if there is None:
            return None
        here = there
    return here if here.is_file() else None
