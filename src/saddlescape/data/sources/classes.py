"""``classes.txt``: one class name a line, in label order."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

from saddlescape.errors import InputError


def read_class_names(folder: Path) -> list[str] | None:
    """The names in ``folder/classes.txt``, or None where there is no such file. UTF-8, blank lines ignored,
    in Unicode NFC.

    Raises:
        InputError: the file is empty, not UTF-8, or names a class twice.
    """
    path = folder / "classes.txt"
    if not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    names = [unicodedata.normalize("NFC", line.strip()) for line in text.splitlines() if line.strip()]
    if not names:
        raise InputError(f"{path}: empty; expected one class name a line, in label order")
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InputError(f"{path}: the class {twice[0]!r} is named twice")
    return names


def plain_name(name: str) -> str:
    """A class name without what people overlook: case, spaces at the ends or in a row, forms of Unicode."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def look_alikes(classes: Iterable[str]) -> list[str]:
    """A note where names of classes differ only in what ``plain_name`` leaves out."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(plain_name(name), []).append(name)
    alike = [names for names in groups.values() if len(names) > 1]
    if not alike:
        return []
    shown = "; ".join(" and ".join(map(repr, names)) for names in alike[:4]) + ("; ..." if len(alike) > 4 else "")
    return [f"classes whose names differ only in case, spaces or Unicode form are kept apart: {shown}; merge them "
            "if they are one class"]  # fmt: skip
