"""A pretrained network through the command line: everything that a run is good for, damaged images, a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from saddlescape.data import load
from saddlescape.errors import InputError
from saddlescape.runs.frozen import with_features
from saddlescape.runs.plan import plan
from saddlescape.runs.request import Request
from support import assert_same_end, result_of

TINY = """
import os, time
import torch
from torch import nn

class Tiny(nn.Sequential):
    def forward(self, x):
        time.sleep(float(os.environ.get("TINY_SECONDS", "0")))
        return super().forward(x)

def tiny():
    torch.manual_seed(1)
    return Tiny(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                nn.Linear(12, 5))
"""
FLAGS = ("--backbone", "tiny:tiny", "--image-size", "8", "--method", "la", "--device", "cpu", "--precision", "float32")


@pytest.fixture(autouse=True)
def _network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.py").write_text(TINY)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("tune", ["head", "norm", "all"])
def test_curvature_surface_escape_page_and_both_files_of_a_run(cli, tune):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    small = ("--classes", "0", "9")
    for command in (
        ("train", "digits", "--imbalance", 20, "--epochs", 2, "--tune", tune, *FLAGS, "--out", "run"),
        ("evaluate", "run"),
        ("curvature", "run", *small, "--extremes-only", "--samples-per-class", 20),
        ("surface", "run", "--classes", "9", "--steps", 3, "--samples-per-class", 20),
        ("escape", "run", "--epochs", 1, "--arms", "sgd", "sam@0.1", "--classes", "9", "--samples-per-class", 20),
        ("report", "run", "--out", "report.html"),
        ("export", "run"),
        ("export", "run", "--onnx"),  # both hold their answers against the run's
    ):
        outcome = cli(*command)
        assert outcome.code == 0, (command, outcome.err)
    for name in ("curvature.json", "escape.json", "model.pt2", "model.onnx"):
        assert (Path("run") / name).stat().st_size
    assert "tiny:tiny" in Path("report.html").read_text()


def test_an_image_that_cannot_be_read_is_named_and_nothing_is_lost(cli, make_folder):
    """Found when the data are read; or, where images stay on disk, when its features are made."""
    root = make_folder(Path("mine"), ant=20, bee=20)
    config, _, _ = plan(Request(data=str(root), backbone="tiny:tiny", image_size=8, method="la"))
    stays = load(str(root), image_size=8, memory_limit=0)
    bad = next(path for path in sorted(root.rglob("*.png")) if str(path) in map(str, stays.train.names or ()))
    whole = bad.read_bytes()
    bad.write_bytes(whole[:60])
    assert bad.name in cli("train", root, *FLAGS, "--out", "run").complaint
    with pytest.raises(InputError, match=bad.name):
        with_features(config, stays, Path("run"))
    assert not list(Path().rglob("[0-9]*.safetensors"))
    skipped = cli("train", root, *FLAGS, "--out", "skipped", "--bad-images", "skip")
    assert skipped.code == 0 and result_of(Path("skipped"))["skipped_images"] == 1
    bad.write_bytes(whole)
    assert cli("train", root, *FLAGS, "--out", "run").code == 0


@pytest.mark.slow
def test_killed_while_features_are_made_nothing_is_half_written_and_the_end_is_the_same(tmp_path):
    command = [sys.executable, "-m", "saddlescape", "train", "digits", "--imbalance", "1", "--epochs", "2", *FLAGS]
    subprocess.run([*command, "--out", "apart/whole"], check=True, capture_output=True)
    slow = {**os.environ, "TINY_SECONDS": "0.02"}
    for chunks in (1, 3):
        begun = subprocess.Popen([*command, "--out", "killed"], env=slow, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(list(Path("killed").rglob("[0-9]*.safetensors"))) < chunks and time.monotonic() < deadline:
            time.sleep(0.02)
        begun.send_signal(signal.SIGKILL)
        assert begun.wait() == -signal.SIGKILL
        made = sorted(Path("killed").rglob("[0-9]*.safetensors"))
        assert chunks <= len(made) < 5 and all(len(load_file(path)["features"]) for path in made)
    subprocess.run([*command, "--out", "killed"], check=True, capture_output=True)
    one, other = (sorted(Path(run).rglob("features/*/*")) for run in ("apart/whole", "killed"))
    assert [path.name for path in one] == [path.name for path in other] and len(one) == 5
    for a, b in zip(one, other, strict=True):
        assert torch.equal(load_file(a)["features"], load_file(b)["features"])
    assert_same_end(Path("apart/whole"), Path("killed"))
