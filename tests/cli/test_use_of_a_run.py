"""``evaluate``, ``predict`` and ``export``: what a trained run is good for."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from support import result_of

GROUPS = ("head", "mid", "tail")


def predictions(cli, run: Path, paths: list[Path]) -> list[dict[str, float]]:
    """One ``{class: probability}`` an image, through ``predict --json``."""
    outcome = cli("predict", run, *paths, "--json", "--top", 99)
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row["image"] for row in rows] == [str(path) for path in paths]
    return [{entry["class"]: entry["probability"] for entry in row["classes"]} for row in rows]


def test_evaluate_agrees_with_training_and_with_predict(cli, photo_run, photos):
    outcome = cli("evaluate", photo_run, "--out", "scores.json")
    assert outcome.code == 0, outcome.err
    scores = json.loads(Path("scores.json").read_text())
    trained = result_of(photo_run)
    assert scores["accuracy"] == trained["accuracy"]
    assert scores["per_class"] == scores["recall"] == trained["per_class"]
    assert f"(test, {scores['images']} images): accuracy {trained['accuracy']:.1f} " in outcome.out
    # The same figures from nothing but the answers of predict.
    paths = sorted((photos / "test").rglob("*.png"))
    answers = predictions(cli, photo_run, paths)
    best = [max(answer, key=lambda name: answer[name]) for answer in answers]
    right = [name == path.parent.name for name, path in zip(best, paths, strict=True)]
    cats = [hit for name, hit in zip(best, right, strict=True) if name == "cat"]
    precision, recall = sum(cats) / max(len(cats), 1), sum(cats) / 3
    assert scores["precision"][0] == pytest.approx(100 * precision)
    assert scores["f1"][0] == pytest.approx(200 * precision * recall / max(precision + recall, 1e-9))
    assert scores["accuracy"] == pytest.approx(100 * sum(right) / len(right))
    nats = [-math.log(answer[path.parent.name]) for answer, path in zip(answers, paths, strict=True)]
    assert scores["loss"] == pytest.approx(sum(nats) / len(nats), rel=1e-4)


def test_other_images_are_matched_by_class_name(cli, photo_run, photos, tmp_path):
    """Labels of the other folder start at its own first class; the names decide."""
    other = tmp_path / "other"
    for name in ("dog", "owl"):
        shutil.copytree(photos / "test" / name, other / "train" / name)
        shutil.copytree(photos / "test" / name, other / "test" / name)
    outcome = cli("evaluate", photo_run, "--data", other, "--out", "scores.json")
    assert outcome.code == 0, outcome.err
    scores = json.loads(Path("scores.json").read_text())
    assert scores["classes"] == ["cat", "dog", "owl"]
    assert scores["per_class"] == [None, *result_of(photo_run)["per_class"][1:]]
    assert scores["present"] == 2
    assert "2 of 3 classes have images here" in outcome.out


def test_post_hoc_adjustment_is_that_of_the_formula(cli, photo_run, photos):
    """argmax of log p(c) - tau log(n_c / N), from predict's probabilities."""
    counts = dict(zip(("cat", "dog", "owl"), (12, 7, 4), strict=True))
    paths = sorted((photos / "test").rglob("*.png"))
    answers = predictions(cli, photo_run, paths)
    for tau in (1.0, 30.0):
        best = []
        for answer in answers:
            adjusted = {c: math.log(answer[c]) - tau * math.log(count / 23) for c, count in counts.items()}
            best.append(max(adjusted, key=lambda c, adjusted=adjusted: adjusted[c]))
        right = [name == path.parent.name for name, path in zip(best, paths, strict=True)]
        outcome = cli("evaluate", photo_run, "--post-hoc", tau, "--out", "scores.json")
        assert outcome.code == 0
        assert json.loads(Path("scores.json").read_text())["accuracy"] == pytest.approx(100 * sum(right) / len(right))
    assert set(best) == {"owl"}  # with a large tau the rarest class always wins


def test_predict_for_people(cli, photo_run, photos):
    paths = sorted((photos / "test" / "cat").iterdir())
    outcome = cli("predict", photo_run, *paths, "--top", 2)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert len(lines) == len(paths) == 3
    for line, path, answer in zip(lines, paths, predictions(cli, photo_run, paths), strict=True):
        best = sorted(answer, key=lambda name: -answer[name])[:2]
        assert line == f"{path}: " + ", ".join(f"{name} {100 * answer[name]:.1f} %" for name in best)
        assert sum(answer.values()) == pytest.approx(1, abs=1e-5)


def test_predict_takes_folders_and_patterns_and_writes_a_table(cli, photo_run, photos):
    paths = [*sorted((photos / "test").rglob("*.png")), *sorted((photos / "train").glob("[co]*/*-1.png"))]
    bad = Path("more/broken.png")
    bad.parent.mkdir()
    bad.write_bytes(b"no image")
    outcome = cli("predict", photo_run, photos / "test", photos / "train/[co]*/*-1.png", "more", "--csv", "classes.csv")
    assert (outcome.code, outcome.out.strip()) == (1, f"{len(paths)} images -> classes.csv")
    assert outcome.err.startswith(f"saddlescape: {bad}: ") and len(outcome.err.splitlines()) == 1
    with Path("classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == list(map(str, paths))
    for row, answer in zip(rows, predictions(cli, photo_run, paths), strict=True):
        ranked = [(row[f"class_{rank}"], float(row[f"probability_{rank}"])) for rank in (1, 2, 3)]
        assert dict(ranked) == pytest.approx(answer, rel=1e-5) and ranked == sorted(ranked, key=lambda each: -each[1])
    Path("empty").mkdir()
    for nothing in ("empty", "nowhere/*.png"):
        assert f"{nothing}: no image there" in cli("predict", photo_run, nothing).complaint
    assert "is a folder" in cli("predict", photo_run, photos / "test", "--csv", "empty").complaint


def test_export_says_where_it_wrote_by_default(cli, digits_run, tmp_path):
    copy = shutil.copytree(digits_run, tmp_path / "copy")
    outcome = cli("export", copy)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(f"{copy / 'model.pt2'} ")
    assert isinstance(torch.export.load(copy / "model.pt2"), torch.export.ExportedProgram)


def test_a_page_and_figures(cli, photo_run):
    outcome = cli("report", photo_run, "--out", "out/page.html", "--figures", "figures", "--title", "Cats & dogs")
    assert outcome.code == 0, outcome.err
    assert "Cats &amp; dogs" in Path("out/page.html").read_text(encoding="utf-8")
    written = list(Path("figures").glob("[!.]*"))
    assert {path.suffix for path in written} == {".pdf", ".svg", ".png"}
    page, figures = outcome.out.splitlines()
    assert page.startswith("-> out/page.html (") and figures == f"-> figures: {len(written)} files"
