"""Fetch an archive: resumed where it broke off, checked, unpacked safely, then renamed into place."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import ssl
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from saddlescape.data.sources.found import Progress
from saddlescape.errors import InputError

_CHUNK = 1 << 18


def fetch(url: str, target: Path, md5: str, *, progress: Progress | None = None, timeout: float = 60) -> Path:
    """``url`` -> ``target``, which appears only when it is whole and its MD5 is right.

    What was received is kept in ``target.part`` and continued (HTTP Range) by the next call. ``progress(what, done,
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
        # 416: nothing is left to send, so what is here is the whole file, or rubbish; the checksum decides.
        if error.code != 416:
            raise InputError(f"cannot download {url}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"cannot download {url}: {reason}; what is here is kept, run again to continue") from error
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


def unpack(path: Path, folder: str, members: Sequence[str], root: Path) -> Path:
    """Take the plain files ``folder/member`` out of an archive, nothing else, whatever other names or links it holds.

    They appear as ``root / folder`` by renaming. Raises ``InputError`` if one of them is missing.
    """
    with tempfile.TemporaryDirectory(dir=root, prefix=".unpacking-") as workspace:
        fresh = Path(workspace) / folder
        fresh.mkdir()
        names = {f"{folder}/{member}" for member in members}
        try:
            with tarfile.open(path, "r:gz") as tar:
                for member in tar:
                    source = tar.extractfile(member) if member.isreg() and member.name in names else None
                    if source is not None:
                        with (Path(workspace) / member.name).open("wb") as out:
                            shutil.copyfileobj(source, out)
        except (tarfile.TarError, EOFError) as error:
            raise InputError(f"{path}: not a readable archive ({error}): delete it and run again") from error
        missing = [name for name in members if not (fresh / name).is_file()]
        if missing:
            raise InputError(f"{path}: the archive lacks {folder}/{missing[0]}")
        final = root / folder
        if final.is_dir():  # an unfinished or damaged copy: its files are replaced, anything else in it is left alone
            for name in members:
                (fresh / name).replace(final / name)
        else:
            fresh.replace(final)
    return final


def md5_of(path: Path) -> str:
    """MD5 of a file, 32 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
