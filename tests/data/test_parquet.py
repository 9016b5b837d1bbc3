"""Hugging Face-layout parquet: columns, shards, names, and files that are not whole."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saddlescape.data import cache, check, load
from saddlescape.errors import InputError, MissingExtraError

pa = pytest.importorskip("pyarrow", reason="reading parquet is an extra")
pq = pytest.importorskip("pyarrow.parquet")


def png(level: int, side: int = 8) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), (level, level, level)).save(out, "PNG")
    return out.getvalue()


def write(
    path: Path,
    labels: list[object],
    *,
    image: str = "image",
    label: str = "label",
    start: int = 0,
    names: list[str] | None = None,
    plain: bool = False,
    row_group: int = 4,
) -> Path:
    """Image i of the shard has grey level start + i."""
    contents = [png(start + i) for i in range(len(labels))]
    column = contents if plain else [{"bytes": c, "path": f"{i}.png"} for i, c in enumerate(contents)]
    table = pa.table({image: column, "extra": [0.5] * len(labels), label: labels})
    if names:
        feature = {"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(feature)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group)
    return path


def levels(split) -> list[int]:  # type: ignore[no-untyped-def]
    return split.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("sub", [".", "data", "plain_text"])
@pytest.mark.parametrize("plain", [False, True])
def test_shards_in_order_with_names(tmp_path: Path, sub: str, plain: bool) -> None:
    names = ["cat", "dog"]
    write(tmp_path / sub / "train-00001-of-00002.parquet", [1, 0, 1], start=100, names=names, plain=plain)
    write(tmp_path / sub / "train-00000-of-00002.parquet", [0, 1, 1, 0, 0], names=names, plain=plain)
    write(tmp_path / sub / "test-00000-of-00001.parquet", [1, 0], start=200, names=names, plain=plain)
    write(tmp_path / sub / "validation-00000-of-00001.parquet", [0], start=50, names=names, plain=plain)
    dataset = load(tmp_path)
    assert dataset.classes == names and dataset.class_counts == [4, 4]
    assert levels(dataset.train) == [0, 1, 2, 3, 4, 100, 101, 102]
    assert dataset.train.labels.tolist() == [0, 1, 1, 0, 0, 1, 0, 1]
    assert levels(dataset.test) == [200, 201] and levels(dataset.val) == [50]
    assert dataset.train.names[6] == "train-00001-of-00002.parquet row 1"


def test_only_the_kept_images_are_fetched_and_in_draw_order(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0] * 10 + [1] * 10, image="img", label="fine_label")
    write(tmp_path / "test.parquet", [0, 1], image="img", label="fine_label")
    dataset = load(tmp_path, imbalance=5)
    generator = np.random.RandomState(0)
    first, second = np.arange(10), np.arange(10, 20)
    generator.shuffle(first)
    generator.shuffle(second)
    assert levels(dataset.train) == [*first.tolist(), *second[:2].tolist()]


def test_text_labels_classes_file_and_single_files(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.parquet", ["dog", "cat", "dog", "cat"])
    dataset = load(path)
    assert dataset.classes == ["cat", "dog"] and len(dataset.test) == 2
    renamed = path.rename(tmp_path / "mine.data")
    assert load(renamed).classes == ["cat", "dog"]
    other = write(tmp_path / "numbers" / "train.parquet", [0, 1, 0, 1])
    assert load(other.parent).classes == ["0", "1"]
    (other.parent / "classes.txt").write_text("x\ny\n")
    assert load(other.parent).classes == ["x", "y"]


def test_missing_shards_are_noted(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00005.parquet", [0, 1, 0, 1])
    assert any("1 of 5 shards" in note for note in load(tmp_path).notes)


@pytest.mark.parametrize("keep", [0, 3, 200, -1])
def test_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "train-00000-of-00001.parquet", [0, 1] * 10)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"train-00000-of-00001\.parquet: .*damaged or truncated") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", [0, 1] * 10)
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"train\.parquet"):
        load(tmp_path)


def test_unreadable_rows_are_named_or_skipped(tmp_path: Path) -> None:
    contents = [png(1), b"", b"no image", png(4), png(5), png(6)]
    table = pa.table({"image": [{"bytes": c, "path": None} for c in contents], "label": [0, 0, 1, 1, 0, 1]})
    pq.write_table(table, tmp_path / "train.parquet")
    write(tmp_path / "test.parquet", [0, 1])
    with pytest.raises(InputError, match=r"train\.parquet row 1: .*empty.*and 1 more"):
        load(tmp_path)
    dataset = load(tmp_path, bad_images="skip")
    assert levels(dataset.train) == [1, 4, 5, 6] and len(dataset.skipped) == 2
    report = check(tmp_path)
    assert [name for name, _ in report.unreadable] == ["train.parquet row 1", "train.parquet row 2"]


@pytest.mark.parametrize(
    ("labels", "column", "words"),
    [
        ([0, 1, None, 1], "label", "row 2: label is None"),
        ([0, -1], "label", "row 1: label -1"),
        ([0.5, 1.5], "label", "row 0: label is 0.5"),
        ([0.0, float("nan")], "label", "row 1: label is nan"),
        ([[0], [1]], "label", "its column 'label' holds list<.*>, expected integers or names"),
        ([0, 10**12], "label", "label 1000000000000, but fewer images than that"),
        ([0, 1], "weight", "no label column among image, extra, weight"),
    ],
)
def test_bad_labels(tmp_path: Path, labels: list[object], column: str, words: str) -> None:
    write(tmp_path / "train.parquet", labels, label=column)
    with pytest.raises(InputError, match=words):
        load(tmp_path)


def test_no_image_column_no_train_and_too_large(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), tmp_path / "train.parquet")
    with pytest.raises(InputError, match="no image column among text, label"):
        load(tmp_path)
    other = write(tmp_path / "b" / "test.parquet", [0, 1])
    with pytest.raises(InputError, match="no training shards"):
        load(other.parent)
    third = write(tmp_path / "c" / "train.parquet", [0, 1, 0, 1])
    with pytest.raises(InputError, match="memory limit"):
        load(third, memory_limit=100)


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "train.parquet", [0, 1, 0, 1])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"saddlescape\[parquet\]"):
        load(tmp_path)


def test_cached_pixels_are_the_decoded_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "MIN_IMAGES", 10)
    path = write(tmp_path / "mine.parquet", [0, 1] * 20)
    where = tmp_path / "cache" / "saddlescape" / "pixels"
    monkeypatch.setenv("SADDLESCAPE_CACHE", "off")
    plain = load(path)
    assert not where.exists()
    monkeypatch.delenv("SADDLESCAPE_CACHE")
    assert torch.equal(load(path).train.images, plain.train.images)
    (kept,) = where.iterdir()  # 32 training images; 8 for testing are too few
    sound = kept.read_bytes()
    # Really read: an entry of other pixels with a right checksum would be believed ...
    other = bytes(len(sound) - 32)
    kept.write_bytes(hashlib.sha256(other).digest() + other)
    assert load(path).train.images.sum() == 0
    # ... but a damaged or cut one is decoded again and mended.
    for damaged in (sound[:-1], sound[:-1] + b"x", b""):
        kept.write_bytes(damaged)
        assert torch.equal(load(path).train.images, plain.train.images)
        assert kept.read_bytes() == sound
    # Another picture size, draw or state of the file is another entry.
    load(path, image_size=16)
    load(path, imbalance=1.5)
    assert len(list(where.iterdir())) == 3
    write(tmp_path / "mine.parquet", [0, 1] * 20, start=7)
    assert not torch.equal(load(path).train.images, plain.train.images)
    # The oldest go when there is too much.
    monkeypatch.setattr(cache, "MAX_BYTES", 2 * len(sound))
    load(path, image_size=31)
    kept_files = sorted(where.iterdir(), key=lambda each: each.stat().st_mtime_ns)
    assert sum(each.stat().st_size for each in kept_files) <= cache.MAX_BYTES
    assert len(kept_files) == 2  # pictures of 31 pixels, and the entry before them
    # A cache that cannot be written is none.
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    assert len(load(path).train) == 32


def test_cifar_from_parquet_needs_the_right_set(tmp_path: Path) -> None:
    write(tmp_path / "cifar10" / "train-00000-of-00001.parquet", [*range(10)] * 2, image="img")
    write(tmp_path / "cifar10" / "test-00000-of-00001.parquet", [*range(10)], image="img")
    dataset = load("cifar10", root=tmp_path)
    assert dataset.classes[9] == "truck" and dataset.class_counts == [2] * 10 and len(dataset.test) == 10
    assert load("cifar10", root=tmp_path / "cifar10").draw_hash == dataset.draw_hash
    with pytest.raises(InputError, match="cifar100 is not under"):
        load("cifar100", root=tmp_path / "cifar10")
    (tmp_path / "cifar10" / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(InputError, match="no test shard"):
        load("cifar10", root=tmp_path)


def test_a_ready_made_long_tail_is_taken_as_it_is_and_images_sorted_by_class_are_not(tmp_path: Path) -> None:
    drawn = [0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]  # 10 and 2, mixed: imbalance 5
    write(tmp_path / "train.parquet", [*drawn, 1, 1, 1], image="img", label="label")
    write(tmp_path / "test.parquet", [0, 1], image="img", label="label")
    dataset = load(tmp_path, imbalance=5)
    assert levels(dataset.train) == list(range(12))
    assert any("taken as they are" in note for note in dataset.notes)
    other_seed = load(tmp_path, imbalance=5, seed=1)
    assert levels(other_seed.train) != list(range(12))
    write(tmp_path / "train.parquet", [0] * 10 + [1] * 5, image="img", label="label")
    by_class = load(tmp_path, imbalance=5)
    assert by_class.class_counts == [10, 2]
    assert not any("taken as they are" in note for note in by_class.notes)


INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float", "double"]


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize(
    ("kind", "labels", "classes"),
    [
        *((kind, [0, 1, 1, 0], ["0", "1"]) for kind in INTEGERS),
        ("string", ["dog", "cat", "cat", "dog"], ["cat", "dog"]),
        ("large_string", ["dog", "cat", "cat", "dog"], ["cat", "dog"]),
        ("string_view", ["dog", "cat", "cat", "dog"], ["cat", "dog"]),
        ("binary", [b"dog", b"cat", b"cat", b"dog"], ["cat", "dog"]),
        ("bool", [True, False, False, True], ["False", "True"]),
        ("decimal", [0, 1, 1, 0], ["0", "1"]),
    ],
)
def test_labels_of_every_type(tmp_path: Path, kind: str, labels: list[object], classes: list[str], coded: bool) -> None:
    values = [np.float16(v) for v in labels] if kind == "float16" else labels
    kind = {"bool": "bool_", "float": "float32", "double": "float64"}.get(kind, kind)
    column = pa.array(values, type=pa.decimal128(5, 0) if kind == "decimal" else getattr(pa, kind)())
    try:
        column = column.dictionary_encode() if coded else column
        pq.write_table(pa.table({"image": [png(i) for i in range(4)], "label": column}), tmp_path / "train.parquet")
    except pa.ArrowNotImplementedError:
        pytest.skip("pyarrow writes no dictionary of this type")
    (tmp_path / "test.parquet").write_bytes((tmp_path / "train.parquet").read_bytes())
    dataset = load(tmp_path)
    assert dataset.classes == classes
    assert [classes[label] for label in dataset.train.labels] == [
        str(label.decode() if isinstance(label, bytes) else label) for label in labels
    ]


@pytest.mark.parametrize("labels", [[-1, -1], [None, None], "no column"])
def test_test_shards_without_labels_are_named_and_not_used(tmp_path: Path, labels: object) -> None:
    write(tmp_path / "train.parquet", [0, 1] * 5)
    table = pa.table({"image": [png(i) for i in (90, 91)]})
    if isinstance(labels, list):
        table = table.append_column("label", pa.array(labels, type=pa.int64()))
    pq.write_table(table, tmp_path / "test.parquet")
    dataset = load(tmp_path)
    assert any("the test shards have 2 images without labels" in note for note in dataset.notes)
    assert len(dataset.train) + len(dataset.test) == 10
    assert check(tmp_path).ok


def test_labels_in_two_unicode_forms_are_one_class(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", ["caf\u00e9", "cafe\u0301", "tea", "tea"])
    assert load(tmp_path).classes == ["caf\u00e9", "tea"]
