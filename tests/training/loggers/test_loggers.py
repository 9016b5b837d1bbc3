"""Weights & Biases and MLflow as watchers: read back from the real packages offline, and held to a stand-in."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
import torch

from saddlescape.curvature import FunctionOperator, Spectrum, spectrum_of
from saddlescape.errors import InputError, MissingExtraError
from saddlescape.training.loggers.mlflow import MLflow
from saddlescape.training.loggers.wandb import WeightsAndBiases

NO_PARTS = cast(Any, None)
ROW = {
    "stage": 0,
    "name": "first",
    "epoch": 2,
    "lr": 0.125,
    "rho": None,
    "test": {"accuracy": 70.0, "tail": None, "per_class": [1.0, 2.0], "mid": 5},
}
NUMBERS = {"stage": 0.0, "lr": 0.125, "test/accuracy": 70.0, "test/mid": 5.0}


def installed(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"the package {package} (an extra) is not installed"
    )


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Set and then deleted, so that what a logger itself sets is taken back after the test.
    for name in (
        "WANDB_PROJECT", "WANDB_NAME", "WANDB_DIR", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME",
        "MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY",
    ):  # fmt: skip
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)  # a logger that writes beside its folder is seen


@installed("mlflow")
def test_mlflow_is_read_back_and_goes_on_in_the_same_run(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    folder = tmp_path / "ce-sam" / "mlflow"
    for epoch in (2, 3):  # the second is a training taken up again
        watcher = MLflow(folder)
        watcher.on_epoch(NO_PARTS, {**ROW, "epoch": epoch, "lr": epoch / 8})
        watcher.close()
    assert [path.name for path in tmp_path.iterdir()] == ["ce-sam"]
    client = MlflowClient(tracking_uri=(folder / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("saddlescape")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("ce-sam", "FINISHED")
    assert run.data.metrics == {**NUMBERS, "lr": 0.375}
    history = client.get_metric_history(run.info.run_id, "lr")
    assert sorted((m.step, m.value) for m in history) == [(3, 0.25), (4, 0.375)]


@installed("mlflow")
def test_mlflow_follows_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "elsewhere").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    watcher = MLflow(tmp_path / "run" / "mlflow")
    watcher.on_epoch(NO_PARTS, ROW)
    watcher.close()
    assert (tmp_path / "elsewhere").is_dir()
    assert not (tmp_path / "run" / "mlflow" / "mlruns").exists()
    assert watcher.client.get_experiment_by_name("mine") is not None


def eventually(holds: Callable[[], bool], seconds: float = 30) -> bool:
    """wandb's own process may write the end of its file after the run is said to be finished, on a busy machine."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.1)
    return holds()


CURVED = [
    {"label": 8, "class": "a/<b>", "lambda_min": -1.5, "lambda_max": 3.0, "nonconvexity": 0.5},
    {"group": "tail", "lambda_min": -2.5, "lambda_max": None, "nonconvexity": float("inf")},
]


@pytest.fixture(scope="module")
def spectra() -> dict[str, list[Spectrum]]:
    """The Hessian diag(-1, 2, 4) of a quadratic, with three steps of Lanczos: its eigenvalues themselves."""
    diagonal = torch.tensor([-1.0, 2.0, 4.0], dtype=torch.float64)
    curved = FunctionOperator(lambda v: diagonal * v, 3, diagonal)
    return {"tail": [spectrum_of(curved, lanczos_steps=3, trace_probes=0, refine=0)]}


@installed("mlflow")
def test_mlflow_takes_curvature_under_names_that_it_allows(tmp_path: Path, spectra: dict[str, list[Spectrum]]) -> None:
    from mlflow.tracking import MlflowClient

    watcher = MLflow(tmp_path / "run" / "mlflow")
    watcher.on_curvature(3, CURVED, spectra)
    watcher.close()
    client = MlflowClient(tracking_uri=(tmp_path / "run" / "mlflow" / "mlruns").as_uri())
    assert client.get_run(watcher.run_id).data.metrics == {
        "lambda_min/class 8 a__b_": -1.5, "lambda_max/class 8 a__b_": 3.0, "lambda_ratio/class 8 a__b_": 0.5,
        "lambda_min/tail": -2.5,
    }  # fmt: skip


@installed("wandb")
@pytest.mark.slow
def test_wandb_takes_curvature_with_histograms(tmp_path: Path, spectra: dict[str, list[Spectrum]]) -> None:
    watcher = WeightsAndBiases(tmp_path / "run" / "wandb")
    sent: dict[str, Any] = {}
    log = watcher.run.log
    watcher.run.log = lambda row: (sent.update(row), log(row))
    watcher.on_curvature(3, CURVED, spectra)
    watcher.close()
    assert (sent["epoch"], sent["lambda_min/class 8 a_<b>"], sent["lambda_min/tail"]) == (3, -1.5, -2.5)
    shown = sent["eigenvalues/tail"]
    bars = {round(shown.bins[i], 6): count for i, count in enumerate(shown.histogram) if count > 1e-9}
    assert sum(bars.values()) == pytest.approx(3)
    assert [count for left, count in bars.items() if left < 0] == [pytest.approx(1)]
    (written,) = (tmp_path / "run" / "wandb").glob("wandb/offline-run-*/*.wandb")
    assert eventually(lambda: b"eigenvalues/tail" in written.read_bytes())


@installed("wandb")
def test_wandb_offline_writes_below_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "ce-sam" / "wandb"
    watcher = WeightsAndBiases(folder)
    watcher.on_epoch(NO_PARTS, ROW)
    kept = {name: value for name, value in dict(watcher.run.summary).items() if not name.startswith("_")}
    assert kept == {"epoch": 3, **NUMBERS}
    assert (watcher.run.project, watcher.run.name) == ("saddlescape", "ce-sam")
    watcher.close()
    (written,) = folder.glob("wandb/offline-run-*/*.wandb")
    assert eventually(lambda: b"test/accuracy" in written.read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == ["ce-sam"]


class FakeWandb(ModuleType):
    """What `WeightsAndBiases` asks of wandb, and what was asked."""

    class Error(Exception):
        pass

    def __init__(self, error: str | None = None) -> None:
        super().__init__("wandb")
        self.error, self.asked, self.rows, self.finished = error, cast(list[dict[str, Any]], []), cast(list[Any], []), 0

    def init(self, **asked: Any) -> SimpleNamespace:
        if self.error:
            raise self.Error(self.error)
        self.asked.append(asked)
        return SimpleNamespace(id=asked["id"] or "abc123", log=self.rows.append, finish=self.finish)

    def finish(self) -> None:
        self.finished += 1


def test_wandb_is_asked_for_the_same_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    folder = tmp_path / "ce-sam" / "wandb"
    for _ in range(2):
        watcher = WeightsAndBiases(folder)
        watcher.on_epoch(NO_PARTS, ROW)
        watcher.close()
    assert [asked["id"] for asked in fake.asked] == [None, "abc123"]
    assert all((a["project"], a["name"], a["dir"]) == ("saddlescape", "ce-sam", str(folder)) for a in fake.asked)
    assert "mode" not in fake.asked[0]  # whether anything leaves the machine is for wandb's own environment to say
    assert fake.rows == [{"epoch": 3, **NUMBERS}] * 2
    assert fake.finished == 2


def test_wandb_follows_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_NAME", "third try")
    WeightsAndBiases(tmp_path / "run" / "wandb")
    assert (fake.asked[0]["project"], fake.asked[0]["name"]) == ("mine", "third try")


def test_a_wandb_that_does_not_start_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb("no key\nconfigured"))
    with pytest.raises(InputError, match=r"^wandb does not start: no key configured; set WANDB_MODE=offline"):
        WeightsAndBiases(tmp_path / "run" / "wandb")


@pytest.mark.parametrize(
    ("logger", "module", "extra"),
    [(WeightsAndBiases, "wandb", "wandb"), (MLflow, "mlflow.tracking", "mlflow")],
)
def test_a_missing_package_is_said(
    logger: type, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"saddlescape\[{extra}\]"):
        logger(tmp_path)
    assert list(tmp_path.iterdir()) == []
