"""A stranger's first ten minutes: a clone, a look around, a model of own images, a table, a page, nothing explained."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
SCRIPT = """
saddlescape --help
saddlescape methods
saddlescape datasets check photos
saddlescape train photos --epochs 2 --out runs/photos --dry-run
saddlescape train photos --epochs 2 --out runs/photos
saddlescape train photos --epochs 2 --out runs/photos
saddlescape evaluate runs/photos
saddlescape predict runs/photos photos/fox/0.png
saddlescape export runs/photos --out photos.pt2
saddlescape reproduce digits-lt --methods ce,ce+sam --seeds 0 --epochs 2 --out runs/table
saddlescape curvature runs/table/ce-seed0 --classes 0 9 --extremes-only --samples-per-class 20
saddlescape report runs/table --out table.html
saddlescape report runs/photos --out photos.html
"""
EXPORTED = "import torch; print(torch.export.load('photos.pt2').module()(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)))"


@pytest.mark.slow
def test_from_a_clone_to_a_model_a_table_and_a_page(tmp_path: Path) -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    for shade, (name, images) in enumerate({"fox": 12, "owl": 6, "lynx": 3}.items()):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(images):
            Image.new("RGB", (40, 36), (80 * shade, 9 * i, 255 - 80 * shade)).save(folder / f"{i}.png")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "clone" / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    said = [run(sys.executable, "-m", *line.split()) for line in SCRIPT.strip().splitlines()]
    assert all(said), "a command without a word"
    assert all(word in said[0] for word in ("Train", "Use", "Understand", "Compare", "Examples"))
    assert "fox" in said[7]
    table = (tmp_path / "runs" / "table" / "table.md").read_text(encoding="utf-8")
    assert "| ce |" in table and "| ce+sam |" in table
    for page, word in (("table.html", "ce+sam"), ("photos.html", "lynx")):
        assert word in (tmp_path / page).read_text(encoding="utf-8")
    environment["PYTHONPATH"] = ""  # the exported model needs torch alone
    assert "tensor" in run(sys.executable, "-c", EXPORTED)
