"""Runs that start from a pretrained network: what is recorded, and that every later use finds it again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.models.lite0 import lite0

from saddlescape.errors import InputError
from saddlescape.records.config import BackboneConfig
from saddlescape.runs import config as configuration
from saddlescape.runs.evaluation import evaluate_run
from saddlescape.runs.execute import execute
from saddlescape.runs.export import export
from saddlescape.runs.opened import open_run
from saddlescape.runs.prediction import predict

LITE0 = "tests.models.lite0:lite0"
MEAN = 3 * (127 / 255,)
FAST: dict[str, Any] = {"imbalance": 20, "method": "la", "epochs": 1, "image_size": 32, "backbone": LITE0}


@pytest.fixture(scope="module")
def run(start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of EfficientNet-Lite0 frozen, a head trained on the digits for an epoch."""
    folder = tmp_path_factory.mktemp("backbone") / "run"
    start(folder, **FAST, settings=("train.trainable=head", "train.backbone_mode=eval"))
    return folder


def test_the_configuration_has_backbone_weights_and_preprocessing(run: Path) -> None:
    config = configuration.load(run)
    assert config.model == LITE0
    assert (config.backbone.input_size, len(config.backbone.weights_hash)) == (32, 16)
    assert (config.data.mean, config.data.interpolation, config.data.image_size) == (MEAN, "bicubic", 0)
    opened = open_run(run)
    assert opened.preprocess.mean == pytest.approx((sum(config.data.mean) / 3,))  # grey digits
    theirs = lite0().state_dict()
    ours = opened.model.backbone.state_dict()  # type: ignore[operator, union-attr]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_it_is_finished_scored_predicts_and_is_exported(run: Path, start, tmp_path: Path) -> None:
    said: list[str] = []
    result = start(run, say=said.append, **FAST, settings=("train.trainable=head", "train.backbone_mode=eval"))
    assert "is finished" in said[0]
    scored = evaluate_run(run)[0]
    assert scored.accuracy == pytest.approx(result["accuracy"], abs=0.2)
    Image.new("L", (8, 8)).save(tmp_path / "digit.png")
    assert len(predict(open_run(run), [tmp_path / "digit.png"])[0]) == 5  # type: ignore[arg-type]
    assert export(open_run(run), tmp_path / "model.pt2") <= 1e-4


def test_weights_that_changed_since_the_plan(planned, tmp_path: Path) -> None:
    config, dataset, _ = planned(**FAST)
    other = dataclasses.replace(config.backbone, weights_hash="0" * 16)
    with pytest.raises(InputError, match="this run was planned with 0000000000000000: restore them"):
        execute(dataclasses.replace(config, backbone=other), dataset, tmp_path / "run")


def test_weights_from_a_file_and_images_of_ones_own(planned, tmp_path: Path) -> None:
    """The file may move; another one of the same weights is the same run."""
    for label, name in enumerate(("a", "b")):
        for n in range(8):
            (tmp_path / "images" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), (100 * label, 9 * n, 50)).save(tmp_path / "images" / name / f"{n}.png")
    torch.save({"state_dict": {f"module.{k}": v for k, v in lite0().state_dict().items()}}, tmp_path / "w.pt")
    fields = {"data": str(tmp_path / "images"), "imbalance": None, "weights": str(tmp_path / "w.pt")}
    config, dataset, notes = planned(**(FAST | fields))
    assert config.backbone.weights == str(tmp_path / "w.pt")
    assert (config.data.image_size, config.data.resize_to, dataset.train.images.shape[-1]) == (32, 37, 32)
    assert dataset.preprocess.mean == config.data.mean == MEAN
    assert any(config.backbone.weights_hash in note and "ImageNet" not in note for note in notes)
    moved = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, weights="elsewhere.pt"))
    assert configuration.differences(config, moved)[0] == []


def test_run_folders_without_a_backbone_still_open(finished: Path) -> None:
    text = (finished / "config.toml").read_text()
    old = configuration.from_toml(text[: text.index("[backbone]")].replace('split = "position"\n', ""))
    assert old.backbone == BackboneConfig() and old.data.mean == () and old.backbone.options == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "resnet32"}, "--model resnet32 and --backbone .* both name the network"),
        ({"backbone": None, "weights": "w.pt"}, "--weights are those of a backbone"),
        ({"backbone": "resnet51"}, "unknown backbone 'resnet51'"),
        ({"backbone": "resnet50"}, "brings no weights: give --weights FILE"),
        ({"backbone": None, "mirror": True}, "--mirror is about the features of a backbone"),
        ({"weights": "gone.pt"}, "gone.pt cannot be read .No such file"),
        ({"backbone": None, "pretrained": True}, "--pretrained needs --model timm/NAME"),
    ],
)
def test_flags_that_cannot_be(planned, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        planned(**(FAST | fields))
