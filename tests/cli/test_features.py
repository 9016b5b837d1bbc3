"""A run on features of a person's own, from training to an exported file and its curvature."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """Three Gaussian classes of 60, 20 and 6 rows, 8 columns; 20 rows of each to test."""
    rng = np.random.default_rng(0)
    centres = 2 * rng.normal(size=(3, 8))
    counts = np.repeat([0, 1, 2], [60, 20, 6]), np.repeat([0, 1, 2], 20)
    x, test_x = (centres[labels] + rng.normal(size=(len(labels), 8)) for labels in counts)
    names = np.array(["cat", "dog", "owl"])
    np.savez(
        tmp_path / "set.npz", features=x, labels=names[counts[0]], test_features=test_x, test_labels=names[counts[1]]
    )
    return tmp_path / "set.npz"


@pytest.mark.parametrize("method", ["la", "ldam+drw+sam", "crt", "plda"])
def test_methods_learn_on_features(cli, features: Path, method: str) -> None:
    outcome = cli("train", features, "--method", method, "--out", "run")
    assert outcome.code == 0, outcome.err
    assert json.loads(Path("run/result.json").read_text())["balanced_accuracy"] > 80


def test_a_run_on_features_is_used_like_any_other(cli, features: Path) -> None:
    assert cli("train", features, "--epochs", 20, "--out", "run").code == 0
    assert cli("evaluate", "run", "--out", "scores.json").code == 0
    scores = json.loads(Path("scores.json").read_text())
    assert cli("predict", "run", features, "--csv", "out.csv").code == 0
    rows = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    expected = np.load(features)["test_labels"].tolist()
    right = np.mean([row["class_1"] == name for row, name in zip(rows, expected, strict=True)])
    assert 100 * right == pytest.approx(scores["accuracy"])
    assert "float32 [N, 8] in" in cli("export", "run").out
    exported = torch.export.load("run/model.pt2").module()
    answers = exported(torch.from_numpy(np.load(features)["test_features"]).float())
    assert answers[0].max().item() == pytest.approx(float(rows[0]["probability_1"]), abs=1e-5)
    for command in (("curvature", "run"), ("surface", "run", "--steps", 3), ("report", "run")):
        outcome = cli(*command)
        assert outcome.code == 0, outcome.err


def test_rows_of_another_width_are_refused(cli, features: Path) -> None:
    np.save("narrow.npy", np.zeros((2, 3)))
    assert cli("train", features, "--method", "plda", "--out", "run").code == 0
    assert "narrow.npy: 3 columns, the run takes 8" in cli("predict", "run", "narrow.npy").complaint
    Path("photo.jpg").write_bytes(b"\xff\xd8\xff")
    assert "photo.jpg" in cli("predict", "run", "photo.jpg").complaint
