"""The example of a person's own images runs as it stands, and the classifier in it is scikit-learn's kind."""

from __future__ import annotations

import json
import pickle
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import make_classification
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator

import saddlescape
from saddlescape.errors import InputError


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for split, counts in (("train", {"cat": 12, "dog": 6}), ("test", {"cat": 3, "dog": 3})):
        for label, (name, count) in enumerate(counts.items()):
            for number in range(count):
                path = tmp_path / "photos" / split / name / f"{split}{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = np.random.default_rng(number).integers(0, 60, (16, 16, 3))
                Image.fromarray((noise + np.eye(3)[label] * 150).astype(np.uint8)).save(path)
    return Path("photos")


def test_the_example(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["own_images.py", str(photos)])
    runpy.run_path(str((Path(__file__).parents[2] / "examples" / "own_images").with_suffix(".py")))
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(str(photos / "test")) for line in lines) == 6
    plain, adjusted = (float(line.split()[1]) for line in lines[-2:])
    assert adjusted > plain + 0.02
    run = saddlescape.open_run("runs/photos")
    assert run.result == json.loads(Path("runs/photos/result.json").read_text())
    answers = run.predict(photos / "test")
    assert [name for name, _ in answers] == sorted(map(str, (photos / "test").rglob("*.png")))
    right = [classes[0][0] == Path(name).parent.name for name, classes in answers]
    assert 100 * np.mean(right) == run.result["accuracy"]
    Path("broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.png"):
        run.predict("broken.png")
    with pytest.raises(InputError, match=r"unknown option 'epoch'; it has .*epochs"):
        saddlescape.train(photos, epoch=3)


def test_scikit_learn_finds_no_fault_with_the_classifier() -> None:
    outcomes = check_estimator(saddlescape.LongTailClassifier(epochs=20), on_skip=None, on_fail=None)
    assert [each["check_name"] for each in outcomes if each["status"] not in ("passed", "skipped")] == []


@pytest.mark.parametrize("method", ["ldam+drw", "plda", "tau-norm", "vs+sam"])
def test_any_method_fits_and_two_fits_are_the_same(method: str) -> None:
    shape = {"n_samples": 300, "n_informative": 6, "n_classes": 3, "n_clusters_per_class": 1, "class_sep": 2.0}
    X, codes = make_classification(**shape, weights=[0.7, 0.2], random_state=0)
    y = np.array(["common", "seldom", "rare"])[codes]
    model = make_pipeline(MinMaxScaler(), saddlescape.LongTailClassifier(method, epochs=20))
    first, second = (model.fit(X, y).predict_proba(X) for _ in range(2))
    assert np.array_equal(first, second)
    assert list(model.classes_) == ["common", "rare", "seldom"] and model.score(X, y) > 0.6
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))


def test_what_cannot_be_fitted_is_one_line() -> None:
    X, y = np.eye(4), [0, 0, 1, 1]
    with pytest.raises(InputError, match="unknown term 'cee'"):
        saddlescape.LongTailClassifier("cee").fit(X, y)
    with pytest.raises(ValueError, match="one class"):
        saddlescape.LongTailClassifier().fit(X, [1, 1, 1, 1])
