"""``saddlescape train``, from the words on the command line to the files in the run folder."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from support import result_of

SMALL = ("--model", "smallcnn", "--image-size", "16", "--device", "cpu")


def config(run: Path) -> dict[str, Any]:
    return tomllib.loads((run / "config.toml").read_text())


def test_the_same_command_again_says_that_it_is_finished(cli, digits_run, untouched):
    untouched(digits_run)
    again = cli("train", "digits", "--epochs", 2, "--out", digits_run, "--device", "cpu")
    assert again.code == 0
    assert f"{digits_run} is finished" in again.err
    assert f"accuracy {result_of(digits_run)['accuracy']:.1f} " in again.out


def test_it_reports_on_one_line_of_stdout(cli):
    outcome = cli("train", "digits", "--method", "ce", "--epochs", 1, "--out", "run [1]", "--device", "cpu")
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) == 1
    # Square brackets are rich's markup; a folder's name is not.
    assert outcome.out.rstrip().endswith("-> run [1]/result.json")


def test_one_command_trains_draws_the_page_and_exports(cli, photos, monkeypatch):
    flags = ("train", photos, *SMALL, "--epochs", 1, "--out", "run", "--report", "--export")
    outcome = cli(*flags)
    assert outcome.code == 0, outcome.err
    assert Path("run/model.pt2").stat().st_size and "<html" in Path("run/report.html").read_text()[:500]
    assert "recall" in outcome.out and outcome.out.index("report.html") < outcome.out.index("model.pt2")
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    early = cli(*flags[:-3], "other", *flags[-2:])
    assert early.code == 2 and "the report needs the package 'plotly'" in early.err
    assert not Path("other").exists()


def test_without_out_the_folder_is_named_after_the_run(cli):
    outcome = cli("train", "digits", "--method", "CE+DRW", "--epochs", 1, "--seed", 3, "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert config(Path("runs/digits-ce+drw-seed3"))["seed"] == 3


def test_a_folder_of_images(photo_run, photos):
    found = result_of(photo_run)
    assert found["classes"] == ["cat", "dog", "owl"]
    assert found["class_counts"] == [12, 7, 4]
    assert config(photo_run)["data"]["name"] == str(photos)
    assert found["skipped_images"] == 0


def test_numbers_for_own_images_come_with_reasons(cli, photos):
    outcome = cli("train", photos, "--image-size", 16, "--epochs", 1, "--out", "run", "--dry-run")
    assert outcome.code == 0, outcome.err
    for reason in ("method plda: imbalance 3", "model smallcnn: images are 16 x 16", "batch 16"):
        assert reason in outcome.err
    assert not Path("run").exists()
    assert outcome.err.startswith("method plda: ")
    assert tomllib.loads(outcome.out)["method"] == "plda"


def test_flags_end_up_in_the_configuration(cli):
    outcome = cli(
        "train", "digits", "--method", "ldam+drw+sam", "--epochs", 10, "--rho", 0.3, "--lr", 0.02, "--weight-decay",
        1e-3, "--batch-size", 64, "--augment", "none", "--imbalance", 10, "--profile", "step", "--val", 0.2, "--seed",
        7, "--draw-seed", 5, "--eval-every", 2, "--keep-every", 5, "--device", "cpu", "--precision", "float32",
        "--no-compile", "--set", "train.momentum=0.8", "train.loss_options.max_margin=0.25", "--dry-run",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    wanted = tomllib.loads(outcome.out)
    stage = wanted["stages"][0]
    assert stage["rho"] == [0.3]
    assert (stage["lr"], stage["weight_decay"], stage["batch_size"]) == (0.02, 1e-3, 64)
    assert (stage["augment"], stage["momentum"], stage["epochs"]) == ("none", 0.8, 10)
    assert stage["loss_options"] == {"max_margin": 0.25, "scale": 30.0}
    assert (wanted["seed"], wanted["eval_every"], wanted["keep_every"]) == (7, 2, 5)
    data = wanted["data"]
    assert (data["imbalance"], data["profile"], data["val"], data["draw_seed"]) == (10.0, "step", 0.2, 5)


def test_a_recipe_gives_the_same_run_bit_for_bit(cli, digits_run):
    outcome = cli("train", "digits", "--recipe", digits_run / "config.toml", "--out", "again")
    assert outcome.code == 0, outcome.err
    assert config(Path("again")) == config(digits_run)
    weights = "checkpoint/s0-e00002-b000000/model.safetensors"
    assert Path("again", weights).read_bytes() == (digits_run / weights).read_bytes()


def test_a_recipe_takes_another_seed_even_zero(cli, digits_run):
    text = (digits_run / "config.toml").read_text()
    Path("edited.toml").write_text(text.replace("seed = 0\n", "seed = 4\n", 1))
    assert tomllib.loads(Path("edited.toml").read_text())["seed"] == 4
    for flags, seed in (((), 4), (("--seed", 0), 0), (("--seed", 6), 6)):
        outcome = cli("train", "digits", "--recipe", "edited.toml", *flags, "--dry-run")
        assert tomllib.loads(outcome.out)["seed"] == seed


def test_loggers_on_request_write_into_the_run_and_are_closed(cli, monkeypatch):
    pytest.importorskip("mlflow")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    outcome = cli("train", "digits", "--method=ce", "--epochs", 1, "--out", "run", "--log", "mlflow", "--tensorboard")
    assert outcome.code == 0 and "use --log tensorboard" in outcome.err
    assert list(Path("run/tensorboard").glob("events*"))
    status = [path for path in Path("run/mlflow/mlruns").rglob("meta.yaml") if "end_time: null" in path.read_text()]
    assert Path("run/mlflow/run_id").is_file() and not status


def test_stages_are_named_and_a_changed_method_says_so(cli):
    outcome = cli("train", "digits", "--method", "crt", "--epochs", 2, "--set", "train.sampler=class-aware",
                  "--set", "train.reweight=drw", "--set", "classifier.epochs=3", "--out", "run")  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "crt (changed: " in outcome.err and "sampler class-aware (instance-balanced)" in outcome.err
    assert "warning: stage 'train' corrects" in outcome.err
    assert "class weights (reweight drw) and the sampler class-aware" in outcome.err
    assert "crt, stage train epoch 2/2" in outcome.err and "crt, stage classifier epoch 3/3" in outcome.err
    best = result_of(Path("run"))["best_epoch"]
    assert 1 <= best <= 3
    assert f"(epoch {best} of 3 of the last stage)" in outcome.out
