"""ImageNet-LT and iNaturalist 2018 end to end, on sets made in their layout: ResNet-50, the published recipes, a kill.

One driver process imports the library once and forks a process for each command, so that a command costs no imports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import assert_same_end, end_of, result_of, rows_of

pytestmark = pytest.mark.slow

TOOL = Path(__file__).parents[2] / "tools" / "make_longtail_set.py"
COMMON = ["--image-size", "32", "--batch-size", "8", "--device", "cpu", "--precision", "float32"]
IMAGENET = ["train", "imagenet-lt", "--root", "imagenet", "--method", "ldam+drw+sam", "--epochs", "2", *COMMON]
COMMANDS = {
    "check": ["datasets", "check", "imagenet-lt", "--root", "imagenet", "--workers", "1"],
    "whole": [*IMAGENET, "--out", "whole"],
    "killed": [*IMAGENET, "--out", "run", "--save-every", "1e-9"],  # after every step, so that a kill finds one
    "resumed": [*IMAGENET, "--out", "run"],
    "evaluated": ["evaluate", "run", "--out", "scores.json"],
    "check-inat": ["datasets", "check", "inat2018", "--root", "inat", "--workers", "1"],
    "inat": [
        "train", "inat2018", "--root", "inat", "--method", "ce+drw+sam", "--epochs", "1", *COMMON, "--out", "inat-run",
    ],
}  # fmt: skip
DRIVER = r"""
import json, os, signal, sys, time
from pathlib import Path
os.environ["COLUMNS"] = "500"
import torch
torch.set_num_threads(1)
from saddlescape.cli.app import main
import saddlescape.cli.datasets, saddlescape.cli.evaluate, saddlescape.cli.train
from saddlescape.runs.plan import plan
from saddlescape.runs.request import Request
plan(Request(data="imagenet-lt", root="imagenet", epochs=1, device="cpu", image_size=32))  # imports what comes late
codes = {}
for name, command in json.loads(sys.argv[1]).items():
    child = os.fork()
    if child == 0:
        with open(f"{name}.out", "a") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        try:
            main(command)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    if name == "killed":
        while not any(Path("run/checkpoint").glob("s0-e00000-b*")):  # the middle of the first epoch
            if os.waitpid(child, os.WNOHANG)[0]:
                sys.exit("it ended before it could be killed")
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    codes[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(codes))
"""


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """The folder with both sets and all runs, and the exit code of each command."""
    folder = tmp_path_factory.mktemp("scale")
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "SADDLESCAPE_DATA": str(folder / "none"),
    }
    small = ["--test-per-class", "2", "--size", "60", "44", "--workers", "1"]
    for words in (
        ["imagenet-lt", "imagenet", "--classes", "9", "--scale", "0.004"],
        ["inat2018", "inat", "--classes", "5", "--scale", "0.006"],
    ):
        subprocess.run([sys.executable, TOOL, *words, *small], cwd=folder, env=environment, check=True)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(COMMANDS)],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def said(folder: Path, name: str) -> str:
    return (folder / f"{name}.out").read_text()


def test_a_made_set_passes_the_check(driven: tuple[Path, dict[str, int]]) -> None:
    folder, codes = driven
    for name in ("check", "check-inat"):
        assert codes[name] == 0 and "ready to train" in said(folder, name), said(folder, name)


def test_killed_in_mid_epoch_and_resumed_is_the_same_to_the_bit(driven: tuple[Path, dict[str, int]]) -> None:
    folder, codes = driven
    assert (codes["whole"], codes["killed"], codes["resumed"]) == (0, -9, 0), said(folder, "resumed")
    assert "resuming run after stage 'train', epoch 0, batch " in said(folder, "resumed")
    assert_same_end(folder / "whole", folder / "run")


def test_it_is_the_published_network_and_recipe(driven: tuple[Path, dict[str, int]]) -> None:
    folder, _ = driven
    model, rows, result = end_of(folder / "run").model, rows_of(folder / "run"), result_of(folder / "run")
    parameters = sum(
        tensor.numel()
        for name, tensor in model.items()
        if not name.endswith(("running_mean", "running_var", "tracked"))
    )
    assert parameters == 25_557_032 - (2048 * 1000 + 1000) + 2048 * 9  # ResNet-50 with a cosine head of nine classes
    assert (result["model"], result["method"], result["dataset"]) == ("resnet50", "ldam+drw+sam", "imagenet-lt")
    assert [row["lr"] for row in rows] == pytest.approx([0.2, 0.1])
    # Milestones 5, 60 and 75 of 90 epochs all fall on the second of two.
    assert [row["rho"] for row in rows] == [0.05, 0.5]
    config = (folder / "run" / "config.toml").read_text()
    assert "reweight_start = 1\n" in config and "max_margin = 0.3\n" in config and "freeze_bn_stats = false" in config


def test_evaluation_tells_head_mid_and_tail(driven: tuple[Path, dict[str, int]]) -> None:
    folder, codes = driven
    assert codes["evaluated"] == 0
    line = said(folder, "evaluated").splitlines()[-20:]
    assert any("(head " in text and ", mid " in text and ", tail " in text for text in line), line
    scores = json.loads((folder / "scores.json").read_text())
    result = json.loads((folder / "run" / "result.json").read_text())
    assert scores["accuracy"] == result["accuracy"] and scores["per_class"] == result["per_class"]
    assert scores["groups"] == {name: result[name] for name in ("head", "mid", "tail")}


def test_inaturalist_trains_too(driven: tuple[Path, dict[str, int]]) -> None:
    folder, codes = driven
    assert codes["inat"] == 0, said(folder, "inat")
    result = json.loads((folder / "inat-run" / "result.json").read_text())
    assert (result["model"], result["dataset"], len(result["per_class"])) == ("resnet50", "inat2018", 5)
