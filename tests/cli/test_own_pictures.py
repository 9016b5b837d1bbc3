"""People's own pictures, through the command line: what broke other tools, end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from support import result_of

SMALL = ("--method", "ce", "--model", "smallcnn", "--image-size", "16", "--device", "cpu", "--epochs", "1")


def test_the_first_line_names_the_largest_and_the_smallest_class(cli, make_folder):
    """Classes are in the order of their names, not of their sizes."""
    root = make_folder(Path("mine"), ant=5, bee=15, cat=10)
    outcome = cli("train", root, "--out", "run", *SMALL)
    assert outcome.code == 0, outcome.err
    assert "3 classes (12 .. 4)" in outcome.err


def test_a_class_that_the_test_set_lacks(cli, make_folder):
    """Labels stay those of training, the class is n/a and is left out of the balanced accuracy."""
    make_folder(Path("mine/train"), ant=6, bee=6, cat=6, dog=6)
    make_folder(Path("mine/val"), ant=2, bee=2, dog=2)
    outcome = cli("train", "mine", "--out", "run", *SMALL)
    assert outcome.code == 0, outcome.err
    assert "the test set lacks 1 of 4 classes (n/a there): cat" in outcome.err
    per_class = result_of()["per_class"]
    assert [value is None for value in per_class] == [False, False, True, False]
    assert result_of()["balanced_accuracy"] == pytest.approx(sum(per_class[i] for i in (0, 1, 3)) / 3)
    assert result_of()["present_classes"] == 3
    scored = cli("evaluate", "run")
    assert "3 of 4 classes have images here" in scored.out
    row = next(line.split() for line in scored.out.splitlines() if line.startswith("cat"))
    assert row == ["cat", "6", "n/a", "n/a", "n/a"]


def test_a_group_without_classes_is_not_available(cli, make_folder):
    """Two classes make a head and a tail, and nothing between."""
    make_folder(Path("mine"), ant=8, bee=5)
    outcome = cli("train", "mine", "--out", "run", *SMALL)
    assert outcome.code == 0, outcome.err
    assert result_of()["mid"] is None
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
    assert result_of()["classes"] == ["a cat, [red]", "dog"]
    assert "a cat, [red]" in cli("evaluate", "run").out
    answer = cli("predict", "run", root / "a cat, [red]" / "0 é.png")
    assert answer.out.startswith(f"{root}/a cat, [red]/0 é.png: ")
    assert "a cat, [red] " in answer.out
    assert "a cat, [red]" in cli("datasets", "check", root).out


@pytest.mark.parametrize("counts", [(120, 60, 30, 16, 8), (100, 5, 2), (110, 100, 90, 12, 10, 6, 1)])
def test_the_default_gives_up_no_large_class(cli, counts):
    """Of more than 50 images none falls below half of what cross-entropy gives it, and the mean is better."""
    digits = load_digits()
    for label, count in enumerate(counts):
        images = digits.images[digits.target == label]
        for split, chosen in (("train", images[:count]), ("test", images[-40:])):
            folder = Path("mine") / split / str(label)
            folder.mkdir(parents=True)
            for number, image in enumerate(chosen):
                Image.fromarray((image * 15).astype(np.uint8)).save(folder / f"{number}.png")
    found = {}
    for name, chosen in (("ce", ("--method", "ce")), ("default", ())):
        outcome = cli("train", "mine", *chosen, "--image-size", 8, "--epochs", 25, "--eval-every", 25, "--out", name)
        assert outcome.code == 0, outcome.err
        found[name] = result_of(Path(name))
    plain, default = found["ce"], found["default"]
    assert default["balanced_accuracy"] > plain["balanced_accuracy"]
    for mine, theirs, count in zip(default["per_class"], plain["per_class"], default["class_counts"], strict=True):
        assert mine >= theirs / 2 or count <= 50, (counts, default["per_class"], plain["per_class"])
