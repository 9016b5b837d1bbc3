"""Fetch CIFAR from its home page: resumed where it broke off, checked, unpacked safely, then renamed into place."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import ssl
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from saddlescape.errors import InputError

Progress = Callable[[str, int, int | None], None]

HOME = "https://www.cs.toronto.edu/~kriz"
BASE_VARIABLE = "SADDLESCAPE_CIFAR_URL"
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Archive:
    """One published archive: its file name, MD5, the folder inside, and the files wanted from it."""

    file: str
    md5: str
    folder: str
    members: tuple[str, ...]


ARCHIVES = {
    "cifar10": Archive(
        "cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        "cifar-10-batches-py",
        ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))),
    ),
    "cifar100": Archive(
        "cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        "cifar-100-python",
        ("meta", "test", "train"),
    ),
}


def fetch_cifar(name: str, root: Path, *, progress: Progress | None = None) -> Path:
    """Download and unpack ``cifar10`` or ``cifar100`` under ``root``; returns the folder of pickles.

    ``$SADDLESCAPE_CIFAR_URL`` names another place that holds the archives (http or https). A part that was fetched
    before is continued. The archive is removed once it has been unpacked. Raises ``InputError``: no connection, no such
    file there, a wrong checksum, a folder that cannot be written, a full disk.
    """
    archive = ARCHIVES[name]
    base = os.environ.get(BASE_VARIABLE, HOME).rstrip("/")
    target = root / archive.file
    try:
        root.mkdir(parents=True, exist_ok=True)
        fetch(f"{base}/{archive.file}", target, archive.md5, progress=progress)
        folder = unpack(target, archive, root)
        target.unlink()
    except OSError as error:
        place = error.filename or root
        raise InputError(f"cannot write {name} to {place}: {error.strerror or error}: choose another --root") from error
    return folder


def fetch(url: str, target: Path, md5: str, *, progress: Progress | None = None, timeout: float = 60) -> Path:
    """``url`` -> ``target``, which appears only when it is whole and its MD5 is right.

    What has come so far is kept in ``target.part`` and continued (HTTP Range) by the next call. ``progress(what, done,
    total)`` counts bytes; total is None where the server does not say. Raises ``InputError``.
    """
    if target.is_file() and md5_of(target) == md5:
        return target
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"cannot download {url}: only http and https addresses are fetched")
    part = target.with_name(target.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "saddlescape"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            if have and answer.status != 206:
                have = 0  # a server without Range sends the whole file again
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else None
            _receive(answer, part, have, total, f"downloading {target.name}", progress)
    except urllib.error.HTTPError as error:
        # 416: nothing is left to send, so what is here is the whole file, or rubbish; the checksum tells.
        if error.code != 416:
            raise InputError(f"cannot download {url}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"cannot download {url}: {reason}; what has come is kept, run again to continue") from error
    found = md5_of(part)
    if found != md5:
        part.unlink()
        raise InputError(f"{url}: the download has MD5 {found}, expected {md5}: not kept; run again")
    part.replace(target)
    return target


def _receive(
    answer: http.client.HTTPResponse, part: Path, have: int, total: int | None, what: str, progress: Progress | None
) -> None:
    done = have
    with part.open("ab" if have else "wb") as out:
        while chunk := answer.read(_CHUNK):
            out.write(chunk)
            done += len(chunk)
            if progress:
                progress(what, done, total)
    if total is not None and done < total:
        raise http.client.IncompleteRead(b"", total - done)


def unpack(path: Path, archive: Archive, root: Path) -> Path:
    """Take the wanted plain files out of the archive, nothing else, whatever other names or links it holds.

    They appear as ``root / archive.folder`` by renaming. Raises ``InputError`` if one of them is missing.
    """
    with tempfile.TemporaryDirectory(dir=root, prefix=".unpacking-") as workspace:
        fresh = Path(workspace) / archive.folder
        fresh.mkdir()
        try:
            with tarfile.open(path, "r:gz") as tar:
                for member in tar:
                    folder, _, name = member.name.rpartition("/")
                    source = tar.extractfile(member) if member.isreg() else None
                    if folder == archive.folder and name in archive.members and source is not None:
                        with (fresh / name).open("wb") as out:
                            shutil.copyfileobj(source, out)
        except (tarfile.TarError, EOFError) as error:
            raise InputError(f"{path}: not a readable archive ({error}): delete it and run again") from error
        missing = [name for name in archive.members if not (fresh / name).is_file()]
        if missing:
            raise InputError(f"{path}: the archive lacks {archive.folder}/{missing[0]}")
        final = root / archive.folder
        if final.is_dir():  # an unfinished or damaged copy: its files are replaced, anything else in it is left alone
            for name in archive.members:
                (fresh / name).replace(final / name)
        else:
            fresh.replace(final)
    return final


def md5_of(path: Path) -> str:
    """MD5 of a file, 32 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
