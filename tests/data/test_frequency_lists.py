"""ImageNet-LT and iNaturalist 2018 from lists: the reference's re-indexing, the numbers of the paper, and bad lists."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saddlescape.data import FileSplit, check, load
from saddlescape.data.paths import PackedPaths
from saddlescape.data.sources.frequency_lists import LAYOUTS, frequency_order
from saddlescape.errors import InputError

COUNTS = [3, 7, 1, 3, 7, 2]  # by original label: two ties
SYNSETS = [f"n0900{label:04d}" for label in (5, 1, 4, 2, 3, 0)]
ORDER = [1, 4, 0, 3, 5, 2]


def paint(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 15), (shade, shade, shade)).save(path, "JPEG")


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    train, test = [], []
    for label, (count, synset) in enumerate(zip(COUNTS, SYNSETS, strict=True)):
        for i in range(count):
            train.append(f"train/{synset}/{synset}_{i}.JPEG {label}")
            paint(tmp_path / train[-1].split()[0], 10 * label + i)
        for i in range(2):
            test.append(f"val/{synset}/ILSVRC2012_val_{10 * label + i:08d}.JPEG {label}")
            paint(tmp_path / test[-1].split()[0], 100 + 10 * label + i)
    write(tmp_path / "ImageNet_LT_train.txt", train[::-1])
    write(tmp_path / "ImageNet_LT_test.txt", test)
    return tmp_path


@pytest.fixture
def inat(tmp_path: Path) -> Path:
    for file, each in (("train", 3), ("val", 1)):
        lines = []
        for label, kingdom in enumerate(("Plantae", "Aves", "Plantae")):
            for i in range(each + (label if file == "train" else 0)):
                lines.append(f"train_val2018/{kingdom}/{label}/{file}{i}f00d.jpg {label}")
                paint(tmp_path / lines[-1].split()[0], 20 * label + i)
        write(tmp_path / f"iNaturalist18_{file}.txt", lines)
    return tmp_path


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def lines_of(path: Path) -> list[tuple[str, int]]:
    return [(line.split()[0], int(line.split()[1])) for line in path.read_text().splitlines()]


def test_labels_are_those_of_the_reference_s_loader(imagenet: Path) -> None:
    """Its constructor written out: counts of a list, argsort of their negatives, a map, and the map for the test."""
    train, test = (lines_of(imagenet / f"ImageNet_LT_{split}.txt") for split in ("train", "test"))
    targets = np.array([label for _, label in train])
    counts = [int((targets == label).sum()) for label in range(6)]
    place = np.argsort(-np.array(counts), kind="stable")
    class_map = [0] * 6
    for new, old in enumerate(place):
        class_map[old] = new
    dataset = load("imagenet-lt", root=imagenet)
    for split, lines in ((dataset.train, train), (dataset.test, test)):
        assert isinstance(split, FileSplit) and isinstance(split.paths, PackedPaths)
        assert split.labels.tolist() == [class_map[label] for _, label in lines]
        assert [str(path) for path in split.paths] == [str(imagenet / path) for path, _ in lines]
    assert dataset.class_counts == [7, 7, 3, 3, 2, 1] == sorted(counts, reverse=True)
    assert dataset.classes == [SYNSETS[old] for old in ORDER] == [SYNSETS[old] for old in place]
    assert dataset.original_labels == ORDER == place.tolist()
    assert dataset.val is None


def test_iNaturalist_lists_its_validation_images_for_testing(inat: Path) -> None:
    dataset = load("inat2018", root=inat)
    assert dataset.class_counts == [5, 4, 3] and len(dataset.test) == 3
    assert dataset.classes == ["Plantae/2", "Aves/1", "Plantae/0"]
    assert dataset.augment == "resized-crop-flip-jitter"
    (inat / "categories.json").write_text(json.dumps([{"id": 2, "name": "Quercus alba"}, {"id": 7, "name": "else"}]))
    assert load("inat2018", root=inat).classes == ["Plantae/2 Quercus alba", "Aves/1", "Plantae/0"]
    (inat / "categories.json").write_text("[1]")
    with pytest.raises(InputError, match=r"categories\.json: expected a list of objects with id and name"):
        load("inat2018", root=inat)


def test_words_for_synsets_travel_with_the_classes(imagenet: Path) -> None:
    words = "".join(f"{synset} thing {i}, other word\n" for i, synset in enumerate(sorted(SYNSETS)))
    (imagenet / "LOC_synset_mapping.txt").write_text(words)
    assert load("imagenet-lt", root=imagenet).classes[0] == "n09000001 thing 1, other word"


@pytest.mark.parametrize("place", ["lists", "data_txt", "ImageNet_LT", "imagenet-lt/lists"])
def test_lists_may_lie_beside_the_images(imagenet: Path, place: str) -> None:
    before = load("imagenet-lt", root=imagenet).draw_hash
    for file in sorted(imagenet.glob("*.txt")):
        (imagenet / place).mkdir(parents=True, exist_ok=True)
        file.rename(imagenet / place / file.name)
    assert load("imagenet-lt", root=imagenet).draw_hash == before


def test_the_environment_names_the_folder(imagenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SADDLESCAPE_DATA", str(imagenet))
    assert load("imagenet-lt").num_classes == 6


def test_always_on_disk_and_in_another_size(imagenet: Path) -> None:
    dataset = load("imagenet-lt", root=imagenet, image_size=64, memory_limit=1 << 40)
    assert isinstance(dataset.train, FileSplit) and isinstance(dataset.test, FileSplit)
    assert (dataset.preprocess.image_size, dataset.preprocess.resize_to) == (64, 73)
    assert any("published results are at 224" in note for note in dataset.notes)


def test_ties_as_asked_for(tmp_path: Path) -> None:
    # 17 classes and more are where the two orders part; the counts are those of a tie of all.
    lines = [f"train/c{label:02d}/x.JPEG {label}" for label in range(40)]
    for line in lines:
        paint(tmp_path / line.split()[0], 3)
    write(tmp_path / "ImageNet_LT_train.txt", lines)
    write(tmp_path / "ImageNet_LT_test.txt", lines[:5])
    stable, reference = (load("imagenet-lt", root=tmp_path, ties=ties).classes for ties in ("stable", "reference"))
    assert stable == [f"c{label:02d}" for label in range(40)]
    assert reference == [f"c{label:02d}" for label in np.argsort(-np.ones(40, dtype=np.int16))] != stable


def test_the_validation_list_is_not_used(imagenet: Path) -> None:
    write(imagenet / "ImageNet_LT_val.txt", ["train/nowhere.JPEG 0"])
    dataset = load("imagenet-lt", root=imagenet)
    assert dataset.val is None and any("ImageNet_LT_val.txt is not used" in note for note in dataset.notes)


def test_a_whole_copy_s_counts_are_held_against_the_published_ones() -> None:
    published = LAYOUTS["imagenet-lt"].published
    right = [1280] + [5] * 998
    right.append(115_846 - sum(right))
    assert right[-1] > 1280
    assert published.differences([1280, 5], [1, 1]) == []  # fewer classes: somebody's own excerpt
    lines = published.differences(right, [50] * 999 + [49])
    assert len(lines) == 2 and "109,576 training images in the largest class, published are 1,280" in lines[0]
    assert "1 classes do not have the published 50 test images, first class 999 with 49" in lines[1]
    assert len(published.differences([5] * 1000, None)) == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train/n09000001/n09000001_0.JPEG 9", "line 24: label 9 is too large: .*no line has label 6"),
        ("train/n09000001/gone.JPEG 1", r"line 24: no file .*train/n09000001/gone\.JPEG"),
        ("nowhere/n09000001/gone.JPEG 1", r"line 24: no file .*nowhere/n09000001/gone\.JPEG"),
        ("train/n09000001/n09000001_0.JPEG one", "line 24: label 'one' is not an integer, unlike the others"),
        ("train/n09000001/n09000001_0.JPEG -1", "line 24: label -1 is negative"),
        ("lonely", "line 24: expected 'path label'.*'lonely'"),
        ("train/n09000001/n09000001_0.JPEG 0", r"label 0 has images in the folders n09000005 and n09000001"),
    ],
)
def test_slips_in_the_training_list(imagenet: Path, line: str, words: str) -> None:
    path = imagenet / "ImageNet_LT_train.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=words) as caught:
        load("imagenet-lt", root=imagenet)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_slips_in_the_test_list(imagenet: Path) -> None:
    path = imagenet / "ImageNet_LT_test.txt"
    whole = path.read_text()
    path.write_text(whole + "val/x/y.JPEG 6\n")
    with pytest.raises(InputError, match=r"line 13: label 6 is outside 0\.\.5 of ImageNet_LT_train\.txt"):
        load("imagenet-lt", root=imagenet)
    path.write_text(whole.replace("00000010.JPEG 1", "00000010.JPEG 2"))
    with pytest.raises(InputError, match=r"line 3: label 2, but the folder n09000001 has label 1 in ImageNet_LT_train"):
        load("imagenet-lt", root=imagenet)
    path.write_text("\n\n")
    with pytest.raises(InputError, match="empty"):
        load("imagenet-lt", root=imagenet)
    path.unlink()
    with pytest.raises(InputError, match=r"no ImageNet_LT_test\.txt in .*--root names the folder.*one folder a synset"):
        load("imagenet-lt", root=imagenet)


def test_missing_images_are_counted_and_can_be_left_out(imagenet: Path) -> None:
    (imagenet / "train" / SYNSETS[1] / f"{SYNSETS[1]}_3.JPEG").unlink()
    (imagenet / "val" / SYNSETS[0] / "ILSVRC2012_val_00000001.JPEG").unlink()
    with pytest.raises(InputError, match=r"no file .*_3\.JPEG: complete the images .*or leave these out"):
        load("imagenet-lt", root=imagenet)
    dataset = load("imagenet-lt", root=imagenet, bad_images="skip")
    assert dataset.class_counts == [6, 7, 3, 3, 2, 1] and len(dataset.test) == 11  # the order is the list's
    assert len(dataset.skipped) == 2
    report = check("imagenet-lt", root=imagenet)
    assert not report.ok and len(report.unreadable) == 2 and "2 files cannot be read" in report.summary()


def test_flat_folders_leave_the_original_labels_for_names(tmp_path: Path) -> None:
    lines = [f"train/{i}.JPEG {i % 2}" for i in range(5)]
    for line in lines:
        paint(tmp_path / line.split()[0], 3)
    write(tmp_path / "ImageNet_LT_train.txt", [*lines[::-1], "", ""])
    write(tmp_path / "ImageNet_LT_test.txt", lines)
    assert load("imagenet-lt", root=tmp_path).classes == ["0", "1"]


def test_most_frequent_first_and_ties_in_label_order() -> None:
    assert frequency_order([5, 9, 5, 1, 9]).tolist() == [1, 4, 0, 2, 3]
    counts = np.random.default_rng(0).integers(1, 40, 1000)
    order = frequency_order(counts.tolist())
    assert sorted(order.tolist()) == list(range(1000))
    steps = np.diff(counts[order])
    assert (steps <= 0).all() and (np.diff(order)[steps == 0] > 0).all()
    with pytest.raises(InputError, match="unknown order of ties 'random': choose one of stable, reference"):
        frequency_order([1, 2], "random")


@pytest.mark.parametrize(
    ("most", "digest"), [(2, "24e39c21c1de2598"), (20, "8764bb4928819a91"), (1280, "37da81d1ce18e22e")]
)
def test_reference_ties_are_those_of_numpy_s_scalar_quicksort(most: int, digest: str) -> None:
    """The digests are of a quicksort written out in Python: median of three, insertion up to 16 elements."""
    found, differ = hashlib.sha256(), 0
    for classes in [*range(1, 40), 100, 365, 1000, 8142]:
        counts = (np.arange(classes) * 7919 + 13) % most + 1
        order = frequency_order(counts.tolist(), "reference")
        found.update(order.astype("<i8").tobytes())
        assert np.array_equal(order, np.argsort((-counts).astype(np.int16)))  # sorted by scalar code as well
        differ += not np.array_equal(order, frequency_order(counts.tolist()))
    assert found.hexdigest()[:16] == digest and differ > 0
