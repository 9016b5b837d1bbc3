"""``classes.txt``: one class name a line, in label order."""

from __future__ import annotations

from pathlib import Path

from saddlescape.errors import InputError


def read_class_names(folder: Path) -> list[str] | None:
    """The names in ``folder/classes.txt``, or None where there is no such file. UTF-8, blank lines ignored.

    Raises ``InputError`` if the file is empty, not UTF-8, or names a class twice.
    """
    path = folder / "classes.txt"
    if not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise InputError(f"{path}: empty; expected one class name a line, in label order")
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InputError(f"{path}: the class {twice[0]!r} is named twice")
    return names
