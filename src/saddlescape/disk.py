"""Where files are written and read: whole or not at all, and an error of the disk as one line. Imports no torch."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saddlescape.errors import InputError

if TYPE_CHECKING:
    import numpy as np

OUTPUT_SUFFIXES = ("md", "json", "jsonl", "toml", "html")  # beside runs: tables, searches, pages
REPAIR = "make room or choose another folder"
MARK = ".saddlescape"  # in a folder of figures, so that they are never taken for images to train on


@contextlib.contextmanager
def whole(path: str | Path, repair: str = REPAIR) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; it takes the place of ``path`` when the block ends without error.

    The file is flushed to the disk, and its mode follows the umask, whatever the writer in the block makes. A link is
    followed. ``repair``: the end of the message.

    Raises:
        InputError: the disk is full, the folder cannot be written, or something that is not a file has the name.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():  # a rename would replace a device, such as /dev/stdout
        raise InputError(f"cannot write {path}: it is a {'folder' if target.is_dir() else 'device'}; {repair}")
    temporary = target.with_name(f".{target.stem[:80]}.{secrets.token_hex(4)}{target.suffix[-40:]}")
    try:
        with writing(path, repair):
            with created(temporary):
                yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def created(path: Path) -> Iterator[None]:
    """A new file for the block to fill. Its mode follows the umask, whatever mode the writer in the block gives it."""
    path.touch(exist_ok=False)
    mode = path.stat().st_mode & 0o777
    yield
    path.chmod(mode)


@contextlib.contextmanager
def writing(path: str | Path, repair: str = REPAIR) -> Iterator[None]:
    """Turn an error of the disk in the block into one line that names ``path``."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InputError(f"cannot write {path}: {error.object!r} is not UTF-8 text; rename that file") from error
    except OSError as error:
        raise InputError(f"cannot write {path}: {reason(error)}; {repair}") from error


def reason(error: BaseException) -> str:
    """Why a file could not be read or written: the system's words for it, or the first line of a library's."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class Sink:
    """A binary file for writers in C++, which end the process when a write fails: the error is kept for ``close``."""

    def __init__(self, path: Path) -> None:
        self._file, self._error = path.open("wb"), None  # type: tuple[Any, OSError | None]

    def write(self, data: bytes) -> int:
        if self._error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def flush(self) -> None:
        """Nothing: ``close`` flushes."""

    def close(self) -> None:
        """Raises OSError where any write failed."""
        try:
            self._file.close()
        except OSError as error:
            self._error = self._error or error
        if self._error is not None:
            raise self._error


def beside(path: str | Path) -> str:
    """``; did you mean 'runs/a'?`` where an entry beside the missing ``path`` has nearly its name, else ``""``."""
    given = Path(str(path).replace("\\", "/"))  # Windows' separators
    close = []
    with contextlib.suppress(OSError, ValueError):
        if Path(path).exists():
            return ""
        names = [entry.name for entry in itertools.islice(given.parent.iterdir(), 1000)]
        close = [given.name] if given.exists() else difflib.get_close_matches(given.name, names, n=1)
    return f"; did you mean {str(given.parent / close[0])!r}?" if close else ""


def write_text(path: Path, text: str, repair: str = REPAIR) -> None:
    """Raises InputError, as ``whole``."""
    with whole(path, repair) as temporary:
        temporary.write_text(text, encoding="utf-8")


def expanded(path: str | Path) -> Path:
    """``path`` with the home of ``~`` or ``~name``; as it is where nobody has that name."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises for an unknown name


def read_text(path: Path, repair: str = "", errors: str = "strict") -> str:
    """Raises InputError where the file is missing, cannot be read, or is not UTF-8 text."""
    repair = f"; {repair}" if repair else ""
    try:
        return path.read_text(encoding="utf-8-sig", errors=errors)
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text{repair}") from None
    except OSError as error:
        raise InputError(f"{path}: {reason(error)}{repair}") from error


def write_npz(
    path: str | Path, form: str, arrays: Mapping[str, Any], meta: Mapping[str, Any] | None = None, *,
    compressed: bool = False,
) -> None:  # fmt: skip
    """Write arrays as ``.npz`` that names its format ``form``: in a JSON text ``meta`` where there are facts beside the
    arrays, else in an array ``format``. Raises InputError, as ``whole``."""
    import numpy as np  # late: it takes 0.1 s to import, which --help does not need

    named: dict[str, Any] = {"format": np.array(form)}
    if meta is not None:
        named = {"meta": np.array(json.dumps({"format": form, **meta}))}
    with whole(path) as temporary, temporary.open("wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, **named, **arrays)


def read_npz(path: str | Path, form: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and facts that ``write_npz`` wrote; nothing in the file is executed.

    Raises:
        InputError: missing, damaged or of another format; names the file.
    """
    import numpy as np

    repair = "delete it and write it again"
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # zip, zlib and numpy each raise their own for a damaged file
        why = reason(error) if isinstance(error, OSError) else "damaged"
        raise InputError(f"{path} cannot be read ({why}); {repair}") from error
    try:
        meta = json.loads(str(arrays.pop("meta"))) if "meta" in arrays else {"format": str(arrays.pop("format", ""))}
    except ValueError:
        meta = None
    if not isinstance(meta, dict) or meta.pop("format", None) != form:
        raise InputError(f"{path} is not a file of format {form}; {repair}")
    return arrays, meta


def is_output(folder: str | Path) -> bool:
    """Whether a folder is a run, a folder of figures, or holds nothing but such: no class of images."""
    try:
        with os.scandir(folder) as entries:
            here = list(entries)
        names = {entry.name for entry in here}
        if MARK in names or ("config.toml" in names and names & {"metrics.jsonl", "checkpoint", ".lock"}):
            return True
        below = [entry for entry in here if entry.is_dir()]
    except OSError:
        return False
    others = [entry for entry in here if entry not in below and entry.name.rpartition(".")[2] not in OUTPUT_SUFFIXES]
    return bool(below) and not others and all(is_output(entry.path) for entry in below)
