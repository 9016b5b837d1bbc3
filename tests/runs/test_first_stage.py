"""Going on from another run's first stage: the same bits as training it oneself, and one line for what cannot be."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saddlescape.data.types import Dataset
from saddlescape.errors import InputError
from saddlescape.records import files
from saddlescape.records.config import RunConfig
from saddlescape.runs import execute as module
from saddlescape.runs.config import load
from saddlescape.runs.execute import execute
from saddlescape.runs.first_stage import continue_from, first_stage_hash, same_first_stage
from saddlescape.runs.grid import run_folder, run_grid, shared_first_stages
from saddlescape.runs.request import Request
from saddlescape.training import loop
from saddlescape.training.checkpoint import Cursor
from support import assert_same_end, rows_of

Planned = Callable[..., tuple[RunConfig, Dataset, list[str]]]


@pytest.fixture(scope="module")
def runs(planned: Planned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with finished runs: ce, crt, dro-lt, each of which trained all its stages itself. Only to be read."""
    folder = tmp_path_factory.mktemp("sources")
    for method in ("ce", "crt", "dro-lt"):
        config, dataset, _ = planned(method=method)
        execute(config, dataset, folder / method)
    return folder


def onwards(planned: Planned, method: str, source: Path, folder: Path, **fields: Any) -> tuple[RunConfig, Dataset]:
    config, dataset, _ = planned(method=method, **fields)
    return continue_from(config, source, folder)[0], dataset


@pytest.mark.parametrize("source", ["ce", "crt", "dro-lt"])
@pytest.mark.parametrize("method", ["crt", "dro-lt"])
def test_from_another_run_gives_the_bits_of_one_that_trains_its_own(
    planned: Planned, runs: Path, tmp_path: Path, method: str, source: str
) -> None:
    """The first stage of dro-lt has another weight decay than that of crt: its bits differ, and that is told."""
    config, dataset, _ = planned(method=method)
    config, remarks = continue_from(config, runs / source, tmp_path / "run")
    said: list[str] = []
    result = execute(config, dataset, tmp_path / "run", say=said.append)
    assert result["first_stage"] == first_stage_hash(runs / source)
    assert rows_of(tmp_path / "run", 0) == []
    assert any("first stage: that of" in line and result["first_stage"] in line for line in said)
    if (source == "dro-lt") != (method == "dro-lt"):
        assert ["weight_decay" in remark for remark in remarks] == [True]
        assert config.stages[0].weight_decay == load(runs / source).stages[0].weight_decay
        return
    assert remarks == []
    for stage in range(1, len(config.stages)):
        assert_same_end(tmp_path / "run", runs / method, stage)
    own = json.loads((runs / method / files.RESULT).read_text())
    assert own["first_stage"] == result["first_stage"]
    assert own["accuracy"] == result["accuracy"]


def test_the_source_is_not_needed_any_more_once_the_second_stage_has_begun(
    planned: Planned, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(runs / "ce", tmp_path / "ce")
    config, dataset = onwards(planned, "dro-lt", tmp_path / "ce", tmp_path / "run")
    whole, steps = loop.train_step, [0]

    def cut_short(*args: Any, **kw: Any) -> Any:
        steps[0] += 1
        if steps[0] == 5:
            raise RuntimeError("killed")
        return whole(*args, **kw)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", cut_short)
        with pytest.raises(RuntimeError, match="killed"):
            execute(config, dataset, tmp_path / "run")
    shutil.rmtree(tmp_path / "ce")
    execute(config, dataset, tmp_path / "run")
    config, dataset = onwards(planned, "dro-lt", runs / "ce", tmp_path / "again")
    execute(config, dataset, tmp_path / "again")
    for stage in (1, 2):
        assert_same_end(tmp_path / "run", tmp_path / "again", stage)


def test_a_chain_of_sources_and_a_grid_that_is_moved(planned: Planned, runs: Path, tmp_path: Path) -> None:
    """Folders are named from the run's own, so a grid can be moved as a whole."""
    shutil.copytree(runs / "ce", tmp_path / "grid" / "ce")
    config, dataset = onwards(planned, "crt", tmp_path / "grid" / "ce", tmp_path / "grid" / "crt")
    assert config.start == "../ce"
    execute(config, dataset, tmp_path / "grid" / "crt")
    (tmp_path / "grid").rename(tmp_path / "elsewhere")
    source = tmp_path / "elsewhere" / "crt"
    assert first_stage_hash(source) == first_stage_hash(runs / "ce")
    config, dataset = onwards(planned, "ncm", source, tmp_path / "ncm")
    result = execute(config, dataset, tmp_path / "ncm")
    assert result["first_stage"] == first_stage_hash(runs / "ce")


def refused(planned: Planned, source: Path, folder: Path, method: str = "crt", **fields: Any) -> str:
    with pytest.raises(InputError) as caught:
        config, dataset = onwards(planned, method, source, folder, **fields)
        execute(config, dataset, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_source_that_is_none(planned: Planned, runs: Path, tmp_path: Path) -> None:
    assert "is not a run folder" in refused(planned, tmp_path / "nothing", tmp_path / "run")
    assert "ce has one stage" in refused(planned, runs / "ce", tmp_path / "run", "ce")
    (tmp_path / "empty").mkdir()
    shutil.copy(runs / "ce" / files.CONFIG, tmp_path / "empty" / files.CONFIG)
    message = refused(planned, tmp_path / "empty", tmp_path / "run")
    assert "no checkpoint after the 2 epochs of its first stage" in message and "let it finish" in message
    assert "it trained smallcnn, this run is for resnet20: use --model" in refused(
        planned, runs / "ce", tmp_path / "run", model="resnet20"
    )
    assert not (tmp_path / "run").exists()


def test_a_source_that_stopped_in_its_first_stage(planned: Planned, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "ce", tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / files.CHECKPOINT / Cursor(0, 2).folder)
    assert "let it finish" in refused(planned, tmp_path / "half", tmp_path / "run")


def test_a_source_that_changed_after_planning(planned: Planned, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "ce", tmp_path / "ce")
    config, dataset = onwards(planned, "crt", tmp_path / "ce", tmp_path / "run")
    file = tmp_path / "ce" / files.CHECKPOINT / Cursor(0, 2).folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"the weights after its first stage are .*, this run was planned with") as e:
        execute(config, dataset, tmp_path / "run")
    assert "\n" not in str(e.value) and config.start_hash in str(e.value)
    # Planned anew, the hash fits the file, but the checkpoint's own checksum does not.
    assert "missing or damaged (its checksum differs)" in refused(planned, tmp_path / "ce", tmp_path / "new")


def test_a_run_that_was_begun_on_another_first_stage_is_kept(planned: Planned, runs: Path, tmp_path: Path) -> None:
    config, dataset = onwards(planned, "crt", runs / "ce", tmp_path / "run")
    execute(config, dataset, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / files.CHECKPOINT)
    (tmp_path / "run" / files.RESULT).unlink()
    other, dataset, _ = planned(method="crt", seed=0)
    other, _ = continue_from(other, runs / "dro-lt", tmp_path / "run")
    with pytest.raises(InputError, match=r"begun with other settings .*start_hash"):
        execute(other, dataset, tmp_path / "run")


def test_a_source_of_other_classes(planned: Planned, runs: Path, tmp_path: Path) -> None:
    config, dataset = onwards(planned, "crt", runs / "ce", tmp_path / "run")
    renamed = dataclasses.replace(dataset, classes=[f"class {name}" for name in dataset.classes])
    with pytest.raises(InputError, match="was trained on other classes than 'digits' has now") as caught:
        execute(config, renamed, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_source_that_may_have_seen_the_validation_images(planned: Planned, runs: Path, tmp_path: Path) -> None:
    assert "perhaps on those held out for validation" in refused(planned, runs / "ce", tmp_path / "run", val=0.2)
    said: list[str] = []
    config, dataset = onwards(planned, "ncm", runs / "ce", tmp_path / "other", draw_seed=3)
    execute(config, dataset, tmp_path / "other", say=said.append)
    assert any(line.startswith("warning: the first stage was trained on other images") for line in said)


# Sharing within a grid.


def test_what_is_shared(planned: Planned) -> None:
    methods = ["ce", "crt", "ldam", "ncm", "crt+ldam", "mislas", "mislas+sam", "ncm+sam", "crt+sam"]
    configs = [planned(method=method, seed=seed)[0] for method in methods for seed in (0, 1)]
    sources = shared_first_stages(configs)
    assert {key[0]: value[0] for key, value in sources.items()} == {
        "crt": "ce", "ncm": "ce", "crt+ldam": "ldam", "crt+sam": "ncm+sam",
    }  # fmt: skip
    assert all(key[1] == value[1] for key, value in sources.items())
    one, two = configs[0], configs[2]
    assert same_first_stage(one, two)
    for change in ({"seed": 5}, {"model": "resnet20"}, {"precision": "bf16"}, {"start_hash": "f" * 16}):
        assert not same_first_stage(one, dataclasses.replace(two, **change)), change  # type: ignore[arg-type]
    data = dataclasses.replace(two.data, imbalance=10.0)
    assert not same_first_stage(one, dataclasses.replace(two, data=data))
    assert same_first_stage(one, dataclasses.replace(two, eval_every=5))


def test_a_grid_trains_a_shared_first_stage_once(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    whole = module.fit

    def counted(parts: Any, **kw: Any) -> None:
        trained.append(type(parts.model.head).__name__)
        whole(parts, **kw)

    monkeypatch.setattr(module, "fit", counted)
    request = Request(data="digits", epochs=2, device="cpu", compile=False)
    results = run_grid(request, ["ce", "crt", "lws", "ncm"], [0], tmp_path / "grid")
    assert trained == ["Linear", "Linear", "ScaledHead"]  # the shared stage, and the classifiers of crt and lws
    stage_ones = {result["first_stage"] for result in results[1:]}
    assert stage_ones == {first_stage_hash(runs / "ce")}
    assert_same_end(run_folder(tmp_path / "grid", "crt", 0), runs / "crt", 1)
    trained.clear()
    again = run_grid(request, ["ce", "crt", "lws", "ncm"], [0], tmp_path / "grid")
    assert trained == [] and [r["accuracy"] for r in again] == [r["accuracy"] for r in results]


def test_a_source_named_for_a_folder_behind_a_link(planned: Planned, runs: Path, tmp_path: Path) -> None:
    """".." leads out of the folder itself, not of the link through which it was named."""
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "deep")
    config, dataset = onwards(planned, "crt", runs / "ce", tmp_path / "link" / "crt")
    execute(config, dataset, tmp_path / "link" / "crt")
