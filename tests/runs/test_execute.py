"""A run in its folder: what it leaves, what it refuses, how it goes on."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import saddlescape
from saddlescape.errors import InputError
from saddlescape.methods.recipe import Facts
from saddlescape.methods.systems import SYSTEMS, System
from saddlescape.records import files
from saddlescape.records.config import Stage
from saddlescape.records.metrics import EpochRow, epoch_of
from saddlescape.runs import config as configuration
from saddlescape.runs import execute as module
from saddlescape.runs.execute import execute
from saddlescape.runs.opened import open_run
from saddlescape.training import loop
from saddlescape.training.checkpoint import CheckpointFolder, Cursor
from support import assert_same_bits, assert_same_end, end_of, rows_of

Start = Callable[..., dict[str, Any]]


class Crash(Exception):
    """Stands for a kill: nothing of the run's own code handles it."""


def crash_at(patch: pytest.MonkeyPatch, step: int) -> None:
    whole, calls = loop.train_step, [0]

    def counted(*args: Any, **kw: Any) -> Any:
        calls[0] += 1
        if calls[0] == step:
            raise Crash
        return whole(*args, **kw)

    patch.setattr(loop, "train_step", counted)


def begin(start: Start, folder: Path, step: int = 5, **fields: Any) -> None:
    """A run of two epochs (three steps each) that was cut short."""
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, step)
        with pytest.raises(Crash):
            start(folder, **fields)


def test_the_result_has_every_field_of_the_contract(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    last = files.read_rows(finished / "metrics.jsonl")[-1]["test"]
    assert result["version"] == saddlescape.__version__
    assert result["accuracy"] == last["accuracy"]
    assert len(result["per_class"]) == 10 == len(result["classes"]) == len(result["class_counts"])
    # Groups are of the whole draw; the counts here lack the 20 % of the validation split.
    tail = np.array(result["class_counts"]) < 16
    assert np.isclose(result["tail"], np.array(result["per_class"])[tail].mean())
    told = ("seed", "method", "dataset", "imbalance", "epochs")
    assert [result[name] for name in told] == [0, "ldam+drw+sam", "digits", 50, 2]
    assert "CPU" in result["device"] and len(result["draw_hash"]) == 16


def test_a_run_without_validation_selects_nothing(start: Start, tmp_path: Path) -> None:
    result = start(tmp_path / "run", epochs=1)
    assert not [name for name in result if name.startswith(("val", "selected"))]


def test_best_and_selected_are_taken_from_the_rows_by_their_epoch(planned: Any) -> None:
    config, dataset, _ = planned(epochs=4)

    def row(epoch: int, test: float, val: float) -> EpochRow:
        scores = {
            "accuracy": test,
            "balanced_accuracy": test,
            "ece": 0.0,
            "per_class": [],
            "present": 10,
            "tail": test / 2,
        }
        found = {"epoch": epoch, "train_loss": 1.0, "seconds": 2.0, "images": 10, "test": scores}
        return epoch_of(found | {"val": {"accuracy": val, "balanced_accuracy": val}}, 0, "train")

    # Epoch 2 was not evaluated (or its row was lost).
    result = module.summarise(config, dataset, [row(0, 40.0, 30.0), row(2, 60.0, 20.0), row(3, 50.0, 31.0)])
    assert (result.best_epoch, result.best_accuracy) == (3, 60.0)
    assert (result.selected_epoch, result.selected_accuracy, result.selected_tail) == (4, 50.0, 25.0)
    assert (result.accuracy, result.seconds, result.images_per_second) == (50.0, 6.0, 5.0)
    with pytest.raises(InputError, match="has lost its rows"):
        module.summarise(config, dataset, [])


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"lr": 0.07}, "stages.0.lr: 0.05 -> 0.07"),
        ({"method": "la+drw+sam"}, "stages.0.loss: ce -> la"),
        ({"imbalance": 20.0}, "data.imbalance: 50.0 -> 20.0"),
        ({"epochs": 3}, "stages.0.epochs: 2 -> 3"),
        ({"seed": 4}, "seed: 0 -> 4"),
        ({"model": "resnet20"}, "model: smallcnn -> resnet20"),
    ],
)
def test_resuming_with_other_settings_is_refused_with_the_difference(
    start: Start, tmp_path: Path, changes: dict[str, Any], difference: str
) -> None:
    begin(start, tmp_path / "run")
    before = (tmp_path / "run" / "config.toml").read_text()
    with pytest.raises(InputError) as caught:
        start(tmp_path / "run", **changes)
    assert difference in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "run" / "config.toml").read_text() == before
    assert not (tmp_path / "run" / "result.json").exists()


def test_what_moves_no_weight_may_change(start: Start, tmp_path: Path) -> None:
    begin(start, tmp_path / "run")
    said: list[str] = []
    start(tmp_path / "run", eval_every=2, keep_every=1, say=said.append)
    assert any("eval_every: 1 -> 2" in line for line in said)
    start(tmp_path / "whole")
    assert_same_bits(end_of(tmp_path / "whole").model, end_of(tmp_path / "run").model)
    kept = configuration.load(tmp_path / "run")
    assert (kept.eval_every, kept.keep_every) == (2, 1)


def test_a_resumed_run_keeps_the_threads_it_was_begun_with(planned: Any) -> None:
    config, _, _ = planned()
    old = dataclasses.replace(config, threads=1)
    said: list[str] = []
    assert module._with_threads_of(old, dataclasses.replace(config, threads=2), said.append).threads == 1
    assert any("1 threads" in line for line in said)
    many = dataclasses.replace(config, threads=10_000)  # begun on a larger machine
    assert module._with_threads_of(many, dataclasses.replace(config, threads=2), said.append).threads == 2
    assert module._with_threads_of(old, old, said.append) is old
    assert len(said) == 1


def test_data_changed_under_a_run_are_refused(planned: Any, start: Start, tmp_path: Path) -> None:
    begin(start, tmp_path / "run")
    config, dataset, _ = planned()
    with pytest.raises(InputError, match="was trained on other images"):
        execute(config, dataclasses.replace(dataset, draw_hash="0123456789abcdef"), tmp_path / "run")


def test_a_damaged_newest_checkpoint_is_named_and_the_end_is_the_same(start: Start, tmp_path: Path) -> None:
    begin(start, tmp_path / "run", step=8, epochs=3)
    newest = tmp_path / "run" / "checkpoint" / Cursor(0, 2).folder / "state.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    said: list[str] = []
    start(tmp_path / "run", epochs=3, say=said.append)
    assert any(str(newest) in line and line.startswith("warning") for line in said)
    start(tmp_path / "whole", epochs=3)
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_lost_rows_are_said_and_a_cut_last_line_is_forgiven(start: Start, tmp_path: Path) -> None:
    begin(start, tmp_path / "run", step=8, epochs=3)
    path = tmp_path / "run" / "metrics.jsonl"
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    path.write_text(lines[0] + "\n" + lines[1][:50])
    said: list[str] = []
    result = start(tmp_path / "run", epochs=3, say=said.append)
    assert any("has 1 of 2 rows" in line for line in said)
    assert [row["epoch"] for row in rows_of(tmp_path / "run")] == [0, 2]
    assert result["best_epoch"] in (1, 3)


def test_a_row_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for damaged in (b'{"a": ', b'{"\xff": 2}'[:5], b"\x00\xff\xfe"):
        path.write_bytes(b'{"a": 1}\n' + damaged + b'\n{"a": 3}\n')
        with pytest.raises(InputError, match="line 2: damaged; delete that line"):
            files.read_rows(path)


def test_a_folder_in_use_is_refused(start: Start, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    # flock locks belong to the open file: another one in this process stands for another process.
    with (tmp_path / "run" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="is in use by another process"):
            start(tmp_path / "run")
        assert not (tmp_path / "run" / "config.toml").exists()


def test_a_strangers_folder_is_refused_and_left_alone(start: Start, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"not empty and not a run of saddlescape \(it holds 'thesis.tex'\)"):
        start(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir() if not entry.name.startswith(".")] == ["thesis.tex"]


@pytest.mark.parametrize("asked", [True, False])
def test_a_compiler_that_is_stopped_with_the_run_is_no_error(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """Ctrl-C on a terminal goes to g++ as well, and torch says that it failed; alone that is an error as any other."""
    from torch._inductor.exc import InductorError

    def fit(*args: object, **kw: object) -> None:
        if asked:
            os.kill(os.getpid(), signal.SIGINT)
        raise InductorError(RuntimeError("CppCompileError"), None)

    with monkeypatch.context() as patch:
        patch.setattr(module, "fit", fit)
        with pytest.raises(KeyboardInterrupt if asked else InductorError):
            start(tmp_path / "run")
    assert start(tmp_path / "run")["accuracy"] >= 0  # and goes on


def test_a_full_disk_in_mid_run_is_one_line_and_the_run_goes_on_later(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = os.fsync, [0]

    def full(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] > 8:
            raise OSError(28, "No space left on device")
        whole(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="No space left on device") as caught:
            start(tmp_path / "run")
        assert "\n" not in str(caught.value)
    start(tmp_path / "run")
    start(tmp_path / "whole")
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_a_checkpoint_is_due_when_its_time_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    due, never = module.every(60), module.every(0)
    said = []
    for clock[0] in (101.0, 159.9, 160.0, 160.1, 219.0, 221.0, 900.0, 901.0):
        said.append(due())
        assert not never()
    assert said == [False, False, True, False, False, True, True, False]


def test_a_run_that_dies_in_mid_epoch_goes_on_from_its_newest_checkpoint(planned: Any, tmp_path: Path) -> None:
    config, dataset, _ = planned()
    folder, lines = tmp_path / "run", []
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, 3)
        with pytest.raises(Crash):
            execute(config, dataset, folder, save_every=1e-9)
    assert CheckpointFolder(folder / files.CHECKPOINT).cursors()[-1] == Cursor(0, 0, 2)
    execute(config, dataset, folder, say=lines.append)
    execute(config, dataset, tmp_path / "whole")
    assert any("epoch 0, batch 2" in line for line in lines)
    assert_same_end(folder, tmp_path / "whole")


def test_a_loss_that_blows_up_keeps_the_last_good_checkpoint(start: Start, tmp_path: Path) -> None:
    # The warm-up of 40 epochs is one epoch; a float32 of 1e30 overflows soon after.
    settings = ["train.lr=1e30", "train.augment=none"]
    with pytest.raises(InputError, match="no longer finite at epoch") as caught:
        start(tmp_path / "run", method="ce", epochs=40, settings=settings)
    assert "\n" not in str(caught.value)
    checkpoint = CheckpointFolder(tmp_path / "run" / "checkpoint").newest()
    if checkpoint is not None:
        assert all(t.isfinite().all() for t in checkpoint.model.values() if t.is_floating_point())


def toy_stages(facts: Facts, own: Mapping[str, Any], first: Stage) -> tuple[Stage, ...]:
    """Like cRT, and then more: representation, a new cosine head on frozen features, and all together."""
    common: dict[str, Any] = {"batch_size": 128, "lr": 0.05, "lr_schedule": "constant", "augment": "crop"}
    return (
        Stage(name="features", epochs=2, **common),
        Stage(
            name="head", epochs=2, trainable="head", reset_head=True, backbone_mode="eval", head="cosine",
            loss="ldam", loss_options={"scale": 30.0}, sampler="class-balanced", **common,
        ),
        Stage(name="all", epochs=2, head="cosine", loss="ldam", loss_options={"scale": 30.0}, **common),
    )  # fmt: skip


TOY = System("a toy", "here", toy_stages)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SYSTEMS, "toy", TOY)


@pytest.fixture(scope="module")
def staged(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the three stages that was never stopped."""
    folder = tmp_path_factory.mktemp("staged") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SYSTEMS, "toy", TOY)
        start(folder, method="toy", epochs=None, keep_every=1)
    return folder


@pytest.mark.parametrize("steps", [[5], [8], [11], [14], [17], [2, 6, 4, 4]])
def test_a_run_of_stages_goes_on_from_the_middle_of_any(
    toy: None, start: Start, staged: Path, tmp_path: Path, steps: list[int]
) -> None:
    """Three steps an epoch: step 5 is in the first stage, 8 and 11 in the second, 14 and 17 in the third."""
    for step in steps:
        begin(start, tmp_path / "run", step, method="toy", epochs=None, keep_every=1)
    start(tmp_path / "run", method="toy", epochs=None, keep_every=1)
    assert_same_end(tmp_path / "run", staged)


def test_what_the_stages_did(staged: Path) -> None:
    table = rows_of(staged)
    assert [(row["stage"], row["name"], row["epoch"]) for row in table] == [
        (0, "features", 0), (0, "features", 1), (1, "head", 0), (1, "head", 1), (2, "all", 0), (2, "all", 1),
    ]  # fmt: skip
    folder = CheckpointFolder(staged / "checkpoint")
    one, two, three = (folder.load(cursor).model for cursor in (Cursor(0, 2), Cursor(1, 2), Cursor(2, 2)))
    assert one["linear.weight"].shape == (10, 64)
    assert two["linear.weight"].shape == (64, 10)
    for name in one:
        if not name.startswith("linear"):
            assert torch.equal(one[name], two[name]), name
    assert not torch.equal(two["conv1.weight"], three["conv1.weight"])
    assert json.loads((staged / "result.json").read_text())["epochs"] == 6
    assert open_run(staged, Cursor(0, 2)).logit_scale == 1.0
    assert open_run(staged).logit_scale == 30.0


def test_a_run_does_not_depend_on_the_folder_it_is_started_in_nor_on_the_random_state(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tmp_path / "one", epochs=1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    torch.manual_seed(99)
    np.random.seed(3)  # noqa: NPY002  the global generator is what is tried here
    start(Path("../two"), epochs=1)
    assert_same_end(tmp_path / "one", tmp_path / "two")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_reports_need_no_torch(finished: Path) -> None:
    """The files of a run are read, and its table is made, where torch cannot be imported."""
    code = (
        "import sys, json\nsys.modules['torch'] = None\nfrom pathlib import Path\n"
        "from saddlescape.records import files\nfrom saddlescape.report import table\n"
        "result = files.read_result(Path(sys.argv[1]))\n"
        "print(table.markdown(table.build([result], 300)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, finished], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    accuracy = json.loads((finished / "result.json").read_text())["accuracy"]
    assert f"| {accuracy:.1f} |" in done.stdout
