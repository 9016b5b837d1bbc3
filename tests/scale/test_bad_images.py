"""What goes wrong in a long run on files: one line, exit code 2, no step lost, and the same bits once it is mended."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saddlescape.cli.app import run
from saddlescape.training import loop
from saddlescape.training.checkpoint import CheckpointFolder, Cursor
from support import assert_same_end

COUNTS, BATCHES = (14, 8, 4), 4  # 26 images in batches of 8


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of ImageNet-LT with three classes."""
    rng = np.random.default_rng(0)
    for split, each in (("train", COUNTS), ("test", (3, 3, 3))):
        lines = []
        for label, count in enumerate(each):
            for i in range(count):
                lines.append(f"{split}/n{label:08d}/{split}_{i}.JPEG {label}\n")
                path = tmp_path / "set" / lines[-1].split()[0]
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)).save(path, "JPEG")
        (tmp_path / "set" / f"ImageNet_LT_{split}.txt").write_text("".join(lines))
    monkeypatch.setenv("COLUMNS", "400")
    return tmp_path / "set"


def train(root: Path, out: str, *more: str, batch: int = 8) -> tuple[int, str]:
    """Exit code of the command line and what it said last."""
    words = ["train", "imagenet-lt", "--root", str(root), "--method", "ce+sam", "--model", "smallcnn", "--epochs", "2"]
    words += ["--batch-size", str(batch), "--image-size", "16", "--device", "cpu", "--precision", "float32"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run([*words, "--out", str(root.parent / out), *more])
    return code, said.getvalue().strip().splitlines()[-1]


def newest(root: Path, out: str) -> Cursor:
    return CheckpointFolder(root.parent / out / "checkpoint").cursors()[-1]


def assert_goes_on_to_the_same_end(root: Path, out: str) -> None:
    for name in (out, "whole"):
        code, said = train(root, name)
        assert code == 0, said
    assert_same_end(root.parent / out, root.parent / "whole")


def on_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Call ``act`` before step ``number`` (from 1) of the runs to come."""
    step, taken = loop.train_step, [0]

    def counted(*args: Any, **named: Any) -> Any:
        taken[0] += 1
        if taken[0] == number:
            act()
        return step(*args, **named)

    monkeypatch.setattr(loop, "train_step", counted)


@pytest.mark.parametrize(("split", "cursor"), [("train", None), ("test", Cursor(0, 0, BATCHES))])
def test_a_file_that_is_cut_short_after_the_run_began(
    root: Path, monkeypatch: pytest.MonkeyPatch, split: str, cursor: Cursor | None
) -> None:
    """A training image of the second epoch, or a test image at the end of the first."""
    path = root / split / "n00000001" / f"{split}_2.JPEG"
    sound = path.read_bytes()
    with monkeypatch.context() as patch:
        # Of training images one that was shown already and comes again.
        on_step(patch, BATCHES if split == "train" else 1, lambda: path.write_bytes(sound[:-40]))
        code, said = train(root, "run")
    assert code == 2 and said.startswith("saddlescape: ")
    assert path.name in said and "truncated" in said
    # In the first batch of an epoch there is nothing new to be saved.
    assert newest(root, "run") == cursor if cursor else newest(root, "run") >= Cursor(0, 0, BATCHES - 1)
    assert ("all steps done are saved" in said) == (newest(root, "run").batch > 0)
    path.write_bytes(sound)
    assert_goes_on_to_the_same_end(root, "run")
