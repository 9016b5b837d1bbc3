"""Checkpoints: whole or not at all, checked when read, nothing executed, tied and channels-last weights kept."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from saddlescape.errors import InputError
from saddlescape.training import checkpoint as module
from saddlescape.training.checkpoint import CheckpointFolder, Cursor, load_weights, read_state, save_weights

FILES = ("model.safetensors", "state.pt", "meta.json")


def net(value: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 2))
    nn.init.constant_(model[2].bias, value)
    return model


def filled(path: Path, epochs: int = 3, **kw: Any) -> CheckpointFolder:
    folder = CheckpointFolder(path, **kw)
    for epoch in range(1, epochs + 1):
        folder.save(Cursor(0, epoch), net(epoch), {"rng": torch.arange(9), "epoch": epoch}, {"classes": ["a", "b"]})
    return folder


def names(folder: CheckpointFolder) -> list[str]:
    return [cursor.folder for cursor in folder.cursors()]


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoint")
    assert folder.newest() is None
    assert folder.cursors() == []
    model = net(3.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(4, 2, 3, 5)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(), "running": {"batch": 3, "loss": 0.5}}
    path = folder.save(Cursor(1, 4, 3), model, state, {"classes": ["ü", "b"], "odd": [1.5, None, True]})
    assert path.name == "s1-e00004-b000003"
    found = folder.newest()
    assert found is not None
    assert found.cursor == Cursor(1, 4, 3)
    assert found.path == path
    assert found.meta["classes"] == ["ü", "b"]
    assert (found.meta["stage"], found.meta["epoch"], found.meta["batch"]) == (1, 4, 3)
    assert found.meta["odd"] == [1.5, None, True]
    assert found.model.keys() == model.state_dict().keys()
    assert all(torch.equal(found.model[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(found.state["rng"], state["rng"])
    buffers = [entry["momentum_buffer"] for entry in found.state["optimizer"]["state"].values()]
    wanted = [entry["momentum_buffer"] for entry in optimizer.state_dict()["state"].values()]
    assert all(torch.equal(*pair) for pair in zip(buffers, wanted, strict=True))
    assert sorted(entry.name for entry in folder.path.iterdir()) == [path.name]


def test_tied_and_channels_last_weights(tmp_path: Path) -> None:

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
            self.two.weight = self.one.weight
            self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
            self.register_buffer("empty_a", torch.empty(0))
            self.register_buffer("empty_b", torch.empty(0))
            self.register_buffer("scalar", torch.tensor(7))

    model = Tied()
    save_weights(tmp_path / "w.safetensors", model.state_dict())
    weights = load_weights(tmp_path / "w.safetensors")
    other = Tied()
    other.load_state_dict(weights)
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert other.conv.weight.is_contiguous(memory_format=torch.channels_last)
    # Saved once: two tied 4x4 matrices are 64 bytes, not 128.
    header = (tmp_path / "w.safetensors").read_bytes()
    assert header.count(b'"shape":[4,4]') == 1
    row = torch.arange(6.0)
    views = {"a": row[:3], "b": row[3:], "c": row[::2]}  # one storage, other places: not tied
    save_weights(tmp_path / "v.safetensors", views)
    assert all(torch.equal(load_weights(tmp_path / "v.safetensors")[name], view) for name, view in views.items())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip, empty, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_newest_falls_back_and_is_named(tmp_path: Path, name: str, damage: Any) -> None:
    folder = filled(tmp_path)
    damage(tmp_path / Cursor(0, 3).folder / name)
    problems: list[str] = []
    found = folder.newest(problems)
    assert found is not None
    assert found.cursor == Cursor(0, 2)
    assert len(problems) == 1
    assert str(tmp_path / Cursor(0, 3).folder / name) in problems[0]
    assert "\n" not in problems[0]


def test_a_changed_class_name_in_meta_is_damage(tmp_path: Path) -> None:
    folder = filled(tmp_path)
    path = tmp_path / Cursor(0, 3).folder / "meta.json"
    path.write_text(path.read_text().replace('"a"', '"c"'))
    with pytest.raises(InputError, match=r"meta\.json: damaged"):
        folder.load(Cursor(0, 3))


def test_checkpoints_without_a_checksum_of_meta_are_still_read(tmp_path: Path) -> None:
    folder = filled(tmp_path)
    path = tmp_path / Cursor(0, 3).folder / "meta.json"
    meta = json.loads(path.read_text())
    del meta["sha256"]["meta.json"]
    path.write_text(json.dumps(meta, indent=1))
    assert folder.load(Cursor(0, 3)).meta["classes"] == ["a", "b"]


def test_all_damaged_is_one_line(tmp_path: Path) -> None:
    folder = filled(tmp_path)
    for cursor in folder.cursors():
        truncate(tmp_path / cursor.folder / "state.pt")
    with pytest.raises(InputError, match="no checkpoint can be read") as caught:
        folder.newest()
    assert str(tmp_path) in one_line(caught)


def test_another_format_version_is_said(tmp_path: Path) -> None:
    folder = filled(tmp_path, 1)
    path = tmp_path / Cursor(0, 1).folder / "meta.json"
    meta = json.loads(path.read_text()) | {"version": 99}
    del meta["sha256"]["meta.json"]
    path.write_text(json.dumps(meta))
    with pytest.raises(InputError, match="written by format 99, this version reads 1"):
        folder.load(Cursor(0, 1))


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_hostile_pickle_is_not_executed(tmp_path: Path, how: str) -> None:
    folder = filled(tmp_path / "checkpoint")
    target, mark = tmp_path / "checkpoint" / Cursor(0, 3).folder, tmp_path / "executed"
    if how == "torch":
        torch.save({"optimizer": Hostile(mark)}, target / "state.pt")
    else:
        (target / "state.pt").write_bytes(pickle.dumps({"optimizer": Hostile(mark)}))
    # Its author can write a fitting checksum as well.
    meta = json.loads((target / "meta.json").read_text())
    meta["sha256"]["state.pt"] = module._sha256(target / "state.pt")
    del meta["sha256"]["meta.json"]
    (target / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match=r"state\.pt: damaged or not a checkpoint") as caught:
        folder.load(Cursor(0, 3))
    one_line(caught)
    newest = folder.newest()
    assert newest is not None
    assert newest.cursor == Cursor(0, 2)
    assert not mark.exists()


@pytest.mark.parametrize("where", ["save_weights", "torch.save", "_sync", "rename"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos 64")])
def test_a_full_disk_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception
) -> None:
    folder = filled(tmp_path)

    def fail(*args: Any, **kw: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        if where == "torch.save":
            patch.setattr(torch, "save", fail)
        elif where == "rename":
            patch.setattr(Path, "rename", fail)
        else:
            patch.setattr(module, where, fail)
        with pytest.raises(InputError, match="could not write the checkpoint") as caught:
            folder.save(Cursor(0, 4), net(4), {}, {})
    assert Cursor(0, 4).folder in one_line(caught)
    newest = folder.newest()
    assert newest is not None
    assert newest.cursor == Cursor(0, 3)
    assert not list(tmp_path.glob(".*"))
    folder.save(Cursor(0, 4), net(4), {}, {})
    assert names(folder)[-1] == Cursor(0, 4).folder


def test_an_exception_of_any_kind_inside_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = filled(tmp_path)

    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_sync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder.save(Cursor(0, 4), net(4), {}, {})
    monkeypatch.undo()
    assert names(folder)[-1] == Cursor(0, 3).folder
    folder.save(Cursor(0, 5), net(5), {}, {})
    assert not list(tmp_path.glob(".writing-*"))


def test_the_same_moment_saved_again_replaces_it(tmp_path: Path) -> None:
    folder = filled(tmp_path)
    folder.save(Cursor(0, 3), net(30), {"epoch": 30}, {})
    found = folder.load(Cursor(0, 3))
    assert found.state["epoch"] == 30
    assert found.model["2.bias"].tolist() == [30.0, 30.0]


def test_what_a_dead_writer_left_is_swept(tmp_path: Path) -> None:
    folder = filled(tmp_path, 1)
    (tmp_path / ".writing-1234").mkdir()
    (tmp_path / ".writing-1234" / "state.pt").write_bytes(b"x" * 100)
    folder.save(Cursor(0, 2), net(), {}, {})
    assert not list(tmp_path.glob(".writing-*"))


def test_the_newest_two_are_kept_and_every_so_many_and_the_ends_of_stages(tmp_path: Path) -> None:
    assert names(filled(tmp_path / "a", 6)) == [Cursor(0, 5).folder, Cursor(0, 6).folder]
    kept = [cursor.epoch for cursor in filled(tmp_path / "b", 10, keep_every=4).cursors()]
    assert kept == [1, 4, 8, 9, 10]
    staged = CheckpointFolder(tmp_path / "c")
    for stage, epoch, batch in ((0, 1, 0), (0, 2, 0), (0, 3, 0), (1, 0, 2), (1, 1, 0), (1, 2, 0), (2, 1, 0), (2, 2, 0)):
        staged.save(Cursor(stage, epoch, batch), net(), {}, {})
    assert staged.cursors() == [Cursor(0, 3), Cursor(1, 2), Cursor(2, 1), Cursor(2, 2)]


def test_stray_things_in_the_folder_are_no_checkpoints(tmp_path: Path) -> None:
    folder = filled(tmp_path, 1)
    (tmp_path / "notes.txt").write_text("mine")
    for stray in ("s0-e1", "s0-e1-bx", "old", "x0-e1-b1"):
        (tmp_path / stray).mkdir()
    assert names(folder) == [Cursor(0, 1).folder]


@pytest.mark.parametrize("kind", ["state", "weights"])
def test_two_hundred_random_damages_give_one_line_or_the_truth(tmp_path: Path, kind: str) -> None:
    generator = random.Random(0)
    good = tmp_path / "good"
    if kind == "state":
        torch.save({"a": torch.arange(5), "b": {"c": [1, 2.5, None]}}, good)
        read: Any = read_state
    else:
        save_weights(good, {"a": torch.arange(5), "b": torch.ones(2, 2)})
        read = load_weights
    data, bad, refused = good.read_bytes(), tmp_path / "bad", 0
    for number in range(200):
        mangled = bytearray(data[: generator.randrange(len(data))] if number % 2 else data)
        if number % 2 == 0:
            for _ in range(generator.randrange(1, 6)):
                mangled[generator.randrange(len(mangled))] = generator.randrange(256)
        bad.write_bytes(bytes(mangled))
        try:
            read(bad)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
            assert str(bad) in str(error)
    assert refused >= 100  # every truncation


WRITER = """
import sys
from pathlib import Path
import torch
from saddlescape.training.checkpoint import CheckpointFolder, Cursor
folder = CheckpointFolder(Path(sys.argv[1]))
model = torch.nn.Linear(100, 100)
for epoch in range(100000):
    torch.nn.init.constant_(model.weight, epoch)
    folder.save(Cursor(0, epoch), model, {"epoch": epoch, "weight": model.weight.detach().clone()}, {"epoch_": epoch})
    print(epoch, flush=True)
"""


def test_a_process_killed_while_it_saves_in_a_loop_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    generator = random.Random(2)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "c")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 3:
            pass
        time.sleep(generator.uniform(0.0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        told = [int(line) for line in process.stdout.read().split()]
    found = CheckpointFolder(tmp_path / "c").newest()
    assert found is not None
    assert found.cursor.epoch >= max(told, default=3)
    assert found.state["epoch"] == found.meta["epoch_"] == found.cursor.epoch
    assert bool((found.model["weight"] == found.cursor.epoch).all())
