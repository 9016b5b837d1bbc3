"""``train imagenet-lt`` and ``train inat2018`` decide on every name of the tables: each row, system and SAM variant."""

from __future__ import annotations

import contextlib
import io
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from saddlescape.cli.app import run
from saddlescape.methods.rows import all_rows

COUNTS = (9, 5, 3, 2, 1)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both sets in their layouts, five classes of one-pixel pictures."""
    root = tmp_path_factory.mktemp("copies")
    shapes = {
        "imagenet-lt": ("ImageNet_LT", "train", "test", "{split}/n{label:08d}/{i}.JPEG"),
        "inat2018": ("iNaturalist18", "train", "val", "train_val2018/Aves/{label}/{split}{i}.jpg"),
    }
    for name, (stem, *splits, shape) in shapes.items():
        for split in splits:
            lines = []
            for label, count in enumerate(COUNTS):
                for i in range(count if split == "train" else 1):
                    path = shape.format(split=split, label=label, i=i)
                    (root / name / path).parent.mkdir(parents=True, exist_ok=True)
                    Image.new("RGB", (2, 2), (label, i, len(split))).save(root / name / path, "JPEG")
                    lines.append(f"{path} {label}\n")
            (root / name / f"{stem}_{split}.txt").write_text("".join(lines))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["imagenet-lt", "inat2018"])
def test_every_name_can_be_trained(dataset: str, copies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for method in all_rows(dataset):
        # A small network, because a rehearsal builds it; which one a row is published with, test_large_rows asks.
        words = ["train", dataset, "--root", str(copies / dataset), "--method", method, "--model", "smallcnn"]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run([*words, "--device", "cpu", "--precision", "float32", "--dry-run"])
        assert code == 0, (method, err.getvalue())
        config = tomllib.loads(out.getvalue())
        assert config["method"] == method
        assert config["stages"] and all(stage["epochs"] >= 1 for stage in config["stages"])
        assert config["stages"][0]["augment"] in ("resized-crop-flip-jitter", "simclr"), method
    assert not list(tmp_path.iterdir())
