"""The embedded default, names and options of ``load``; holding out a validation split; the report of ``check``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from saddlescape.data import ArraySplit, check, draw_hash, hold_out, load, stratified_split
from saddlescape.errors import InputError


def test_digits_are_scikit_learns() -> None:
    dataset = load("digits")
    assert dataset.class_counts == [120] * 10 and len(dataset.test) == 597
    assert dataset.train.images.shape == (1200, 1, 8, 8) and dataset.preprocess.channels == 1
    bunch = load_digits()
    seen = set()
    for split in (dataset.train, dataset.test):
        numbers = [int(name.split()[-1]) for name in split.names]
        assert (bunch.target[numbers] == split.labels.numpy()).all()
        assert np.abs(split.images[:, 0].numpy() - bunch.images[numbers] * 255 / 16).max() <= 0.5
        seen |= set(numbers)
    assert len(seen) == 1797
    normalised = dataset.preprocess.normalize(dataset.train.images)
    assert abs(normalised.mean()) < 1e-3 and abs(normalised.std() - 1) < 1e-3


def test_digits_lt() -> None:
    dataset = load("digits", imbalance=50)
    assert dataset.class_counts == [120, 77, 50, 32, 21, 13, 8, 5, 3, 2]
    assert dataset.train.labels.tolist() == np.repeat(np.arange(10), dataset.class_counts).tolist()
    full = load("digits")
    assert torch.equal(dataset.test.images, full.test.images) and dataset.preprocess == full.preprocess
    assert load("digits", imbalance=50).draw_hash == dataset.draw_hash != load("digits", imbalance=50, seed=1).draw_hash
    cut = load("digits", imbalance=50, groups=(50, 10)).groups
    assert cut == {"head": [0, 1], "mid": [2, 3, 4, 5], "tail": [6, 7, 8, 9]}


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("digit", {}, "unknown data set 'digit': did you mean 'digits'"),
        ("imagenet", {}, "Known are digits, cifar10, cifar100"),
        ("no/such/folder", {}, "no such file or folder"),
        ("digits", {"imbalance": 0.5}, "imbalance is 0.5"),
        ("digits", {"imbalance": 0}, "imbalance is 0"),
        ("digits", {"imbalance": 1000}, "leaves class '7' without images.*a smaller imbalance"),
        ("digits", {"imbalance": 10, "profile": "linear"}, "unknown profile"),
        ("digits", {"imbalance": 10, "n_max": 500}, "class '0' has too few images.*500 wanted, 120 present"),
        ("digits", {"bad_images": "maybe"}, "'error' or 'skip'"),
        ("digits", {"image_size": 32}, "8 x 8"),
        ("digits", {"image_size": 0}, "image_size"),
        ("digits", {"background": 300}, "background"),
        ("digits", {"groups": "halves"}, "group rule"),
    ],
)
def test_bad_input_is_one_line(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_small_first_class_is_told_what_can_be_done(tmp_path: Path) -> None:
    """Nobody who named a folder chose an n_max, so nobody is told to choose another one."""
    for name, count in (("a", 3), ("b", 9), ("c", 9)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("RGB", (4, 4), (i * 20, count, 0)).save(tmp_path / name / f"{i}.png")
    with pytest.raises(InputError, match=r"class 'a' has too few images.*order the classes by size") as caught:
        load(tmp_path, imbalance=2, image_size=4)
    assert "n_max" not in str(caught.value)


def test_other_things_a_path_may_be(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="unpack it"):
        load(tmp_path / "data.zip")
    Image.new("RGB", (4, 4)).save(tmp_path / "one.png")
    with pytest.raises(InputError, match=r"one\.png"):
        load(tmp_path / "one.png")


def test_progress_is_told(tmp_path: Path) -> None:
    for i in range(8):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    told: list[tuple[str, int, int | None]] = []
    load(tmp_path, progress=lambda *news: told.append(news))
    assert ("reading train images", 6, 6) in told and ("reading test images", 2, 2) in told


def test_stratified_split_takes_a_share_of_every_class() -> None:
    labels = np.array([0] * 10 + [1] * 3 + [2] + [3] * 2)
    stay, aside = stratified_split(labels, 0.2)
    assert sorted([*stay, *aside]) == list(range(16))
    assert np.bincount(labels[aside], minlength=4).tolist() == [2, 1, 0, 1]
    assert (stratified_split(labels, 0.2)[1] == aside).all()
    assert any((stratified_split(labels, 0.2, seed)[1] != aside).any() for seed in range(1, 4))
    assert np.bincount(labels[stratified_split(labels, 0.99)[0]]).tolist() == [1, 1, 1, 1]
    for wrong in (0, 1, -0.1, float("nan")):
        with pytest.raises(InputError, match="between 0 and 1"):
            stratified_split(labels, wrong)


def test_hold_out_leaves_single_images_and_the_test_set() -> None:
    dataset = load("digits", imbalance=100)
    assert dataset.class_counts[-1] == 1
    held = hold_out(dataset, 0.2, seed=3)
    assert held.class_counts == [96, 57, 34, 20, 12, 7, 4, 2, 1, 1]
    assert held.test is dataset.test and held.groups == dataset.groups
    assert set(held.train.names) | set(held.val.names) == set(dataset.train.names)
    assert not set(held.train.names) & set(held.val.names)
    assert any("all stay in training: 9" in note for note in held.notes)
    assert held.draw_hash == draw_hash(held.train) != dataset.draw_hash
    positions = [list(dataset.train.names).index(name) for name in held.val.names]
    assert torch.equal(held.val.images, dataset.train.images[positions])
    with pytest.raises(InputError, match="leave out --val"):
        hold_out(held, 0.2)
    with pytest.raises(InputError, match="between 0 and 1"):
        hold_out(dataset, 1.5)
    one_each = replace(
        dataset, train=ArraySplit(dataset.train.images[:2], torch.tensor([0, 1])), class_counts=[1, 1] + [0] * 8
    )
    with pytest.raises(InputError, match="none can be held out"):
        hold_out(one_each, 0.2)


def test_extra_validation_is_balanced_and_left_over_by_the_draw() -> None:
    whole, drawn = load("digits"), load("digits", imbalance=50)
    data = load("digits", imbalance=50, extra=True)
    assert data.val is not None
    # the largest class is drawn whole: it gives as many of its own as the next one has left over
    fewest = min(120 - count for count in drawn.class_counts if count < 120)
    assert torch.bincount(data.val.labels).tolist() == [fewest] * 10
    assert data.class_counts == [120 - fewest, *drawn.class_counts[1:]] and len(data.test) == len(whole.test)

    def of(split) -> set[bytes]:
        return {image.numpy().tobytes() for image in split.images}

    assert not of(data.val) & of(data.train) and of(data.train) < of(drawn.train)
    assert data.draw_hash != drawn.draw_hash and data.held_hash
    assert load("digits", imbalance=50, extra=True).held_hash == data.held_hash
    for options, words in (({}, "give --imbalance"), ({"imbalance": 1}, "leaves no image")):
        with pytest.raises(InputError, match=words):
            load("digits", extra=True, **options)


def test_draw_hash_sees_labels_pixels_and_order() -> None:
    images, labels = torch.arange(8, dtype=torch.uint8).reshape(2, 1, 2, 2), torch.tensor([0, 1])
    first = draw_hash(ArraySplit(images, labels))
    assert len(first) == 16 and int(first, 16) >= 0
    others = [
        ArraySplit(images.flip(0), labels),
        ArraySplit(images, labels.flip(0)),
        ArraySplit(images.reshape(2, 1, 1, 4), labels),
        ArraySplit(images + 1, labels),
    ]
    assert len({first, *(draw_hash(split) for split in others)}) == 5
    assert draw_hash(ArraySplit(images.clone(), labels.clone(), ["a", "b"])) == first


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("hf://datasets/x/y", None, "an address"), ("https://x.org/a.csv", None, "an address"),
        ("x.json", b"{}", "not images"),
        ("x.pt", b"PK", "not images"), ("x.h5", b"\x89HDF", "not images"), ("x.png", b"\x89PNG\r\n\x1a\n" + bytes(9),
         "a single image"), ("x", b"\xff\xd8\xff" + bytes(20), "a single image"), ("x.tar.xz", b"", "unpack it"),
        ("x.bin", b"\x80\0\xff" * 40, "not a text file"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_images_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    for read in (load, check):
        with pytest.raises(InputError, match=words) as caught:
            read(name)
        assert "\n" not in str(caught.value)
        assert "CSV" in str(caught.value) or "unpack" in words or "path label" in str(caught.value)
