"""CIFAR's download path against a real HTTP server on the loopback: resumed, checked, unpacked safely."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from saddlescape.data import load
from saddlescape.data.download import fetch
from saddlescape.data.sources.cifar import LAYOUTS, fetch_cifar
from saddlescape.errors import InputError

MEMBERS = ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6)))


class Server(ThreadingHTTPServer):
    """Serves ``content`` by path; remembers the Range headers; can break off after ``cut`` bytes, or ignore Range."""

    content: dict[str, bytes]
    ranges: list[str | None]
    cut: int | None = None
    obeys_range = True


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        body = self.server.content.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.obeys_range else 0
        if start >= len(body) and start:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:][: self.server.cut])

    def log_message(self, *_: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.content, server.ranges = {}, []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def address(server: Server, path: str = "") -> str:
    return f"http://127.0.0.1:{server.server_port}{path}"


def batch(images: int, seed: int) -> bytes:
    generator = np.random.default_rng(seed)
    data = generator.integers(0, 256, (images, 3072), dtype=np.uint8)
    return pickle.dumps({b"data": data, b"labels": [i % 10 for i in range(images)]}, protocol=2)


def cifar_archive(extra: list[tarfile.TarInfo] | None = None, drop: str | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for i, name in enumerate(MEMBERS):
            if name == drop:
                continue
            content = pickle.dumps({"label_names": ["x"] * 10}) if name == "batches.meta" else batch(20, i)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra or []:
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    return out.getvalue()


def offer(server: Server, monkeypatch: pytest.MonkeyPatch, archive: bytes) -> None:
    server.content["/kriz/cifar-10-python.tar.gz"] = archive
    monkeypatch.setenv("SADDLESCAPE_CIFAR_URL", address(server, "/kriz/"))
    published = LAYOUTS["cifar10"].archive[0], hashlib.md5(archive).hexdigest()
    monkeypatch.setitem(LAYOUTS, "cifar10", replace(LAYOUTS["cifar10"], archive=published))


def test_load_downloads_unpacks_and_reads(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offer(server, monkeypatch, cifar_archive())
    calls: list[tuple[str, int, int | None]] = []
    dataset = load("cifar10", root=tmp_path, download=True, progress=lambda *given: calls.append(given))
    assert (len(dataset.train), len(dataset.test)) == (100, 20)
    assert [p.name for p in tmp_path.iterdir()] == ["cifar-10-batches-py"]
    what, done, total = [given for given in calls if "cifar-10" in given[0]][-1]
    assert "download" in what and done == total == len(server.content["/kriz/cifar-10-python.tar.gz"])
    # It is there now: no second request, with or without the flag.
    load("cifar10", root=tmp_path, download=True)
    assert len(server.ranges) == 1


def test_incomplete_copy_is_fetched_again(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offer(server, monkeypatch, cifar_archive())
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(batch(20, 1)[:500])
    (folder / "my notes").write_text("keep me")
    with pytest.raises(InputError, match="data_batch_1"):
        load("cifar10", root=tmp_path)
    assert len(load("cifar10", root=tmp_path, download=True).train) == 100
    assert (folder / "my notes").read_text() == "keep me"


def test_without_download_it_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--download") as caught:
        load("cifar100", root=tmp_path)
    assert str(tmp_path) in str(caught.value) and "cifar-100-python" in str(caught.value)


def test_broken_off_download_continues(server: Server, tmp_path: Path) -> None:
    body = np.random.default_rng(0).bytes(700_000)
    server.content["/a"] = body
    md5 = hashlib.md5(body).hexdigest()
    server.cut = 300_000
    with pytest.raises(InputError, match="run again to continue"):
        fetch(address(server, "/a"), tmp_path / "a", md5)
    assert not (tmp_path / "a").exists()
    have = (tmp_path / "a.part").stat().st_size
    assert 0 < have <= 300_000
    server.cut = None
    fetch(address(server, "/a"), tmp_path / "a", md5)
    assert server.ranges == [None, f"bytes={have}-"]
    assert (tmp_path / "a").read_bytes() == body
    assert not (tmp_path / "a.part").exists()


@pytest.mark.parametrize(("obeys_range", "have"), [(False, b"01234"), (True, b"0123456789")])
def test_a_part_of_the_file_or_all_of_it_is_there(
    server: Server, tmp_path: Path, obeys_range: bool, have: bytes
) -> None:
    server.content["/a"] = b"0123456789"
    server.obeys_range = obeys_range
    (tmp_path / "a.part").write_bytes(have)
    fetch(address(server, "/a"), tmp_path / "a", hashlib.md5(b"0123456789").hexdigest())
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_wrong_checksum_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.content["/a"] = b"not what was published"
    with pytest.raises(InputError, match="MD5"):
        fetch(address(server, "/a"), tmp_path / "a", "0" * 32)
    assert list(tmp_path.iterdir()) == []


def test_no_such_file_no_server_and_other_schemes(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="404"):
        fetch(address(server, "/none"), tmp_path / "a", "0" * 32)
    secret = tmp_path / "secret"
    secret.write_text("s")
    with pytest.raises(InputError, match="http"):
        fetch(secret.as_uri(), tmp_path / "a", "0" * 32)
    port = server.server_port
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match="cannot download") as caught:
        fetch(f"http://127.0.0.1:{port}/a", tmp_path / "a", "0" * 32)
    assert "\n" not in str(caught.value)


def test_root_that_is_a_file(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offer(server, monkeypatch, cifar_archive())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--root"):
        fetch_cifar("cifar10", tmp_path / "file" / "below")


def test_hostile_archive_writes_nothing_elsewhere(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    climbing = tarfile.TarInfo("../../escaped")
    climbing.size = 4
    absolute = tarfile.TarInfo(str(tmp_path / "absolute"))
    absolute.size = 4
    link = tarfile.TarInfo("cifar-10-batches-py/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/"
    stranger = tarfile.TarInfo("cifar-10-batches-py/run.py")
    stranger.size = 4
    offer(server, monkeypatch, cifar_archive([climbing, absolute, link, stranger]))
    root = tmp_path / "a" / "b"
    folder = fetch_cifar("cifar10", root)
    assert sorted(p.name for p in folder.iterdir()) == sorted(MEMBERS)
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and [p.name for p in root.iterdir()] == [folder.name]


def test_wanted_name_that_is_a_link_is_not_followed(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    link = tarfile.TarInfo("cifar-10-batches-py/test_batch")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    offer(server, monkeypatch, cifar_archive([link], drop="test_batch"))
    with pytest.raises(InputError, match="lacks cifar-10-batches-py/test_batch"):
        fetch_cifar("cifar10", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["cifar-10-python.tar.gz"]


def test_rubbish_instead_of_an_archive(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offer(server, monkeypatch, b"<html>sign in to the network</html>")
    with pytest.raises(InputError, match="not a readable archive"):
        fetch_cifar("cifar10", tmp_path)
