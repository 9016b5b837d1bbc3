"""A folder per class: layouts, stray files, missing and unknown classes, broken images."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saddlescape.data import ArraySplit, FileSplit, check, load
from saddlescape.errors import InputError


def paint(path: Path, level: int = 0, size: tuple[int, int] = (10, 10), **options: object) -> Path:
    """A picture whose every pixel has this level, so that it can be told apart after loading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path, **options)  # type: ignore[arg-type]
    return path


def tree(root: Path, classes: Sequence[str] = ("cat", "dog", "eel", "fox"), each: int = 3) -> Path:
    for c, name in enumerate(classes):
        for i in range(each):
            paint(root / name / f"{i}.png", 10 * c + i)
    return root


def test_train_and_test_are_mapped_by_name(tmp_path: Path) -> None:
    tree(tmp_path / "train")
    paint(tmp_path / "test" / "fox" / "a.png", 200)
    paint(tmp_path / "test" / "cat" / "a.png", 100)
    (tmp_path / "test" / "eel").mkdir()  # an empty folder; dog has none at all
    (tmp_path / "val").mkdir()  # no split
    dataset = load(tmp_path)
    assert dataset.name == tmp_path.name
    assert dataset.classes == ["cat", "dog", "eel", "fox"] and dataset.class_counts == [3, 3, 3, 3]
    assert dataset.test.labels.tolist() == [0, 3] and dataset.val is None
    assert dataset.test.images[:, 0, 0, 0].tolist() == [100, 200]
    assert dataset.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32]
    assert any("lacks 2 of 4 classes" in note and "dog, eel" in note for note in dataset.notes)
    report = check(tmp_path)
    assert report.ok and ("test", "eel") in report.empty and report.counts["test"] == [1, 0, 0, 1]


@pytest.mark.parametrize(("second", "third"), [("val", None), ("test", "val"), ("Testing", "Validation")])
def test_names_of_splits(tmp_path: Path, second: str, third: str | None) -> None:
    tree(tmp_path / "Train", each=2)
    tree(tmp_path / second, each=1)
    if third:
        tree(tmp_path / third, each=2)
    dataset = load(tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (8, 4)
    assert (len(dataset.val) if dataset.val else None) == (8 if third else None)


def test_class_folders_alone_are_split_stratified_and_always_alike(tmp_path: Path) -> None:
    tree(tmp_path, each=5)
    paint(tmp_path / "gnu" / "only.png", 250)
    first, second = load(tmp_path, seed=0), load(tmp_path, seed=9)
    assert first.class_counts == [4, 4, 4, 4, 1]
    assert np.bincount(first.test.labels, minlength=5).tolist() == [1, 1, 1, 1, 0]
    assert list(first.test.names) == list(second.test.names)
    assert not set(first.test.names) & set(first.train.names)
    assert any("single image" in note and "gnu" in note for note in first.notes)


def test_stray_files_are_ignored_and_unusual_names_read(tmp_path: Path) -> None:
    tree(tmp_path, ("cat", "dög with space"), each=2)
    for stray in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", "notes.txt", "labels.csv"):
        (tmp_path / "cat" / stray).write_bytes(b"stray")
        (tmp_path / stray).write_bytes(b"stray")
    for folder in (".ipynb_checkpoints", "__MACOSX", ".git"):
        paint(tmp_path / folder / "x.png")
        paint(tmp_path / "cat" / folder / "x.png")
    paint(tmp_path / "cat" / "BIG.JPG", format="JPEG")
    paint(tmp_path / "cat" / "Mixed.Jpeg", format="JPEG")
    paint(tmp_path / "cat" / "truth.jpg", format="WEBP")
    paint(tmp_path / "cat" / "no ending", format="PNG")
    paint(tmp_path / "cat" / "deep" / "er" / "ünïcode ☃.gif")
    dataset = load(tmp_path)
    assert dataset.classes == ["cat", unicodedata.normalize("NFC", "dög with space")]
    assert len(dataset.train) + len(dataset.test) == 2 + 5 + 2
    report = check(tmp_path)
    assert report.ok and sum(map(sum, report.counts.values())) == 9
    ignored = {Path(name).name for name in report.ignored}
    assert {"Thumbs.db", "notes.txt", ".DS_Store", "._0.png"} <= ignored


def test_accents_written_in_two_ways_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    tree(tmp_path / "train", (composed, "tea"))
    tree(tmp_path / "test", (decomposed, "tea"), each=1)
    dataset = load(tmp_path)
    assert dataset.classes == [composed, "tea"] and dataset.test.labels.tolist() == [0, 1]


def test_links_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    tree(tmp_path / "data", ("a", "b"))
    (tmp_path / "data" / "a" / "loop").symlink_to(tmp_path / "data" / "a")
    paint(tmp_path / "elsewhere" / "x.png")
    (tmp_path / "data" / "c").symlink_to(tmp_path / "elsewhere")
    assert check(tmp_path / "data").counts == {"train": [2, 2, 1], "test": [1, 1, 0]}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: tree(root, ("cat",)), "only one class folder, 'cat'.*one folder per class"),
        (lambda root: paint(root / "a.jpg"), "no class folders.*one folder per class"),
        (lambda root: root.mkdir(), "no class folders"),
        (lambda root: tree(root / "dataset"), "did you mean"),
        (lambda root: tree(root / "train", ("cat",)), "only one class"),
        (lambda root: tree(root / "test"), "no train/ folder"),
        (lambda root: [tree(root / "train"), tree(root / "test", ("wolf",))], "'wolf' is not among the training"),
        (lambda root: [tree(root / "train", ("Cat", "dog")), tree(root / "test", ("cat", "dog"))],
         "rename the folder to 'Cat'"),
        (lambda root: [tree(root / "train"), (root / "test").mkdir()], "no images in the test/ folder"),
        (lambda root: [tree(root), (root / "gnu").mkdir()], "'gnu' .* no training images"),
        (lambda root: [(root / c).mkdir(parents=True) for c in "ab"], "no images in 2 class folders"),
        (lambda root: tree(root, each=1), "no class has two images"),
    ],
)  # fmt: skip
def test_layouts_that_are_refused(tmp_path: Path, make, words: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "mine")
    with pytest.raises(InputError, match=words) as caught:
        load(tmp_path / "mine")
    assert "\n" not in str(caught.value)


def broken_tree(root: Path) -> list[str]:
    tree(root / "train", each=4)
    tree(root / "test", each=1)
    sound = (root / "train" / "cat" / "0.png").read_bytes()
    (root / "train" / "cat" / "1.png").write_bytes(b"")
    (root / "train" / "dog" / "2.png").write_bytes(sound[: len(sound) // 2])
    (root / "train" / "fox" / "3.jpg").write_bytes(b"<html>not found</html>")
    return ["cat/1.png", "dog/2.png", "fox/3.jpg"]


def test_broken_images_are_named(tmp_path: Path) -> None:
    broken_tree(tmp_path)
    with pytest.raises(InputError, match=r"cat.1\.png.*empty.*and 2 more.*--bad-images skip") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    report = check(tmp_path)
    assert not report.ok and len(report.unreadable) == 3
    assert sum("3.jpg" in line for line in report.lines()) == 1


@pytest.mark.parametrize("memory_limit", [2 << 30, 1])
def test_broken_images_can_be_skipped_and_the_order_stays(tmp_path: Path, memory_limit: int) -> None:
    names = broken_tree(tmp_path)
    dataset = load(tmp_path, bad_images="skip", memory_limit=memory_limit)
    assert isinstance(dataset.train, ArraySplit if memory_limit > 1 else FileSplit)
    assert [Path(name).parent.name + "/" + Path(name).name for name, _ in dataset.skipped] == names
    assert dataset.class_counts == [3, 3, 4, 4]  # fox/3.png stays, fox/3.jpg was one more
    expected = sorted(str(p) for p in (tmp_path / "train").rglob("*.png"))
    expected = [name for name in expected if not name.endswith(("cat/1.png", "dog/2.png"))]
    assert list(dataset.train.names) == expected
    assert any("3 images cannot be read" in note for note in dataset.notes)


def test_class_left_without_images_is_refused(tmp_path: Path) -> None:
    tree(tmp_path / "train", ("a", "b"), each=1)
    tree(tmp_path / "test", ("a", "b"), each=1)
    (tmp_path / "train" / "b" / "0.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"class 'b' .* has no readable training images"):
        load(tmp_path, bad_images="skip")


@pytest.mark.parametrize(("side", "size"), [(8, 32), (40, 32), (50, 64), (100, 128), (200, 224), (900, 224)])
def test_size_follows_the_pictures(tmp_path: Path, side: int, size: int) -> None:
    for name in "ab":
        for i in range(2):
            paint(tmp_path / name / f"{i}.png", 100, (side, side + 7 * i))
    dataset = load(tmp_path)
    assert dataset.preprocess.image_size == dataset.preprocess.resize_to == size
    assert dataset.train.images.shape[2:] == (size, size)
    assert any(f"image size {size}" in note for note in dataset.notes)
    assert load(tmp_path, image_size=16).train.images.shape[2:] == (16, 16)


def test_mean_and_std_are_those_of_the_training_images(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = generator.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    for split, numbers in (("train", range(4)), ("test", range(4, 6))):
        for i in numbers:
            path = tmp_path / split / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(arrays[i]).save(path)
    for memory_limit in (2 << 30, 1):
        preprocess = load(tmp_path, memory_limit=memory_limit).preprocess
        pixels = arrays[:4].astype(np.float64) / 255
        assert np.allclose(preprocess.mean, pixels.mean(axis=(0, 1, 2)), atol=6e-5)
        assert np.allclose(preprocess.std, pixels.std(axis=(0, 1, 2)), atol=6e-5)
    for path in tmp_path.rglob("*.png"):
        paint(path, 7)
    assert load(tmp_path).preprocess.std == (0.01,) * 3


def test_imbalance_thins_any_source(tmp_path: Path) -> None:
    tree(tmp_path / "train", ("a", "b", "c"), each=20)
    tree(tmp_path / "test", ("a", "b", "c"), each=2)
    dataset = load(tmp_path, imbalance=10)
    assert dataset.class_counts == [20, 6, 2]  # int(20 * 0.1 ** (1/2)) = 6
    assert load(tmp_path, imbalance=10, profile="step").class_counts == [20, 20, 2]
    for path in sorted((tmp_path / "train" / "b").iterdir())[5:]:
        path.unlink()
    with pytest.raises(InputError, match=r"class 'b' .* 6 wanted, 5 present") as caught:
        load(tmp_path, imbalance=10)
    assert "order the classes" not in str(caught.value)  # which helps where the first one is too small
    for path in sorted((tmp_path / "train" / "a").iterdir())[:5]:
        path.unlink()
    with pytest.raises(InputError, match=r"class 'a' .* 20 wanted, 15 present"):
        load(tmp_path, imbalance=10)
    assert load(tmp_path, imbalance=10, n_max=15).class_counts == [15, 4, 1]
    with pytest.raises(InputError, match="leaves class 'c' without images"):
        load(tmp_path, imbalance=100)


def test_two_places_one_draw(tmp_path: Path) -> None:
    hashes = []
    for place in ("here", "there"):
        tree(tmp_path / place)
        hashes.append([load(tmp_path / place, memory_limit=limit).draw_hash for limit in (1, 2 << 30)])
    assert hashes[0] == hashes[1] and hashes[0][0] != hashes[0][1]
    paint(tmp_path / "there" / "cat" / "0.png", 99, (11, 12))
    assert load(tmp_path / "there").draw_hash != hashes[0][1]


def test_file_names_in_no_known_encoding(tmp_path: Path) -> None:
    tree(tmp_path, ("a", "b"))
    try:
        (tmp_path / "a" / "0.png").rename(tmp_path / "a" / os.fsdecode(b"caf\xe9.png"))
    except OSError:
        pytest.skip("this file system only takes UTF-8 names")
    for memory_limit in (1, 2 << 30):
        dataset = load(tmp_path, memory_limit=memory_limit)
        assert len(dataset.train) + len(dataset.test) == 6 and len(dataset.draw_hash) == 16


def test_check_finds_duplicates_leaks_and_contradictions(tmp_path: Path) -> None:
    tree(tmp_path / "train", ("a", "b"))
    tree(tmp_path / "test", ("a", "b"), each=1)
    for copy in (tmp_path / "train" / "a" / "copy.png", tmp_path / "train" / "b" / "copy.png"):
        copy.write_bytes((tmp_path / "train" / "a" / "0.png").read_bytes())
    report = check(tmp_path)
    assert len(report.duplicates) == 2  # a/0 in five places, b/0 in two
    assert len(report.leaks) == 2 and len(report.contradictions) == 1
    assert any("different labels" in line for line in report.lines())


@pytest.mark.parametrize("place", ["b", "train/b", "test", "train", "test/b", "val"])
def test_a_link_to_nothing_in_the_place_of_a_class_or_split_is_named(tmp_path: Path, place: str) -> None:
    root = tree(tmp_path / "d", ("a", "c"))
    if place != "b":
        for split in ("train", "test"):
            if split != place:
                tree(root / split, ("a", "c"))
        for name in "ac":
            shutil.rmtree(root / name)
    (root / place).symlink_to(tmp_path / "gone" / "b")
    with pytest.raises(InputError, match=f"d/{place}: a link to .*gone/b, which is not there"):
        load(root, bad_images="skip")
    with pytest.raises(InputError, match=f"d/{place}: a link to"):
        check(root)


@pytest.mark.parametrize("name", ["gone.png", "gone"])
def test_a_link_to_nothing_among_the_images_is_an_unreadable_image(tmp_path: Path, name: str) -> None:
    root = tree(tmp_path / "d", ("a", "c"))
    (root / "a" / name).symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(InputError, match=f"a/{name}: cannot read image: a link to .*elsewhere.png"):
        load(root)
    assert [Path(path).name for path, _ in load(root, bad_images="skip").skipped] == [name]
    assert len(check(root).unreadable) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "d", ("a", "c"))
    paint(root / "a" / "deep" / "x.png")
    (root / "a" / "deep").chmod(0)
    try:
        with pytest.raises(InputError, match="a/deep: cannot be listed: Permission denied"):
            load(root)
    finally:
        (root / "a" / "deep").chmod(0o755)


def test_a_pipe_among_the_images_is_stray(tmp_path: Path) -> None:
    root = tree(tmp_path / "d", ("a", "c"))
    os.mkfifo(root / "a" / "pipe")
    assert load(root).class_counts == [2, 2]


@pytest.mark.parametrize("word", ["train", "training", "val", "valid", "validation", "dev", "test", "testing", "Val"])
@pytest.mark.parametrize("inner", [None, ("x", "y")])
def test_classes_with_names_of_splits_stay_classes(
    tmp_path: Path, word: str, inner: tuple[str, ...] | None
) -> None:
    tree(tmp_path, ("bus", "car"))
    tree(tmp_path / word, inner) if inner else tree(tmp_path, (word,))
    if inner and word.startswith("train"):  # may be a split beside a stray folder, or a class with folders inside
        with pytest.raises(InputError, match=f"bus/ has images but is not a split, while {word}/ has class folders"):
            load(tmp_path)
        return
    assert load(tmp_path).classes == sorted(["bus", "car", word])


def test_two_split_names_are_classes_beside_others(tmp_path: Path) -> None:
    assert load(tree(tmp_path, ("bus", "test", "testing", "val"))).classes == ["bus", "test", "testing", "val"]


def test_folders_without_images_beside_the_splits_are_noted(tmp_path: Path) -> None:
    tree(tmp_path / "train")
    (tmp_path / "models").mkdir()
    dataset = load(tmp_path)
    assert len(dataset.classes) == 4 and any("beside the splits, without images: models" in n for n in dataset.notes)


@pytest.mark.parametrize("place", [".", "train", "test"])
def test_images_without_a_class_are_an_error_not_a_note(tmp_path: Path, place: str) -> None:
    tree(tmp_path / "train")
    tree(tmp_path / "test", each=1)
    paint(tmp_path / place / "lost.png")
    paint(tmp_path / place / "more.png")
    with pytest.raises(InputError, match=r"2 images beside the folders, without a class, first lost\.png"):
        load(tmp_path)
    assert len(load(tmp_path, bad_images="skip").skipped) == 2
    report = check(tmp_path)
    assert not report.ok and len(report.unreadable) == 2


@pytest.mark.parametrize("splits", [("test",), ("val", "test"), ("test", "val")])
def test_an_unlabelled_split_is_named_and_not_used(tmp_path: Path, splits: tuple[str, ...]) -> None:
    tree(tmp_path / "train", each=5)
    flat, *labelled = splits
    if splits == ("val", "test"):
        flat, labelled = "test", ["val"]
    for name in labelled:
        tree(tmp_path / name, each=1)
    for i in range(3):
        paint(tmp_path / flat / f"{i}.png", 100 + i)
    dataset = load(tmp_path)
    words = (f"{flat}/: 3 images without labels", f"predict RUN {tmp_path / flat}/*")
    assert any(all(word in note for word in words) for note in dataset.notes)
    assert len(dataset.test) == 4 and dataset.val is None
    assert len(dataset.train) == (20 if labelled else 16)
    assert not check(tmp_path).unreadable


@pytest.mark.parametrize("other", ["Cat", "cat ", " cat", "\uff43at"])
def test_look_alike_classes_are_noted(tmp_path: Path, other: str) -> None:
    names = ("cat", other)
    tree(tmp_path, (*names, "dog"))
    notes = [note for note in load(tmp_path).notes if "differ only in" in note]
    assert len(notes) == 1 and all(repr(name) in notes[0] for name in names) and "dog" not in notes[0]
    assert any("differ only in" in note for note in check(tmp_path).notes)


@pytest.mark.parametrize("split", ["", "train"])
def test_hidden_folders_with_images_are_mentioned(tmp_path: Path, split: str) -> None:
    tree(tmp_path / split, (".22 rifle", "bow", "dart", ".git"))
    assert any("hidden folders with images" in n and ".22 rifle" in n and ".git" not in n for n in load(tmp_path).notes)
    assert any(".22 rifle" in line for line in check(tmp_path).lines())


@pytest.mark.parametrize("name", ["digits", "cifar10", "cifar100", "imagenet-lt", "inat2018"])
def test_a_folder_with_the_name_of_a_known_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SADDLESCAPE_DATA", str(tmp_path / "no data"))
    classes = tuple("abcdefghij")  # as many as CIFAR-10 has: its groups and recipes must not be taken
    tree(tmp_path / name, classes)
    for given in (f"./{name}", Path(name), tmp_path / name):
        dataset = load(given)
        assert dataset.classes == list(classes) and dataset.name == f"./{name}"
        assert not any("index" in note and "CIFAR" in note for note in dataset.notes)
    if name == "digits":
        assert any("give ./digits" in note for note in load(name).notes)
        assert any("give ./digits" in note for note in check(name).notes)
    else:
        with pytest.raises(InputError, match=rf"give \./{name}"):
            load(name)
