"""What lies in a run folder, and how it is read and written. Imports no torch, so reports can be made anywhere."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from saddlescape.disk import REPAIR, read_text, write_text, writing
from saddlescape.errors import InputError

CONFIG, METRICS, CHECKPOINT, RESULT, LOCK = "config.toml", "metrics.jsonl", "checkpoint", "result.json", ".lock"
AGAIN = "delete it and run again"


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Raises InputError where the file is missing, not JSON or no object."""
    text = read_text(path, AGAIN)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); {AGAIN}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: damaged, an object was expected; {AGAIN}")
    return found


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append one line of JSON and flush it to the disk."""
    with writing(path, "make room and run the same command again"), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path, keys: Set[str] = frozenset()) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; a last line that a kill cut short is left out.

    Raises:
        InputError: the file cannot be read, or a line is not an object with at least these ``keys``.
    """
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    # Bytes that are not text make their line invalid JSON, which is reported below.
    lines = read_text(path, "delete it", errors="backslashreplace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            if number == len(lines):
                break
            row = None
        except RecursionError:
            row = None
        if not isinstance(row, dict) or not keys <= row.keys():
            raise InputError(f"{path}, line {number}: damaged; delete that line")
        rows.append(row)
    return rows


def keep_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Rewrite a metrics file with just these rows."""
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def make_folder(path: Path, repair: str = REPAIR) -> None:
    """Create a run folder. Raises InputError where it cannot be written."""
    with writing(path, repair):
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a run folder alone. Raises InputError where another process has it; a process that dies lets go of it."""
    with writing(path / LOCK):
        try:
            lock = FileLock(path / LOCK, blocking=False)
            lock.acquire()
        except Timeout:
            raise InputError(f"{path} is in use by another process; wait for it, or use another folder") from None
    try:
        yield
    finally:
        lock.release()


def is_run(path: Path) -> bool:
    return (path / CONFIG).is_file()


def read_result(path: Path) -> dict[str, Any] | None:
    """The result of a finished run, None for one that is not finished."""
    return read_json(path / RESULT) if (path / RESULT).is_file() else None
