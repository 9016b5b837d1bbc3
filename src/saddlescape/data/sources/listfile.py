"""List files: one image a line, ``path label``, as ImageNet-LT and iNaturalist 2018 are published."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saddlescape.data.sources.classes import read_class_names
from saddlescape.data.sources.pictures import FilePictures, Found, Request
from saddlescape.errors import InputError

EXPECTED = "expected 'path label', the two separated by a space, a tab or a comma"
LABELS = 100_000  # the largest label of images to be scored, where some classes may be missing
_INTEGER = re.compile(r"^(?P<path>.*?)(?:[ \t]*[,;\t][ \t]*|[ \t]+)(?P<label>[+-]?\d+)$")
_HEADERS = frozenset({"path", "file", "filename", "file_name", "filepath", "image", "img", "image_path", "name"})
_LABEL_HEADERS = frozenset({"label", "labels", "class", "class_id", "target", "category", "y"})


@dataclass(frozen=True)
class Entry:
    """One line: its number (from 1), the path as written, the label as written."""

    line: int
    path: str
    label: str


def load_list(request: Request) -> Found:
    """Read a list, and its partner for testing.

    The partner is ``request.test``, else the file beside it whose name has ``test`` (or ``val``) in place of
    ``train``; without one the list itself is split. Paths are relative to the list's folder, or to ``request.root``.
    Spaces in paths, quotes, CRLF, a byte-order mark, blank lines, a header line and Windows' backslashes are
    understood. Labels are integers 0..C-1 without gaps in training, or class names (sorted); ``classes.txt`` beside the
    list gives names to integers, or the order of the names. Raises ``InputError`` with the file and line number.
    """
    path = request.where or Path()
    entries = parse_list(path)
    names = read_class_names(path.parent)
    integers = _are_integers(path, entries)
    classes = _classes_of(path, entries, names, integers, request.partial)
    numbers = {name: label for label, name in enumerate(classes)}
    partners = {"test": request.test} if request.test else partner_lists(path)
    unreadable: list[tuple[str, str]] = []
    base = request.root or path.parent

    def pictures(source: Path, lines: list[Entry]) -> FilePictures:
        if _are_integers(source, lines) != integers:
            raise InputError(f"{source}: its labels are {'names' if integers else 'integers'}, unlike those of {path}")
        labels = [_label(source, entry, numbers, integers) for entry in lines]
        return _pictures(source, lines, labels, base, request.lenient, unreadable)

    train = pictures(path, entries)
    others = {split: pictures(partner, parse_list(partner)) for split, partner in partners.items()}
    test = others.get("test", others.get("val"))
    notes = [f"{split} list: {partner}" for split, partner in partners.items()]
    return Found(
        name=path.stem,
        kind="list file",
        classes=classes,
        train=train,
        test=test,
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


def parse_list(path: Path) -> list[Entry]:
    """The lines of a list, blank ones and a header left out. Raises ``InputError`` with the line number."""
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), start=1)]
    lines = [(number, line) for number, line in lines if line]
    if lines and _is_header(lines[0][1]):
        del lines[0]
    if not lines:
        raise InputError(f"{path}: empty; {EXPECTED} on every line")
    integers = all(_INTEGER.match(line) for _, line in lines)
    separator = None if integers else _common_separator([line for _, line in lines])
    entries = []
    for number, line in lines:
        match = _INTEGER.match(line)
        # A file of names may hold "img 7.jpg,cat"; the separator that every line has is the one that is meant.
        if match and separator in (None, " "):
            written, label = match.group("path"), match.group("label")
        elif separator == " ":
            written, _, label = line.replace("\t", " ").rpartition(" ")
        elif separator:
            written, _, label = line.rpartition(separator)
        else:
            written, label = "", ""
        written, label = _unquoted(written), _unquoted(label)
        if not written or not label:
            raise InputError(f"{path} line {number}: {EXPECTED}, found {_shortened(line)!r}")
        entries.append(Entry(number, written, label))
    return entries


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


def _are_integers(path: Path, entries: list[Entry]) -> bool:
    numeric = [re.fullmatch(r"[+-]?\d+", entry.label) is not None for entry in entries]
    if all(numeric) or not any(numeric):
        return numeric[0]
    # The rarer kind is the slip.
    mostly = sum(numeric) * 2 >= len(numeric)
    odd = entries[numeric.index(not mostly)]
    raise InputError(
        f"{path} line {odd.line}: label {odd.label!r} is {'not ' if mostly else ''}an integer, unlike the others"
    )


def _classes_of(
    path: Path, entries: list[Entry], names: list[str] | None, integers: bool, partial: bool
) -> list[str]:
    if not integers:
        return names or sorted({entry.label for entry in entries})
    first: dict[int, Entry] = {}
    for entry in entries:
        first.setdefault(int(entry.label), entry)
    negative = [entry for label, entry in first.items() if label < 0]
    if negative:
        raise InputError(f"{path} line {negative[0].line}: label {negative[0].label} is negative; labels are 0..C-1")
    size = len(names) if names else max(first) + 1 if partial and max(first) < LABELS else len(first)
    beyond = [entry for label, entry in first.items() if label >= size]
    if beyond:
        if names:
            cause = f"classes.txt names {size} classes"
        else:
            missing = next(label for label in range(size) if label not in first)
            cause = f"labels must be 0..C-1 without gaps, and no line has label {missing}"
        raise InputError(f"{path} line {beyond[0].line}: label {beyond[0].label} is too large: {cause}")
    return names or [str(label) for label in range(size)]


def _label(path: Path, entry: Entry, numbers: dict[str, int], integers: bool) -> int:
    if integers:
        label = int(entry.label)
        if not 0 <= label < len(numbers):
            raise InputError(f"{path} line {entry.line}: label {label} is outside 0..{len(numbers) - 1}")
        return label
    if entry.label not in numbers:
        raise InputError(f"{path} line {entry.line}: class {entry.label!r} is unknown to training or classes.txt")
    return numbers[entry.label]


def _pictures(
    path: Path, entries: list[Entry], labels: list[int], base: Path, lenient: bool, unreadable: list[tuple[str, str]]
) -> FilePictures:
    paths, kept, missing = [], [], []
    for entry, label in zip(entries, labels, strict=True):
        there = _located(base, entry.path)
        if there is None:
            missing.append((entry, f"{path} line {entry.line}: no file {base / entry.path}"))
        else:
            paths.append(there)
            kept.append(label)
    if missing and not lenient:
        entry, line = missing[0]
        more = f" (and {len(missing) - 1} more lines like it)" if len(missing) > 1 else ""
        raise InputError(f"{line}{more}: paths are relative to the list's folder, or to --root")
    unreadable += [(str(base / entry.path), line) for entry, line in missing]
    return FilePictures(paths, np.asarray(kept, dtype=np.int64))


def _located(base: Path, written: str) -> Path | None:
    """The file a line means; a path with backslashes is tried as written and then as Windows' kind."""
    for form in dict.fromkeys((written, written.replace("\\", "/"))):
        if (base / form).is_file():
            return base / form
    return None
