"""List files as people write them, and the line number where they slip."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from saddlescape.data import check, load
from saddlescape.data.sources.listfile import parse_list
from saddlescape.errors import InputError

NAMES = ("a.png", "b b.png", "sub/c.png", "d,d.png", "é.png", "f 7.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate(NAMES):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i, i, i)).save(path)
    return tmp_path


def write(folder: Path, text: str, name: str = "train.txt", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


LABELS = (0, 0, 1, 1, 2, 2)


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", ", "  ", " \t", ";"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_integers_in_every_dress(folder: Path, separator: str, end: str, encoding: str) -> None:
    text = end.join(f"{name}{separator}{label}" for name, label in zip(NAMES, LABELS, strict=True)) + end + end
    entries = parse_list(write(folder, text, encoding=encoding))
    assert (entries.paths, [*map(int, entries.labels)], entries.numbers) == ([*NAMES], [*LABELS], [*range(1, 7)])


@pytest.mark.parametrize("separator", ["\t", ","])
def test_class_names_in_every_dress(folder: Path, separator: str) -> None:
    kinds = ["big cat", "big cat", "dog 3", "dog 3", "7 elk", "7 elk"]
    text = "\n".join(f'"{name}"{separator}{kind}' for name, kind in zip(NAMES, kinds, strict=True))
    dataset = load(write(folder, text))
    assert dataset.classes == ["7 elk", "big cat", "dog 3"]
    named = {Path(n).name: int(k) for n, k in zip(dataset.train.names, dataset.train.labels, strict=True)}
    named |= {Path(n).name: int(k) for n, k in zip(dataset.test.names, dataset.test.labels, strict=True)}
    assert named == {"a.png": 1, "b b.png": 1, "c.png": 2, "d,d.png": 2, "é.png": 0, "f 7.png": 0}


def test_names_after_a_space(folder: Path) -> None:
    entries = parse_list(write(folder, "a.png cat\nb b.png dog\n"))
    assert list(zip(entries.paths, entries.labels, strict=True)) == [("a.png", "cat"), ("b b.png", "dog")]


def test_header_backslashes_and_absolute_paths(folder: Path) -> None:
    path = write(folder, f"path,label\nsub\\c.png,0\n{folder / 'a.png'},1\n.\\b b.png,0\n\n   \né.png,1\n")
    report = check(path)
    assert report.ok and report.counts == {"train": [1, 1], "test": [1, 1]}


def test_literal_backslash_in_a_name_wins(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "sub\\c.png")
    dataset = load(write(folder, "sub\\c.png 0\na.png 0\nb b.png 1\nd,d.png 1\n"))
    everything = [*dataset.train.names, *dataset.test.names]
    assert str(folder / "sub\\c.png") in everything and str(folder / "sub/c.png") not in everything


def test_partner_lists_classes_and_root(folder: Path) -> None:
    lists = folder / "lists"
    lists.mkdir()
    write(lists, "a.png 0\nsub/c.png 1\né.png 2\n", "Mini_LT_train.txt")
    write(lists, "b b.png 1\nf 7.png 2\n", "Mini_LT_test.txt")
    write(lists, "d,d.png 0\n", "Mini_LT_val.txt")
    (lists / "classes.txt").write_text("zebra\nyak\nant\n")
    dataset = load(lists / "Mini_LT_train.txt", root=folder)
    assert dataset.classes == ["zebra", "yak", "ant"] and dataset.class_counts == [1, 1, 1]
    assert dataset.test.labels.tolist() == [1, 2] and len(dataset.val) == 1
    assert dataset.test.images[:, 0, 0, 0].tolist() == [1, 5]
    # A test list can also be named outright.
    write(lists, "d,d.png 2\n", "other.txt")
    assert load(lists / "Mini_LT_train.txt", root=folder, test=lists / "other.txt").test.labels.tolist() == [2]
    with pytest.raises(InputError, match="no such test list"):
        load(lists / "Mini_LT_train.txt", root=folder, test=lists / "none.txt")


def test_classes_file_orders_names(folder: Path) -> None:
    (folder / "classes.txt").write_text("dog\r\ncat\r\n", newline="")
    dataset = load(write(folder, "a.png cat\nb b.png cat\nsub/c.png dog\né.png dog\n"))
    assert dataset.classes == ["dog", "cat"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.png 0\nb b.png\n", "line 2: .*is not an integer|line 2: expected"),
        ("a.png 0\nlonely\n", "line 2: expected 'path label'.*'lonely'"),
        ("a.png 0\né.png -1\n", "line 2: label -1 is negative"),
        ("a.png 0\né.png 2\n", "line 2: label 2 is too large.*no line has label 1"),
        ("a.png 1\né.png 2\n", "line 2: label 2 is too large.*no line has label 0"),
        ("a.png 0\n\né.png 1\nnot there.png 1\n", "line 4: no file .*not there.png"),
        ("a.png 0\né.png 1\nsub/c.png cat\n", "line 3: label 'cat' is not an integer"),
        ("a.png cat\né.png dog\nsub/c.png 3\n", "line 3: label '3' is an integer"),
        ("a.png 0\né.png 1.5\n", "line 2: label '1.5' is not an integer"),
        ("what,ever\na.png,0\né.png,1\n", "line 1: label 'ever' is not an integer.*if this line is a header"),
        ("a.png 0\né.png 1\nx.png 1\ny.png 1\n", r"no file .*x\.png \(and 1 more line like it\)"),
        ("", "empty; expected 'path label'"),
        ("\n\n", "empty"),
        ("path label\n", "empty"),
        ("a.png\0 0\n", "not a text file"),
    ],
)
def test_slips_are_named_with_their_line(folder: Path, text: str, words: str) -> None:
    path = write(folder, text)
    with pytest.raises(InputError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_other_slips(folder: Path) -> None:
    good = write(folder, "a.png 0\né.png 1\n")
    write(folder, "b b.png 2\n", "test.txt")
    with pytest.raises(InputError, match=r"test\.txt line 1: label 2 is outside 0\.\.1"):
        load(good)
    write(folder, "b b.png cat\n", "test.txt")
    with pytest.raises(InputError, match="unlike those of"):
        load(good)
    (folder / "test.txt").unlink()
    (folder / "classes.txt").write_text("only\n")
    with pytest.raises(InputError, match=r"line 2: label 1 is too large: classes\.txt names 1"):
        load(good)
    (folder / "classes.txt").write_text("x\nx\n")
    with pytest.raises(InputError, match="'x' is named twice"):
        load(good)
    (folder / "classes.txt").unlink()
    bad = folder / "latin.txt"
    bad.write_bytes("a.png 0\né.png 1\n".encode("latin1"))
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        load(bad)


def test_missing_files_can_be_skipped(folder: Path) -> None:
    path = write(folder, "a.png 0\nb b.png 0\ngone.png 0\nsub/c.png 1\nd,d.png 1\n")
    dataset = load(path, bad_images="skip")
    assert dataset.skipped == [(str(folder / "gone.png"), f"{path} line 3: no file {folder / 'gone.png'}")]
    report = check(path)
    assert not report.ok and len(report.unreadable) == 1


def images(root: Path, names: list[str]) -> list[Path]:
    paths = [root / name for name in names]
    for i, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, i, i)).save(path, "PNG")
    return paths


KINDS = ["cat", "cat", "dog", "dog", "elk", "elk"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("ending", ["", ".png"])
@pytest.mark.parametrize(
    ("header", "order"),
    [
        ("image,label", "il"), ("image_id,label", "il"), ("id,breed", "il"), ("label,image", "li"),
        ("Filename,Class", "il"), (",image,label", "nil"), ("Unnamed: 0,id,breed", "nil"), ("breed,id", "li"),
        ("id,split,label", "ixl"), ("width,label,image_id,height", "xlix"), ("", "li"),
        ("name,file,label", "xil"),
    ],
)  # fmt: skip
def test_columns_are_found_by_name_and_content(
    tmp_path: Path, header: str, order: str, ending: str, separator: str, end: str
) -> None:
    images(tmp_path, [f"x{i}.png" for i in range(6)])
    lines = [header.replace(",", separator)] if header else []
    for i, kind in enumerate(KINDS):
        lines.append(separator.join({"i": f"x{i}{ending}", "l": kind, "n": str(i), "x": "some"}[c] for c in order))
    entries = parse_list(write(tmp_path, end.join(lines) + end, "train.csv"))
    begin = 2 if header else 1
    assert entries.numbers == list(range(begin, begin + 6)) and entries.labels == KINDS
    assert entries.paths == [f"x{i}{ending}" for i in range(6)]
    dataset = load(tmp_path / "train.csv")
    assert dataset.classes == ["cat", "dog", "elk"] and len(dataset.train) + len(dataset.test) == 6


@pytest.mark.parametrize("place", ["train", "images", "labels"])
def test_images_of_a_table_in_a_folder_beside_it(tmp_path: Path, place: str) -> None:
    images(tmp_path / place, [f"x{i}.jpg" for i in range(6)])
    path = write(tmp_path, "id,breed\n" + "".join(f"x{i},{kind}\n" for i, kind in enumerate(KINDS)), "labels.csv")
    dataset = load(path)
    assert len(dataset.classes) == 3 and any(f"below {tmp_path / place}" in note for note in dataset.notes)


def test_a_quoted_field_may_hold_the_separator(tmp_path: Path) -> None:
    images(tmp_path, ["a,b.png", "c.png"])
    entries = parse_list(write(tmp_path, 'image,label\n"a,b.png","big, cat"\nc.png,dog\n', "train.csv"))
    assert list(zip(entries.paths, entries.labels, strict=True)) == [("a,b.png", "big, cat"), ("c.png", "dog")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,breed,colour\nx0,cat,red\nx1,dog,blue\n", "columns id, breed, colour: none is called 'label'"),
        ("x0.png,cat,red\nx1.png,dog,blue\n", "columns 1, 2, 3: none is called 'label'"),
        ("a,b,c\n1.5,2.5,0\n1.5,2.5,1\n", r"no column names image files below .* \(columns: a, b, c\)"),
        ("5.1,3.5,1.4,setosa\n5.2,3.4,1.3,setosa\n", "no column names image files"),
        ("id,label\nx0,cat\nx1,\n", "line 3: column 'label' is empty"),
        ("id,label\nx0,cat\nx9,cat\nx1,dog\n", r"line 3: no file .*x9"),
        ("image,label\n", "empty; a header"),
        ("what,ever\nx0,cat\nx1,dog\n", "line 1: no file .*what"),
    ],
)
def test_tables_that_are_not_clear_speak_of_columns(tmp_path: Path, text: str, words: str) -> None:
    images(tmp_path, ["x0.png", "x1.png"])
    with pytest.raises(InputError, match=words) as caught:
        load(write(tmp_path, text, "train.csv"))
    assert "\n" not in str(caught.value)


def test_a_first_line_whose_image_is_missing_is_no_header(tmp_path: Path) -> None:
    images(tmp_path, ["x1.png", "x2.png", "x3.png"])
    with pytest.raises(InputError, match=r"line 1: no file .*x0"):
        load(write(tmp_path, "x0,cat\nx1,cat\nx2,dog\nx3,dog\n", "list.csv"))


@pytest.mark.parametrize("test", ["id\n{}", "id,other\n{}", "id,breed\n{}", "{}"])
def test_a_test_table_without_labels_is_named_and_not_used(tmp_path: Path, test: str) -> None:
    images(tmp_path, [f"x{i}.png" for i in range(9)])
    write(tmp_path, "id,breed\n" + "".join(f"x{i},{kind}\n" for i, kind in enumerate(KINDS)), "train.csv")
    column = {"id,other\n{}": ",3", "id,breed\n{}": ","}.get(test, "")
    write(tmp_path, test.format("".join(f"x{i}{column}\n" for i in (6, 7, 8))), "test.csv")
    dataset = load(tmp_path / "train.csv")
    assert any("test.csv: 3 images without labels, not used" in note for note in dataset.notes)
    assert len(dataset.train) + len(dataset.test) == 6
    assert check(tmp_path / "train.csv").ok


def test_a_test_list_without_labels_is_named_and_not_used(folder: Path) -> None:
    path = write(folder, "a.png 0\nb b.png 0\nsub/c.png 1\nd,d.png 1\n")
    write(folder, "é.png\nf 7.png\n", "test.txt")
    assert any("test.txt: 2 images without labels" in note for note in load(path).notes)


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("ending", ["", ".png"])
def test_unicode_forms_of_names_and_labels(tmp_path: Path, stored: str, written: str, ending: str) -> None:
    names = [f"däta/é{i}" for i in range(4)]
    images(tmp_path, [unicodedata.normalize(stored, f"{name}.png") for name in names])
    labels = ["café", unicodedata.normalize("NFD", "café"), "tea", "tea"]
    lines = [f"{unicodedata.normalize(written, name)}{ending},{kind}" for name, kind in zip(names, labels, strict=True)]
    (tmp_path / "classes.txt").write_text(unicodedata.normalize("NFD", "tea\ncafé\n"), encoding="utf-8")
    dataset = load(write(tmp_path, "image,label\n" + "\n".join(lines), "all.csv"))
    assert dataset.classes == ["tea", "café"] and dataset.class_counts == [1, 1] and not dataset.skipped
