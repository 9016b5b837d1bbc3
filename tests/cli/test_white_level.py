"""Images of more than 8 bits: train, evaluate, predict and the exported model agree on the scale, old runs too."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from saddlescape.data import pixels
from saddlescape.runs import execute
from saddlescape.runs.evaluation import other_data, run_data
from saddlescape.runs.opened import open_run

SMALL = ("--model", "smallcnn", "--image-size", "16", "--device", "cpu", "--method", "ce", "--epochs", 2)


def stripes(root: Path, *, upright: str = "a", level: int = 2000, each: int = 8) -> Path:
    """12-bit data in 16-bit PNG: stripes of +-60 around ``level``, upright in one class, lying in the other."""
    for name in "ab":
        for i in range(each):
            wave = level + 60 * np.sin(np.arange(16) + i)
            values = np.round(wave).astype(np.uint16)[None].repeat(16, axis=0)
            path = root / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values if name == upright else np.ascontiguousarray(values.T)).save(path)
    return root


def test_one_scale_in_train_evaluate_predict_and_export(cli, tmp_path):
    root = stripes(tmp_path / "photos")
    outcome = cli("train", root, *SMALL, "--out", "run")
    assert outcome.code == 0, outcome.err
    assert "values of 0 to 4095 become 0 to 255" in " ".join(outcome.err.split())
    opened = open_run(Path("run"))
    assert opened.preprocess.white_level == 4095
    own = run_data(opened)
    # Darker images, of 10 bits for themselves, are scaled like those of the run, and brighter ones are refused.
    other = other_data(opened, str(stripes(tmp_path / "dark", level=900)), "test")
    assert len(other.test) == 16
    for dataset in (own, other):
        at = Path(dataset.test.names[0])
        assert torch.equal(dataset.test.images[0], pixels(opened.preprocess, at))
    stripes(tmp_path / "bright", level=60_000)
    assert "a value of" in cli("evaluate", "run", "--data", tmp_path / "bright").complaint
    assert "outside the scale of 0 to 4095" in cli("predict", "run", tmp_path / "bright/a/0.png").complaint
    assert cli("export", "run", "--out", "model.pt2").code == 0
    files = {"saddlescape.json": ""}
    program = torch.export.load("model.pt2", extra_files=files)
    assert json.loads(files["saddlescape.json"])["more_than_8_bits"] == "0..4095 to 0..255"
    image = next((root / "a").iterdir())
    with torch.no_grad():
        probabilities = program.module()(pixels(opened.preprocess, image)[None])[0]
    answer = json.loads(cli("predict", "run", image, "--json").out)["classes"]
    for row in answer:
        assert abs(row["probability"] - float(probabilities[opened.classes.index(row["class"])])) < 1e-4


def test_a_run_from_before_the_field_keeps_its_scale(cli, tmp_path, monkeypatch):
    root = stripes(tmp_path / "photos")
    with monkeypatch.context() as before:
        before.setattr(sys.modules["saddlescape.data.load"], "measure", lambda parts: (0.0, []))
        stored = execute.asdict
        before.setattr(execute, "asdict", lambda p: {k: v for k, v in stored(p).items() if k != "white_level"})
        assert cli("train", root, *SMALL, "--out", "run", "--keep-every", 1).code == 0
    assert '"white_level"' not in next(Path("run").rglob("meta.json")).read_text()
    opened = open_run(Path("run"))
    assert opened.preprocess.white_level == 0
    images = run_data(opened).test.images
    assert images.max() <= 9 and torch.equal(images[0], pixels(opened.preprocess, Path(run_data(opened).test.names[0])))
    assert cli("evaluate", "run").code == 0 and cli("export", "run", "--out", "model.pt2").code == 0
    Path("run/result.json").unlink()
    for newest in Path("run/checkpoint").glob("s0-e00002*"):
        shutil.rmtree(newest)
    assert "values of 0 to 65535 became 0 to 255, now those of 0 to 4095 do" in " ".join(
        cli("train", root, *SMALL, "--out", "run", "--keep-every", 1).complaint.split()
    )
