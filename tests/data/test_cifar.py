"""CIFAR from pickles (made up, in the original layout), from parquet, and from the real shards where they are."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from saddlescape.data import load
from saddlescape.data.sources import cifar
from saddlescape.data.sources.cifar import restricted_loads
from saddlescape.errors import InputError

REAL = Path(os.environ.get("SADDLESCAPE_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
needs_real = pytest.mark.skipif(
    not (REAL / "cifar10").is_dir(), reason="the real CIFAR shards are not here: set SADDLESCAPE_DATA"
)


def write_cifar10(folder: Path, images: int = 40, protocol: int = 2) -> dict[str, np.ndarray]:
    """Five training batches and a test batch in CIFAR-10's layout; returns the pixels [N, 3072] by file."""
    folder.mkdir(parents=True)
    pixels = {}
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        pixels[name] = np.random.default_rng(i).integers(0, 256, (images, 3072), dtype=np.uint8)
        content = {b"data": pixels[name], b"labels": [k % 10 for k in range(images)], b"filenames": ["x"] * images}
        (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))
    return pixels


@pytest.mark.parametrize(
    ("place", "protocol"),
    [(".", 2), ("cifar10", 0), ("cifar-10-batches-py", 3), ("cifar10/cifar-10-batches-py", 4), ("cifar10", 5)],
)
def test_pickles_are_found_and_read_in_order(tmp_path: Path, place: str, protocol: int) -> None:
    folder = tmp_path / "data" / place
    pixels = write_cifar10(folder, protocol=protocol)
    dataset = load("cifar10", root=tmp_path / "data")
    assert dataset.train.images.shape == (200, 3, 32, 32) and len(dataset.test) == 40
    expected = np.concatenate([pixels[f"data_batch_{k}"] for k in range(1, 6)]).reshape(-1, 3, 32, 32)
    assert (dataset.train.images.numpy() == expected).all()
    assert dataset.train.names[47] == "data_batch_2 image 7"
    assert dataset.classes[:2] == ["airplane", "automobile"] and dataset.augment == "crop-flip"
    assert dataset.preprocess.std == (0.2023, 0.1994, 0.2010)
    assert any("not the published file" in note for note in dataset.notes)


def test_python_2_pickle_of_an_array() -> None:
    # What NumPy under Python 2 wrote, spelled out: byte strings as text, the old module's name.
    stream = (
        b"\x80\x02}q\x01U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87R"
        b"(K\x01K\x01K\x03\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x03\x00\x80\xfftbs."
    )
    assert restricted_loads(stream, "old")["data"].tolist() == [[0, 128, 255]]


def test_cifar100_fine_labels(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        data = np.zeros((200, 3072), dtype=np.uint8)
        content = {"data": data, "fine_labels": [i % 100 for i in range(200)], "coarse_labels": [0] * 200}
        (folder / name).write_bytes(pickle.dumps(content))
    dataset = load("cifar100", root=tmp_path)
    assert dataset.class_counts == [2] * 100
    assert dataset.classes[:3] == ["apple", "aquarium_fish", "baby"] and dataset.classes[-1] == "worm"
    assert [len(v) for v in dataset.groups.values()] == [36, 35, 29]


class Evil:
    """Unpickled in the ordinary way, this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("wrapped", [False, True])
def test_malicious_pickle_is_not_executed(tmp_path: Path, protocol: int, wrapped: bool) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar10(folder)
    mark = tmp_path / "executed"
    evil = {b"data": Evil(mark), b"labels": []} if wrapped else Evil(mark)
    (folder / "data_batch_3").write_bytes(pickle.dumps(evil, protocol=protocol))
    with pytest.raises(InputError, match=r"data_batch_3.*refused") as caught:
        load("cifar10", root=tmp_path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    "stream",
    [
        b"cnumpy\nload\n.",
        b"cbuiltins\neval\n.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
        b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.dump\x93.",
    ],
)
def test_other_names_are_refused(stream: bytes) -> None:
    with pytest.raises(InputError, match="refused"):
        restricted_loads(stream, "x")


def damage(folder: Path, kind: str) -> None:
    path = folder / "data_batch_2"
    good = pickle.loads(path.read_bytes())
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "missing":
        path.unlink()
    elif kind == "text":
        path.write_text("hello\n")
    elif kind == "list":
        path.write_bytes(pickle.dumps([1, 2]))
    elif kind == "short labels":
        path.write_bytes(pickle.dumps({**good, b"labels": [1]}))
    elif kind == "label 10":
        path.write_bytes(pickle.dumps({**good, b"labels": [10] * 40}))
    elif kind == "no data":
        path.write_bytes(pickle.dumps({b"labels": [1]}))
    elif kind == "float data":
        path.write_bytes(pickle.dumps({**good, b"data": np.zeros((40, 3072))}))


@pytest.mark.parametrize(
    "kind", ["truncated", "empty", "missing", "text", "list", "short labels", "label 10", "no data", "float data"]
)
def test_damaged_batches_are_named(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar10(folder)
    damage(folder, kind)
    with pytest.raises(InputError, match="data_batch_2") as caught:
        load("cifar10", root=tmp_path)
    assert "\n" not in str(caught.value)


def test_full_size_file_with_another_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar10(folder)
    layout = cifar.LAYOUTS["cifar10"]
    monkeypatch.setitem(layout.train, "data_batch_4", ("0" * 32, 40))
    with pytest.raises(InputError, match=r"data_batch_4.*MD5"):
        load("cifar10", root=tmp_path)


def test_environment_names_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path / "here" / "cifar10")
    monkeypatch.setenv("SADDLESCAPE_DATA", str(tmp_path / "here"))
    assert len(load("cifar10").train) == 200
    monkeypatch.delenv("SADDLESCAPE_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match="--download"):
        load("cifar10")
    write_cifar10(tmp_path / "saddlescape" / "data" / "cifar10")
    assert len(load("cifar10").train) == 200


def test_draw_follows_the_profile(tmp_path: Path) -> None:
    pixels = write_cifar10(tmp_path / "cifar10")
    dataset = load("cifar10", root=tmp_path, imbalance=10)
    assert dataset.class_counts == [20, 15, 11, 9, 7, 5, 4, 3, 2, 2]
    # Again by hand: positions of class 1 in the original order, shuffled second by the one generator.
    generator = np.random.RandomState(0)
    everything = np.concatenate([pixels[f"data_batch_{k}"] for k in range(1, 6)])
    for label in (0, 1):
        positions = np.arange(200)[np.tile(np.arange(10), 20) == label]
        generator.shuffle(positions)
    assert (dataset.train.images[20:35].reshape(15, -1).numpy() == everything[positions[:15]]).all()
    other = load("cifar10", root=tmp_path, imbalance=10, seed=1)
    assert other.class_counts == dataset.class_counts and other.draw_hash != dataset.draw_hash
    assert load("cifar10", root=tmp_path, imbalance=10).draw_hash == dataset.draw_hash


@needs_real
@pytest.mark.slow
@pytest.mark.parametrize(("name", "imbalance", "total"), [("cifar10", 100, 12406), ("cifar100", 50, 12608)])
def test_real_shards(name: str, imbalance: int, total: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dataset = load(name, root=REAL, imbalance=imbalance)
    assert len(list((tmp_path / "saddlescape" / "pixels").glob("*.bin"))) == 2
    assert load(name, root=REAL, imbalance=imbalance).draw_hash == dataset.draw_hash  # from the cache
    assert (len(dataset.train), len(dataset.test)) == (total, 10000)
    assert dataset.train.images.dtype == torch.uint8 and dataset.train.images.shape[1:] == (3, 32, 32)
    assert (torch.bincount(dataset.test.labels) == 10000 // dataset.num_classes).all()
    assert torch.bincount(dataset.train.labels).tolist() == dataset.class_counts
    # The published normalisation constants are those of CIFAR-10's full training set: the balanced test set is close.
    if name == "cifar10":
        mean = dataset.test.images.float().mean(dim=(0, 2, 3)) / 255
        assert torch.allclose(mean, torch.tensor(dataset.preprocess.mean), atol=0.01)
