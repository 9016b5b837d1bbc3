"""What lies in a run folder, and how it is read and written. Imports no torch, so reports can be made anywhere."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from saddlescape.errors import InputError

CONFIG, METRICS, CHECKPOINT, RESULT, LOCK = "config.toml", "metrics.jsonl", "checkpoint", "result.json", ".lock"


def write_atomic(path: Path, text: str) -> None:
    """Write a text file whole or not at all: temporary name, fsync, rename.

    Raises:
        InputError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise InputError(f"cannot write {path}: {error.strerror}; make room or choose another folder") from error


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises InputError where the file is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); delete it and run again") from error


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append one line of JSON and flush it to the disk."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; make room and run the same command again") from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    # Bytes that are no text make their line no JSON, which is told below.
    lines = path.read_text(encoding="utf-8", errors="backslashreplace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise InputError(f"{path}, line {number}: not JSON; delete the file's damaged lines") from None
    return rows


def keep_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Rewrite a metrics file with just these rows."""
    write_atomic(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def make_folder(path: Path) -> None:
    """Create a run folder. Raises InputError where it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write to the folder {path}: {error.strerror}; choose another --out") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a run folder alone. Raises InputError where another process has it; a dead one's lock is no lock."""
    with (path / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{path} is in use by another process; wait for it or choose another --out") from None
        yield


def is_run(path: Path) -> bool:
    return (path / CONFIG).is_file()


def read_result(path: Path) -> dict[str, Any] | None:
    """The result of a finished run, None for one that is not finished."""
    if not (path / RESULT).is_file():
        return None
    result: dict[str, Any] = read_json(path / RESULT)
    return result
