"""The command line under torchrun with two real processes: trained, stopped, killed, resumed, refused, measured.

One start of torchrun carries out a list of commands one after the other, since starting it costs more than they do.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from saddlescape.cli.app import build
from saddlescape.models import registry
from saddlescape.training.checkpoint import CheckpointFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (dist.is_available() and dist.is_gloo_available()), reason="this torch is built without gloo"
    ),
]


TINY = """
import torch
from torch import nn

def tiny():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))
"""


class Plain(nn.Module):
    """A network without BatchNorm: what two processes in step make of it is what one makes."""

    feature_dim = 16

    def __init__(self, head: nn.Module, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, 16), nn.Tanh())
        self.head = head

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


# Deferred re-weighting begins with the last epoch; 331 images are batches of 100, 100, 100 and 31.
TRAIN = ["train", "digits", "--epochs", "3", "--batch-size", "100", "--device", "cpu", "--no-compile"]
SAM = [*TRAIN, "--method", "ce+drw+sam"]
OURS = [
    *TRAIN,
    "--method",
    "ours",
]  # its SAM climbs by random images of each process's part; the last stage is no epoch
FROZEN = [*TRAIN, "--method", "la", "--backbone", "tiny:tiny", "--image-size", "8", "--precision", "float32"]
PLAIN = [*SAM, "--model", "plain", "--sync-sam"]
CURVATURE = ["--classes", "0", "3", "9", "--dtype", "float64", "--lanczos-steps", "20", "--products", "40"]
JOBS: list[tuple[str, list[str], str]] = [  # name, command, where rank 1 gets a signal: "signal after step"
    ("whole", [*SAM, "--out", "whole"], ""),
    ("stopped", [*SAM, "--out", "stopped"], "TERM 6"),
    ("resumed", [*SAM, "--out", "stopped"], ""),
    ("finished", [*SAM, "--out", "whole"], ""),
    ("in step", [*PLAIN, "--out", "plain"], ""),
    ("two stages", [*TRAIN, "--method", "crt", "--out", "crt"], ""),
    ("frozen", [*FROZEN, "--out", "frozen"], ""),
    ("mixup", [*TRAIN, "--method", "mislas", "--out", "mislas"], ""),
    ("curvature", ["curvature", "whole", *CURVATURE], ""),
    ("typo", [*SAM, "--epochz", "3"], ""),
    ("unknown", [*TRAIN, "--method", "nonsense", "--out", "none"], ""),
    ("split", [*OURS, "--out", "ours"], ""),
    ("split stopped", [*OURS, "--out", "ours-stopped"], "TERM 6"),
    ("split resumed", [*OURS, "--out", "ours-stopped"], ""),
    ("conditional", [*TRAIN, "--method", "ce+ccsam", "--sync-sam", "--out", "none"], ""),
    ("compares", [*TRAIN, "--method", "bcl", "--out", "none"], ""),
    ("batchnorm", [*SAM, "--sync-batchnorm", "--out", "none"], ""),
    ("alone", ["evaluate", "whole"], ""),
    ("course", ["curvature", "whole", "--over-training"], ""),
    ("killed", [*SAM, "--out", "killed"], "KILL 6"),  # torchrun then starts both processes again
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "500"}
ENVIRONMENT["PYTHONFAULTHANDLER"] = "1"  # a process that dies of a fatal signal says where it was


def arm(where: str, rank: int) -> Any:
    """Have this process, if it is rank 1, get a signal after so many steps of training; what undoes it."""
    import saddlescape.training.loop as loop

    inner, steps = loop.train_step, 0
    if not where or rank != 1:
        return lambda: None
    name, number = where.split()

    def wrapped(*args: Any, **kw: Any) -> Any:
        nonlocal steps
        value = inner(*args, **kw)
        steps += 1
        if steps == int(number):
            os.kill(os.getpid(), getattr(signal, f"SIG{name}"))
        return value

    loop.train_step = wrapped

    def disarm() -> None:
        loop.train_step = inner

    return disarm


def driver(jobs: list[tuple[str, list[str], str]]) -> None:
    """What each process does: the commands in turn, their exit codes written down; after a restart the last one."""
    from saddlescape.cli.app import run

    registry._BUILDERS["plain"] = (Plain.feature_dim, Plain)
    rank, again = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"]) > 0
    written = Path(f"codes-{rank}.json")
    codes = json.loads(written.read_text()) if again else {}
    for name, command, where in jobs[-1:] if again else jobs:
        print(f"--- {name}", file=sys.stderr, flush=True)
        disarm = arm("" if again else where, rank)
        codes[name] = run(command)
        disarm()
        written.write_text(json.dumps(codes))
    left = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    Path(f"threads-{rank}.json").write_text(json.dumps(left))


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, int]], list[dict[str, str]]]:
    """The folder; exit codes of both processes by job; what both said on stderr by job."""
    folder = tmp_path_factory.mktemp("torchrun")
    (folder / "tiny.py").write_text(TINY)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*command, "--max-restarts", "1", "--log-dir", "logs", "--redirects", "3", __file__, json.dumps(JOBS)],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    texts: list[str] = []
    for rank in (0, 1):
        paths = sorted(folder.glob(f"logs/*/attempt_*/{rank}/stderr.log"))
        text = "\n".join(path.read_text() for path in paths)
        texts.append(text)
    if done.returncode:  # in full, which an assertion would cut short
        pytest.fail("\n".join(f"process {rank}: {text[-6000:]}" for rank, text in enumerate([*texts, done.stderr])))
    codes, said = [], []
    for rank, text in enumerate(texts):
        pieces = [piece.partition("\n") for piece in f"\n{text}".split("\n--- ")[1:]]
        said.append({name: rest for name, _, rest in pieces})
        codes.append(json.loads((folder / f"codes-{rank}.json").read_text()))
    return folder, codes, said


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], dict[str, Any]]:
    """Final weights, metrics and result, without what depends on the clock."""
    checkpoint = CheckpointFolder(folder / "checkpoint").newest()
    assert checkpoint is not None
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text())
    for row in (*rows, result):
        del row["seconds"], row["images_per_second"]
    return checkpoint.model, rows, result


def assert_same(one: Path, two: Path) -> None:
    (model, rows, result), (other_model, other_rows, other_result) = outcome(one), outcome(two)
    assert model.keys() == other_model.keys()
    for name, tensor in model.items():
        assert torch.equal(tensor, other_model[name]), name
    assert rows == other_rows
    assert result == other_result


Driven = tuple[Path, list[dict[str, int]], list[dict[str, str]]]


def test_both_processes_end_alike(driven: Driven) -> None:
    _, codes, said = driven
    good = ("whole", "resumed", "finished", "in step", "two stages", "frozen", "mixup", "curvature", "killed")
    good += ("split", "split resumed")
    bad = ("typo", "unknown", "conditional", "compares", "batchnorm", "alone", "course")
    stopped = dict.fromkeys(("stopped", "split stopped"), 130)
    assert codes[0] == codes[1] == dict.fromkeys(good, 0) | dict.fromkeys(bad, 2) | stopped, said


def test_the_first_process_alone_is_heard(driven: Driven) -> None:
    _, _, said = driven
    assert {name: text.strip() for name, text in said[1].items() if text.strip()} == {}
    assert "2 processes" in said[0]["whole"]
    assert "is finished" in said[0]["finished"]


@pytest.mark.parametrize(("name", "words"), [
    ("typo", "--epochz"),
    ("unknown", "nonsense"),
    ("conditional", "stage 'train' cannot be trained by 2 processes in step: cc-sam climbs for each class by"),
    ("compares", "objective 'contrastive' compares the images of a batch with each other"),
    ("batchnorm", "--sync-batchnorm: torch synchronises BatchNorm on GPUs only"),
    ("alone", "evaluate runs in one process and 2 were started: leave out torchrun"),
    ("course", "--over-training measures one after the other"),
])  # fmt: skip
def test_bad_input_is_one_line(driven: Driven, name: str, words: str) -> None:
    folder, _, said = driven
    lines = said[0][name].strip().splitlines()
    assert [line.startswith("saddlescape: ") for line in lines] == [False] * (len(lines) - 1) + [True]
    assert words in lines[-1]
    assert "Traceback" not in said[0][name]
    assert not (folder / "none").exists()


def test_the_configuration_says_how_many(driven: Driven) -> None:
    folder, _, _ = driven
    assert "processes = 2" in (folder / "whole" / "config.toml").read_text()
    assert outcome(folder / "whole")[2]["processes"] == 2
    assert not list((folder / "whole" / "checkpoint").glob(".writing-*"))


def test_a_signal_to_one_stops_both_at_one_step_and_the_run_goes_on_to_the_same_bits(driven: Driven) -> None:
    folder, _, said = driven
    assert "interrupted; a checkpoint was written" in said[0]["stopped"]
    assert "resuming stopped after stage 'train', epoch 1, batch 2" in said[0]["resumed"]
    assert_same(folder / "whole", folder / "stopped")


def test_killed_and_resumed_is_the_same_to_the_bit(driven: Driven) -> None:
    folder, _, said = driven
    assert "resuming killed after stage 'train', epoch 1\n" in said[0]["killed"]
    assert "Traceback" not in said[0]["killed"]
    assert_same(folder / "whole", folder / "killed")


def test_an_optimiser_that_splits_batches_by_class_goes_on_to_the_same_bits(driven: Driven) -> None:
    folder, _, said = driven
    assert "resuming ours-stopped after stage 'train', epoch 1, batch 2" in said[0]["split resumed"]
    assert_same(folder / "ours", folder / "ours-stopped")
    assert outcome(folder / "ours")[2]["accuracy"] > 10


def test_no_thread_of_a_group_outlives_the_commands(driven: Driven) -> None:
    """One that is still at work while Python ends aborts the process, and torchrun then calls the run failed."""
    for rank in (0, 1):
        left = json.loads((driven[0] / f"threads-{rank}.json").read_text())
        assert [name for name in left if "gloo" in name] == []


def test_in_step_the_run_is_that_of_one_process(driven: Driven, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._BUILDERS, "plain", (Plain.feature_dim, Plain))
    assert cli(*PLAIN, "--out", "plain").code == 0
    (model, rows, result), (shared, shared_rows, shared_result) = outcome(Path("plain")), outcome(driven[0] / "plain")
    for name, tensor in model.items():
        torch.testing.assert_close(shared[name], tensor, rtol=1e-4, atol=1e-5)
    for row, other in zip(rows, shared_rows, strict=True):
        assert other["train_loss"] == pytest.approx(row["train_loss"], rel=1e-5)
        assert other["images"] == row["images"]
        assert other["train_accuracy"] == pytest.approx(row["train_accuracy"], abs=0.31)  # one image of 331
    assert shared_result["per_class"] == pytest.approx(result["per_class"], abs=2)
    assert (result["processes"], shared_result["processes"]) == (1, 2)


def test_another_number_of_processes_is_refused(driven: Driven, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(driven[0])
    assert "begun with other settings (processes: 2 -> 1)" in cli(*SAM, "--out", "whole").complaint
    complaint = cli("train", "digits", "--recipe", "whole/config.toml", "--out", "again").complaint
    assert "one of 2 processes and 1 run it: start torchrun --nproc-per-node 2" in complaint
    assert not Path("again").exists()


def test_systems_of_several_stages_and_mixtures(driven: Driven) -> None:
    folder, _, _ = driven
    for name in ("crt", "mislas"):
        _, rows, result = outcome(folder / name)
        assert {row["stage"] for row in rows} == {0, 1}
        assert result["accuracy"] > 10


def test_the_first_process_makes_the_features_of_a_frozen_backbone_and_the_head_is_that_of_one_process(
    driven: Driven, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(driven[0])
    assert cli(*FROZEN, "--out", "one/frozen").code == 0
    one, both = (sorted(Path(run).glob("features/*/*")) for run in ("one/frozen", "frozen"))
    assert one and [path.read_bytes() for path in one] == [path.read_bytes() for path in both]
    assert driven[2][0]["frozen"].count("of 928 images") == 1
    (model, _, _), (shared, _, result) = outcome(Path("one/frozen")), outcome(Path("frozen"))
    for name, tensor in model.items():
        torch.testing.assert_close(shared[name], tensor, rtol=1e-4, atol=1e-5)
    assert result["processes"] == 2


def test_the_curvature_is_that_of_one_process(driven: Driven, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _, _ = driven
    shared = json.loads((folder / "whole" / "curvature.json").read_text())
    assert [row["label"] for row in shared["classes"]] == [0, 3, 9]
    (folder / "whole" / "curvature.json").rename(folder / "shared.json")
    for path in (folder / "whole" / "curvature").rglob("*.npz"):
        path.unlink()  # or they would be read
    monkeypatch.chdir(folder)
    assert cli("curvature", "whole", *CURVATURE).code == 0
    alone = json.loads((folder / "whole" / "curvature.json").read_text())
    assert alone["settings"] == shared["settings"]
    for row, other in zip(alone["classes"], shared["classes"], strict=True):
        assert row["converged_max"]
        for key in ("lambda_min", "lambda_max", "trace", "loss", "gradient_norm"):
            assert other[key] == pytest.approx(row[key], rel=1e-10), key


def test_the_commands_of_the_document_are_commands() -> None:
    text = (Path(__file__).parents[2] / "docs" / "many_processes.md").read_text(encoding="utf-8")
    commands = re.findall(r"^torchrun --nproc-per-node 2 -m saddlescape (.*)$", text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        function, bound, _ = build().parse_args(shlex.split(command), exit_on_error=False, print_error=False)
        assert function.__name__ == command.split()[0]
        assert bound.args


if __name__ == "__main__":
    driver(json.loads(sys.argv[1]))
