"""Exported files predict what the run predicts, without the library; predict, evaluate and export read one way."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saddlescape.data.types import ArraySplit
from saddlescape.errors import InputError, MissingExtraError
from saddlescape.runs.evaluation import evaluate_run, run_data
from saddlescape.runs.export import export
from saddlescape.runs.opened import Opened, open_run
from saddlescape.runs.prediction import predict, probabilities

STRANGER = """
import json, sys
for name in ("saddlescape", "safetensors", "msgspec"):
    sys.modules[name] = None  # importing it is an error
import torch
extra = {"saddlescape.json": ""}
program = torch.export.load(sys.argv[1], extra_files=extra).module()
about = json.loads(extra["saddlescape.json"])
images = torch.load(sys.argv[2], weights_only=True)
answers = [program(images[:1]), program(images[:7]), program(images)]
torch.save(answers, sys.argv[3])
print(json.dumps(about))
"""


@pytest.fixture(scope="module")
def opened(finished: Path) -> Opened:
    return open_run(finished)


@pytest.fixture(scope="module")
def test_split(opened: Opened) -> ArraySplit:
    split = run_data(opened).test
    assert isinstance(split, ArraySplit)
    return split


@pytest.mark.slow
def test_a_stranger_without_the_library_gets_the_same_probabilities(
    opened: Opened, test_split: ArraySplit, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt2"
    gap = export(opened, path)
    assert gap <= 1e-4
    images = test_split.images[:20]
    torch.save(images.clone(), tmp_path / "images.pt")
    done = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(path), "images.pt", "answers.pt"], cwd=tmp_path,
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert about["classes"] == opened.classes
    assert about["input"].startswith("uint8 [N, 1, 8, 8]")
    wanted = probabilities(opened, images)
    for answer in torch.load(tmp_path / "answers.pt", weights_only=True):
        assert answer.shape == (len(answer), 10)
        torch.testing.assert_close(answer, wanted[: len(answer)], rtol=1e-4, atol=1e-5)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["answers.pt", "images.pt", "model.pt2"]


def test_onnx_predicts_the_same_and_carries_names_and_preprocessing(
    opened: Opened, test_split: ArraySplit, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    export(opened, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    wanted = probabilities(opened, test_split.images[:7])
    for count in (1, 7):
        (answer,) = session.run(["probabilities"], {"images": test_split.images[:count].numpy()})
        assert answer.shape == (count, 10)
        np.testing.assert_allclose(answer, wanted[:count].numpy(), rtol=1e-4, atol=1e-5)
        assert (answer.argmax(1) == wanted[:count].argmax(1).numpy()).all()
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == opened.classes
    assert about["method"] == "ldam+drw+sam"
    assert "uint8" in about["input"] and {"resize", "background", "output"} <= set(about)


def test_a_missing_onnx_package_is_said(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"saddlescape\[onnx\]"):
        export(opened, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_where_it_cannot_be_written_is_one_line(opened: Opened, tmp_path: Path) -> None:
    for path, said in ((tmp_path / "model.pth", "unknown ending"), (tmp_path / "no" / "m.pt2", "does not exist")):
        with pytest.raises(InputError, match=said):
            export(opened, path)
    assert not list(tmp_path.iterdir())


def test_an_export_that_disagrees_is_not_kept(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from saddlescape.runs import export as module

    monkeypatch.setattr(module, "_torch_export", lambda model, trials, path, about: [model(t) + 0.01 for t in trials])
    with pytest.raises(InputError, match="differs from the run"):
        export(opened, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_predict_reads_files_as_evaluate_reads_the_data(opened: Opened, test_split: ArraySplit, tmp_path: Path) -> None:
    """One reader. The pictures are written as PNG and come back as the same pixels, so the same answers."""
    paths = []
    for number, image in enumerate(test_split.images[:70]):  # more than one part
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(image[0].numpy()).save(paths[-1])
    answers = predict(opened, paths, top=10)
    wanted = probabilities(opened, test_split.images[:70])
    assert len(answers) == 70
    for answer, row in zip(answers, wanted, strict=True):
        assert [p for _, p in answer] == sorted((p for _, p in answer), reverse=True)
        assert sum(p for _, p in answer) == pytest.approx(1, abs=1e-5)
        for name, p in answer:
            assert p == pytest.approx(float(row[opened.classes.index(name)]), abs=1e-6)
    assert [len(answer) for answer in predict(opened, paths[:2], top=3)] == [3, 3]
    assert len(predict(opened, paths[:1], top=99)[0]) == 10


def test_evaluation_of_splits_and_post_hoc_adjustment(finished: Path, opened: Opened) -> None:
    val, *_ = evaluate_run(finished, split="val", device="cpu")
    result = json.loads((finished / "result.json").read_text())
    assert val.accuracy == result["val_accuracy"]
    with pytest.raises(InputError, match="no such split"):
        evaluate_run(finished, split="dev", device="cpu")
    dataset = run_data(opened)
    adjusted, *_ = evaluate_run(finished, device="cpu", post_hoc=1.0)
    assert isinstance(dataset.test, ArraySplit)
    with torch.no_grad():
        logits = opened.model(dataset.preprocess.normalize(dataset.test.images))
    frequency = torch.tensor(dataset.class_counts).double() / sum(dataset.class_counts)
    assert opened.logit_scale == 30  # LDAM: the frequencies are held against the scaled cosines
    right = (opened.logit_scale * logits.double() - frequency.log()).argmax(1) == dataset.test.labels
    assert adjusted.accuracy == pytest.approx(100 * float(right.double().mean()), abs=0.2)


def test_the_scale_of_logits_is_the_losses_own_where_the_recipe_is_silent(opened: Opened) -> None:
    def scale(**changes: object) -> float:
        stage = dataclasses.replace(opened.config.stages[0], **changes)  # type: ignore[arg-type]
        return dataclasses.replace(opened, config=dataclasses.replace(opened.config, stages=(stage,))).logit_scale

    assert opened.logit_scale == 30.0
    assert scale(loss_options={"scale": 20.0}) == 20.0
    assert scale(loss_options={}) == 30.0
    assert scale(loss="ce", loss_options={}) == 1.0


def test_not_a_run_and_a_run_without_checkpoint(tmp_path: Path, finished: Path) -> None:
    with pytest.raises(InputError, match="is not a run folder"):
        open_run(tmp_path)
    (tmp_path / "config.toml").write_text((finished / "config.toml").read_text())
    with pytest.raises(InputError, match="has no checkpoint yet"):
        open_run(tmp_path)
