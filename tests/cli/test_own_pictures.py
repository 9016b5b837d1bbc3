"""People's own pictures, through the command line: what broke other tools, end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from saddlescape.records.files import read_rows

SMALL = ("--method", "ce", "--model", "smallcnn", "--image-size", "16", "--device", "cpu", "--epochs", "1")


def result(run: str = "run") -> dict[str, Any]:
    return json.loads(Path(run, "result.json").read_text())


def test_strays_beside_the_images_are_no_classes(cli, make_folder):
    """Strays, upper-case endings, another format than the ending says, an animation."""
    root = make_folder(Path("mine"), cat=5, dog=5)
    for stray in (".DS_Store", "cat/.DS_Store", "cat/._mine-cat-0.png", "dog/Thumbs.db"):
        (root / stray).write_bytes(b"stray")
    (root / ".ipynb_checkpoints").mkdir()
    (root / ".ipynb_checkpoints" / "a.png").write_bytes((root / "cat" / "mine-cat-0.png").read_bytes())
    first = Image.open(root / "cat" / "mine-cat-1.png")
    first.save(root / "cat" / "SHOUTED.JPG")
    first.save(root / "cat" / "webp in disguise.jpg", format="WEBP", lossless=True)
    first.save(root / "dog" / "ünruhig.gif", save_all=True, append_images=[Image.new("RGB", (16, 16))])
    outcome = cli("train", root, "--out", "run", *SMALL)
    assert outcome.code == 0, outcome.err
    assert result()["classes"] == ["cat", "dog"]
    assert sum(result()["class_counts"]) + 1 + 1 == 5 + 5 + 3  # a fifth of each class is the test set
    assert "stray files ignored" in outcome.err
    answers = cli("predict", "run", root / "cat" / "mine-cat-1.png", root / "cat" / "webp in disguise.jpg", "--json")
    one, other = (json.loads(line)["classes"] for line in answers.out.splitlines())
    assert one == other


def test_the_first_line_names_the_largest_and_the_smallest_class(cli, make_folder):
    """Classes are in the order of their names, not of their sizes."""
    root = make_folder(Path("mine"), ant=5, bee=15, cat=10)
    outcome = cli("train", root, "--out", "run", *SMALL)
    assert outcome.code == 0, outcome.err
    assert "3 classes (12 .. 4)" in outcome.err


def test_black_on_transparent_is_seen_in_training_and_in_predict(cli, make_folder):
    """The stated background is the same grey for both."""
    root = make_folder(Path("mine"), cat=4, dog=4)
    shape = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    shape.paste((0, 0, 0, 255), (4, 4, 12, 12))
    shape.save("transparent.png")
    flat = Image.new("RGB", (16, 16), (255, 255, 255))
    flat.paste((0, 0, 0), (4, 4, 12, 12))
    flat.save("flat.png")
    assert cli("train", root, "--out", "run", *SMALL).code == 0
    answers = cli("predict", "run", "transparent.png", "flat.png", "--json")
    one, other = (json.loads(line)["classes"] for line in answers.out.splitlines())
    assert one == other


@pytest.mark.parametrize("how", ["no folder", "empty folder"])
def test_a_class_that_the_test_set_lacks(cli, make_folder, how):
    """Labels stay those of training, the class is n/a and is left out of the balanced accuracy."""
    make_folder(Path("mine/train"), ant=6, bee=6, cat=6, dog=6)
    make_folder(Path("mine/val"), ant=2, bee=2, dog=2)
    if how == "empty folder":
        Path("mine/val/cat").mkdir()
    outcome = cli("train", "mine", "--out", "run", *SMALL)
    assert outcome.code == 0, outcome.err
    assert "the test set lacks 1 of 4 classes (n/a there): cat" in outcome.err
    per_class = result()["per_class"]
    assert [value is None for value in per_class] == [False, False, True, False]
    assert result()["balanced_accuracy"] == pytest.approx(sum(per_class[i] for i in (0, 1, 3)) / 3)
    assert result()["present_classes"] == 3
    scored = cli("evaluate", "run")
    assert "3 of 4 classes have images here" in scored.out
    row = next(line.split() for line in scored.out.splitlines() if line.startswith("cat"))
    assert row == ["cat", "6", "n/a", "n/a", "n/a"]


def test_a_class_with_one_image_stays_in_training(cli, make_folder):
    make_folder(Path("mine"), ant=10, bee=5, cat=1)
    outcome = cli("train", "mine", "--val", 0.2, "--out", "run", *SMALL)
    assert outcome.code == 0, outcome.err
    assert "classes with a single image keep it for training: cat" in outcome.err
    assert "too few images to hold one out, all stay in training: cat" in outcome.err
    assert result()["class_counts"] == [6, 3, 1]
    assert result()["per_class"][2] is None


def test_a_last_batch_of_one_image(cli, make_folder):
    """33 images in batches of 32, through BatchNorm; none is dropped."""
    make_folder(Path("mine/train"), ant=20, bee=13)
    make_folder(Path("mine/test"), ant=2, bee=1)
    outcome = cli("train", "mine", "--batch-size", 32, "--out", "run", *SMALL)
    assert outcome.code == 0, outcome.err
    assert [row["images"] for row in read_rows(Path("run/metrics.jsonl"))] == [33]


def test_a_group_without_classes_is_not_available(cli, make_folder):
    """Two classes make a head and a tail, and nothing between."""
    make_folder(Path("mine"), ant=8, bee=5)
    outcome = cli("train", "mine", "--out", "run", *SMALL)
    assert outcome.code == 0, outcome.err
    assert result()["mid"] is None
    assert "mid n/a" in outcome.out
    assert "mid n/a" in cli("evaluate", "run").out


def test_names_with_spaces_and_markup(cli, make_folder, make_picture):
    """Class names and paths are printed as they are, whatever rich would make of them."""
    root = Path("my [bold]photos[/bold]")
    for number in range(5):
        make_picture(root / "a cat, [red]" / f"{number} é.png", (200, 60, 60))
        make_picture(root / "dog" / f"{number}.png", (60, 200, 60))
    outcome = cli("train", root, "--out", "run", *SMALL)
    assert outcome.code == 0, outcome.err
    assert result()["classes"] == ["a cat, [red]", "dog"]
    assert "a cat, [red]" in cli("evaluate", "run").out
    answer = cli("predict", "run", root / "a cat, [red]" / "0 é.png")
    assert answer.out.startswith(f"{root}/a cat, [red]/0 é.png: ")
    assert "a cat, [red] " in answer.out
    assert "a cat, [red]" in cli("datasets", "check", root).out
