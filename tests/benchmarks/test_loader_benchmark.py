"""The loader benchmark: its peer crops and normalises as ours does, its bound decodes everything, its JSON is whole."""

from __future__ import annotations

import json
import random
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

SCRIPT = "loader"


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for i in range(10):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3)).astype(np.uint8)).save(tmp_path / f"{i}.jpg")
    return [str(tmp_path / f"{i}.jpg") for i in range(10)]


def test_the_peer_s_transform_is_that_of_ours(
    script: types.ModuleType, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same box, no flip and no jitter: what is left is Pillow's scaling at the border, and rounding."""
    from peers import image_folder

    from saddlescape.data.batching import Normalizer
    from saddlescape.data.reader import crop
    from saddlescape.data.types import Preprocess

    preprocess = Preprocess(image_size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    monkeypatch.setattr(image_folder, "random_box", lambda width, height: (3, 2, 30, 25))
    monkeypatch.setattr(random, "random", lambda: 0.9)
    transform = image_folder.TrainTransform(16, preprocess.mean, preprocess.std, jitter=False)
    theirs = transform(Image.open(files[0]).convert("RGB"))
    ours = np.asarray(crop(preprocess, files[0], 16, lambda width, height: (3, 2, 33, 27)))
    shown = Normalizer(preprocess, torch.device("cpu"))(torch.from_numpy(ours.copy()).permute(2, 0, 1)[None])[0]
    assert (shown - theirs)[:, 1:-1, 1:-1].abs().max() < 1.01 / 255 / 0.2
    assert theirs.dtype == shown.dtype and theirs.shape == shown.shape


def test_the_peer_s_boxes_are_distributed_as_ours(script: types.ModuleType) -> None:
    from peers.image_folder import random_box
    from scipy import stats

    from saddlescape.data.augment import ResizedCrop

    random.seed(0)
    theirs = np.array([random_box(50, 40) for _ in range(3000)])
    ours = ResizedCrop(8).draw(3000, 40, 50, torch.Generator().manual_seed(0)).numpy()[:, [1, 0, 3, 2]]
    for column in range(4):
        assert stats.ks_2samp(theirs[:, column], ours[:, column]).pvalue > 1e-3


@pytest.mark.parametrize("workers", [0, 2])
def test_every_contender_shows_every_image_once(script: types.ModuleType, files: list[str], workers: int) -> None:
    from saddlescape.data.types import Preprocess

    setting = script.Setting(files, list(range(10)), Preprocess(image_size=16), torch.device("cpu"), 4, workers, 1)
    for build in script.CONTENDERS.values():
        contender = build(setting)
        script.run_epoch(contender, 10, lambda: None)
        with pytest.raises(RuntimeError, match="showed 10 of 11 images"):
            script.run_epoch(contender, 11, lambda: None)
        contender.close()


def test_the_bound_meets_damaged_files(script: types.ModuleType, files: list[str]) -> None:
    assert script.decode(files) == 10
    Path(files[3]).write_bytes(Path(files[3]).read_bytes()[:-100])
    with pytest.raises(OSError, match="truncated"):
        script.decode(files)


@pytest.mark.slow
def test_the_json_tells_every_row(
    script: types.ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SADDLESCAPE_DATA", str(tmp_path / "nothing"))  # the digits
    out = tmp_path / "loader.json"
    argv = ["--images", "24", "--batch", "8", "--workers", "1", "--rounds", "1"]
    assert script.main([*argv, "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    rows = {row["name"]: row["value"] for row in result["rows"]}
    printed = capsys.readouterr().out
    assert all(name in printed for name in rows)
    medians = {name: timing["median_s"] for name, timing in result["timings"].items()}
    ratio = medians["DataLoader"] / medians["ours"]
    assert rows["images per second, over DataLoader"] == pytest.approx(ratio)
    assert rows["images per second and core, ours"] == pytest.approx(24 / medians["ours"])
    share = medians["decoding alone"] / medians["ours"]
    assert rows["share of the speed of decoding alone"] == pytest.approx(share)
    assert result["growth"]["images"]["sizes"] == [8, 12, 24]
    assert rows["growth of an epoch's time with workers, ours"] is None  # one number of workers only
