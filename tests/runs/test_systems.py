"""Every named system on the digits: it runs, what is frozen stays frozen, and stopped at any step it ends the same."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from saddlescape.methods.systems import SYSTEMS
from saddlescape.records import files
from saddlescape.records.config import RunConfig
from saddlescape.report import table as tables
from saddlescape.runs import execute as module
from saddlescape.runs.config import load
from saddlescape.runs.execute import execute
from saddlescape.runs.opened import open_run
from saddlescape.training.checkpoint import CheckpointFolder, Cursor
from saddlescape.training.loop import Interrupted
from support import result_of, rows_of, timeless

OWN_OPTIMIZER = ("cc-sam",)  # nothing can be added to it
METHODS = [*SYSTEMS, *(f"{name}+sam" for name in SYSTEMS if name not in OWN_OPTIMIZER)]
# Three steps in each of two epochs of the first stage, so that our recipe's SAM has begun in the second. A part of the
# training images is held out, so that tau has something to be chosen on.
REQUEST = {"epochs": 2, "val": 0.1, "imbalance": 20.0, "settings": ("train.batch_size=128",)}

Run = Callable[[str], Path]


@pytest.fixture(scope="module")
def run_of(planned: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The folder of a run of a system that was never stopped; each is trained once."""
    folders: dict[str, Path] = {}

    def run(method: str) -> Path:
        if method not in folders:
            folders[method] = tmp_path_factory.mktemp("whole") / "run"
            config, dataset, _ = planned(method=method, **REQUEST)
            execute(config, dataset, folders[method])
        return folders[method]

    return run


def end_of(folder: Path, stage: int) -> Any:
    epochs = load(folder).stages[stage].epochs
    return CheckpointFolder(folder / files.CHECKPOINT).load(Cursor(stage, epochs))


def is_head(name: str) -> bool:
    return name.startswith("linear.")


def is_statistic(name: str) -> bool:
    return "running_" in name or "num_batches" in name


@pytest.mark.parametrize("method", METHODS)
def test_a_system_runs_to_its_result(run_of: Run, method: str) -> None:
    folder = run_of(method)
    config, result = load(folder), json.loads((folder / files.RESULT).read_text())
    assert result["method"] == method == config.method
    assert [row["stage"] for row in rows_of(folder)] == [
        number for number, stage in enumerate(config.stages) for _ in range(stage.epochs)
    ]
    assert result["accuracy"] == rows_of(folder)[-1]["test"]["accuracy"]
    assert 0 <= result["accuracy"] <= 100
    assert 0 <= result["ece"] <= 100
    assert ("first_stage" in result) == (len(config.stages) > 1)
    assert any(stage.optimizer == "sam" for stage in config.stages) == method.endswith("+sam")
    # The network that is handed on gives the scores that were written.
    images = torch.randn(4, 1, 8, 8)
    assert open_run(folder).model(images).shape == (4, 10)
    (row,) = tables.build([result | {"settings": []}], config.stages[0].epochs)["rows"]
    assert row["method"] == method
    assert row["last"]["acc"]["mean"] == pytest.approx(result["accuracy"])


def trained(stage: int, config: RunConfig) -> bool:
    return not config.stages[stage].head_fit


QUICK = ("crt", "glmc")


@pytest.mark.parametrize("method", [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in (*SYSTEMS, "glmc+sam", "proco+sam")
])  # fmt: skip
def test_stopped_after_every_step_it_ends_the_same(
    run_of: Run, planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Bit for bit: weights, optimiser, objective, random state, metrics, result. Also in the middle of every stage."""
    config, dataset, _ = planned(method=method, **REQUEST)

    @contextlib.contextmanager
    def stop_at_once(echo: float = 0.0) -> Iterator[Callable[[], bool]]:
        yield lambda: True

    stopped: set[Cursor] = set()
    with monkeypatch.context() as patch:
        patch.setattr(module, "stop_on_signal", stop_at_once)
        for _ in range(60):
            try:
                result = execute(config, dataset, tmp_path / "run")
                break
            except Interrupted:
                stopped.add(CheckpointFolder(tmp_path / "run" / files.CHECKPOINT).cursors()[-1])
    middles = {cursor.stage for cursor in stopped if cursor.batch}
    assert middles == {number for number in range(len(config.stages)) if trained(number, config)}
    whole = run_of(method)
    one, two = (CheckpointFolder(folder / files.CHECKPOINT).newest() for folder in (whole, tmp_path / "run"))
    assert one is not None and two is not None and one.cursor == two.cursor
    assert one.model.keys() == two.model.keys()
    for name, tensor in one.model.items():
        assert torch.equal(tensor, two.model[name]), name
    assert same(one.state, two.state)
    assert rows_of(whole) == rows_of(tmp_path / "run")
    assert timeless(result_of(whole)) == json.loads(json.dumps(timeless(result)))


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


CLASSIFIER_ONLY = ("crt", "lws", "tau-norm", "ncm", "plda", "ours", "mislas", "disalign", "cc-sam", "crt+sam")


@pytest.mark.parametrize("method", CLASSIFIER_ONLY)
def test_a_frozen_backbone_is_bit_equal_after_the_second_stage(run_of: Run, method: str) -> None:
    folder = run_of(method)
    stage = load(folder).stages[1]
    before, after = end_of(folder, 0).model, end_of(folder, 1).model
    backbone = [name for name in before if not is_head(name)]
    assert any(is_statistic(name) for name in backbone)
    for name in backbone:
        if is_statistic(name) and stage.backbone_mode == "train":  # the published loops let them drift
            assert not torch.equal(before[name], after[name]), name
        else:
            assert torch.equal(before[name], after[name]), name
    assert not same({k: v for k, v in before.items() if is_head(k)}, {k: v for k, v in after.items() if is_head(k)})


@pytest.mark.parametrize(("method", "still"), [("lws", "linear.linear."), ("disalign", "linear.linear.")])
def test_what_a_classifier_stage_does_not_name_stays(run_of: Run, method: str, still: str) -> None:
    before, after = end_of(run_of(method), 0).model, end_of(run_of(method), 1).model
    for name in ("weight", "bias"):
        assert torch.equal(before[f"linear.{name}"], after[f"{still}{name}"])
    moved = {"lws": ["scale"], "disalign": ["alpha", "beta"]}[method]
    for name in moved:
        assert after[f"linear.{name}"].std() > 0


def test_mislas_trains_classifier_and_scale_at_their_own_rates(run_of: Run) -> None:
    before, after = end_of(run_of("mislas"), 0), end_of(run_of("mislas"), 1)
    assert not torch.equal(before.model["linear.weight"], after.model["linear.linear.weight"])
    assert after.model["linear.scale"].std() > 0
    rates = sorted(group["lr"] for group in after.state["optimizer"]["param_groups"])
    assert rates[0] == pytest.approx(0.5 * rates[1])


def test_crt_starts_from_a_fresh_classifier(run_of: Run) -> None:
    """One epoch from scratch: nearer to where a fresh layer starts than to what the first stage had."""
    before, after = end_of(run_of("crt"), 0).model["linear.weight"], end_of(run_of("crt"), 1).model["linear.weight"]
    alike = torch.nn.functional.cosine_similarity(before.flatten(), after.flatten(), dim=0)
    assert abs(alike) < 0.5


def test_dro_lt_trains_the_backbone_then_the_classifier(run_of: Run) -> None:
    folder = run_of("dro-lt")
    first, second, third = (end_of(folder, number).model for number in range(3))
    for name in first:
        if is_head(name):
            assert torch.equal(first[name], second[name])
            assert not torch.equal(second[name], third[name])
        else:
            assert torch.equal(second[name], third[name]), name
            assert is_statistic(name) or not torch.equal(first[name], second[name]), name
    state = end_of(folder, 1).state["objective"]
    assert state["centroids"].abs().sum() > 0
    assert state["robust.eps"].std() > 0  # trained beside the network


def test_ours_climbs_from_the_first_epoch_on(run_of: Run) -> None:
    assert [row["rho"] for row in rows_of(run_of("ours"))] == [0.2, 0.2, None]


def test_tau_is_told_with_the_row(run_of: Run) -> None:
    fitted = rows_of(run_of("tau-norm"))[-1]["fitted"]
    assert fitted["chosen"] == "balanced accuracy on the validation split"
    assert 0 <= fitted["tau"] <= 2
    assert end_of(run_of("tau-norm"), 1).model["linear.tau"] == pytest.approx(fitted["tau"])
