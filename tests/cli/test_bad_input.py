"""Bad input: exit code 2, one line on stderr that says what is wrong and where, no traceback, nothing lost.

Numbers and words out of range, for every field: tests/runs/test_run_config.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

DIGITS = ("train", "digits", "--out", "run")
SMALL = ("--model", "smallcnn", "--image-size", "16", "--device", "cpu")


@pytest.mark.parametrize(
    ("tokens", "wanted"),
    [
        (("trian", "digits"), ("trian", "train")),
        (("train",), ("DATA",)),
        (("train", "digits", "cifar10"), ("cifar10",)),
        ((*DIGITS, "--epochz", "3"), ("--epochz", "--epochs")),
        ((*DIGITS, "--epochs", "x"), ("--epochs", "x")),
        ((*DIGITS, "--epochs", "1.5"), ("--epochs", "1.5")),
        ((*DIGITS, "--epochs", "1e20"), ("--epochs", "1e20")),
        ((*DIGITS, "--epochs"), ("--epochs",)),
        ((*DIGITS, "--epochs", "0"), ("--epochs 0",)),
        ((*DIGITS, "--epochs", "-3"), ("--epochs -3",)),
        ((*DIGITS, "--batch-size", "big"), ("--batch-size", "big")),
        ((*DIGITS, "--method", "ce", "--rho", "0.5"), ("--rho", "ce")),
        ((*DIGITS, "--imbalance", "0.5"), ("imbalance", "0.5")),
        ((*DIGITS, "--imbalance", "100000"), ("imbalance 100000", "without images")),
        ((*DIGITS, "--image-size", "0"), ("--image-size 0",)),
        ((*DIGITS, "--image-size", "16"), ("8 x 8", "16")),
        ((*DIGITS, "--augment", "crop-flop"), ("crop-flop", "crop-flip")),
        ((*DIGITS, "--precision", "half"), ("--precision half", "bf16")),
        ((*DIGITS, "--model", "resnet33"), ("resnet33", "resnet32")),
        ((*DIGITS, "--model", "timm/no-such-net"), ("no-such-net",)),
        ((*DIGITS, "--method", "cee"), ("'cee'", "did you mean 'ce'")),
        ((*DIGITS, "--method", "ce+ldam"), ("'ce'", "'ldam'", "loss")),
        ((*DIGITS, "--method", "sam"), ("names no loss", "ce+sam")),
        ((*DIGITS, "--method", "ce+"), ("unknown term ''",)),
        ((*DIGITS, "--set", "momentum"), ("--set momentum", "stage.field=value")),
        ((*DIGITS, "--set", "second.lr=1"), ("no stage 'second'", "train")),
        ((*DIGITS, "--set", "train.foo=1"), ("no field 'foo'", "momentum")),
        ((*DIGITS, "--set", "train.momentum=x"), ("'x' is not a float",)),
        ((*DIGITS, "--set", "train.nesterov=maybe"), ("'maybe' is not a bool",)),
        ((*DIGITS, "--set", "train.loss=cee"), ("cee",)),
        ((*DIGITS, "--set", "train.loss_options.foo=1"), ("foo",)),
        ((*DIGITS, "--set", "train.sampler=some"), ("some", "instance-balanced")),
        ((*DIGITS, "--set", "train.head=round"), ("round", "cosine")),
        ((*DIGITS, "--set", "train.optimizer=adamw"), ("adamw", "sam")),
        ((*DIGITS, "--set", "train.lr_schedule=up"), ("up", "cosine")),
        ((*DIGITS, "--set", "train.rho_schedule=up"), ("up", "constant")),
        ((*DIGITS, "--set", "train.rho_schedule=linear"), ("linear", "two numbers")),
        ((*DIGITS, "--set", "train.objective=guess"), ("guess", "classify")),
        ((*DIGITS, "--device", "tpu"), ("--device tpu",)),
        ((*DIGITS, "--device", "cuda:77"), ("--device cuda:77", "--device cpu")),
        (("train", "digitz"), ("'digitz'", "did you mean 'digits'")),
        (("train", "no/such/folder"), ("no/such/folder: no such file or folder",)),
        (("train", "cifar10", "--root", "nowhere"), ("cifar10 is not under nowhere", "--download")),
        (("train", "cifar100"), ("cifar100 is not under", "--download")),
        (("datasets", "check", "no/such/folder"), ("no/such/folder: no such file or folder",)),
        (("evaluate", "nowhere"), ("nowhere is not a run folder",)),
        (("export", "nowhere"), ("nowhere is not a run folder",)),
        (("predict", "nowhere", "x.png"), ("nowhere is not a run folder",)),
        (("reproduce", "cifar11-lt", "--out", "run"), ("'cifar11-lt'", "cifar10-lt")),
        (("reproduce", "digits-lt"), ("--out",)),
        (("reproduce", "digits-lt", "--out", "run", "--engine", "dask"), ("'dask'", "serial, processes, ray")),
        (("reproduce", "digits-lt", "--out", "run", "--jobs", "0"), ("--jobs 0", "at least 1")),
        (("reproduce", "digits-lt", "--out", "run", "--gpus-per-run", "0.5"), ("--gpus-per-run", "--engine ray")),
        (("reproduce", "digits-lt", "--out", "run", "--methods", ","), ("names no method",)),
        (("reproduce", "digits-lt", "--out", "run", "--methods", "ce,ce"), ("ce", "twice")),
        (("reproduce", "digits-lt", "--out", "run", "--seeds", "a"), ("--seeds", "a")),
        (("reproduce", "digits-lt", "--out", "run", "--methods", "ce+drw,cee", "--epochs", "1"), ("'cee'",)),
        (("reproduce", "digits-lt", "--out", "run", "--methods", "ce,ce+sam", "--rho", "-1"), ("rho", "-1")),
        (("reproduce", "digits-lt", "--out", "run", "--weight-decay", "nan"), ("weight_decay", "nan")),
        (("reproduce", "cifar10-lt", "--out", "run"), ("cifar10 is not under", "--download")),
        (("reproduce", "digits-lt", "--out", "run", "--seeds", "0", "1.5"), ("--seeds", "1.5")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_one_line_and_nothing_begun(cli, tokens, wanted):
    outcome = cli(*tokens)
    for piece in wanted:
        assert piece in outcome.complaint
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) == 1
    assert not Path("run").exists()
    assert not Path("runs").exists()


def test_a_demo_of_no_length(cli):
    assert "--epochs 0" in cli("demo", "--out", "run", "--epochs", 0).complaint
    assert not Path("run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device that must be absent is here")
@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_an_absent_cuda_device(cli, digits_run, name):
    for tokens in (("train", "digits", "--device", name), ("evaluate", digits_run, "--device", name)):
        assert f"--device {name}: this machine has 0 CUDA devices" in cli(*tokens).complaint
    assert not Path("runs").exists()


def test_debug_adds_the_traceback(cli):
    outcome = cli("train", "digits", "--method", "cee", debug=True)
    assert outcome.code == 2
    assert "Traceback (most recent call last)" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("saddlescape: method 'cee'")


def test_a_surprise_is_one_line_too(cli, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("saddlescape.runs.plan.plan", broken)
    outcome = cli("train", "digits")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("saddlescape: unexpected RuntimeError: first line; run again with --debug")
    with pytest.raises(RuntimeError, match="second line"):
        cli("train", "digits", debug=True)


# Output folders.


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/no-such/run"])
def test_a_folder_that_cannot_be_written(cli, place):
    Path("file").write_text("mine")
    complaint = cli("train", "digits", "--epochs", 1, "--out", place).complaint
    assert place in complaint
    assert "choose another --out" in complaint
    complaint = cli("reproduce", "digits-lt", "--methods", "ce", "--epochs", 1, "--out", place).complaint
    assert place in complaint
    assert Path("file").read_text() == "mine"


def test_scores_that_cannot_be_written(cli, photo_run):
    Path("file").write_text("mine")
    assert "cannot write file/scores.json" in cli("evaluate", photo_run, "--out", "file/scores.json").complaint
    assert "is a folder" in cli("evaluate", photo_run, "--out", ".").complaint


@pytest.mark.parametrize("out", ["model.bin", "model", "nowhere/model.pt2", "file/model.pt2"])
def test_export_to_a_place_that_cannot_be(cli, photo_run, out):
    Path("file").write_text("mine")
    assert out in cli("export", photo_run, "--out", out).complaint
    assert [path.name for path in Path().iterdir() if path.name != "cache"] == ["file"]


def test_export_with_two_formats_asked_for(cli, photo_run):
    assert "--onnx and --out" in cli("export", photo_run, "--onnx", "--out", "model.pt2").complaint


# Damaged or hostile files.


@pytest.fixture
def damaged_photos(make_folder) -> Path:
    root = make_folder(Path("damaged"), cat=8, dog=6)
    image = root / "cat" / "damaged-cat-3.png"
    image.write_bytes(image.read_bytes()[:300])
    (root / "dog" / "damaged-dog-1.png").write_bytes(b"")
    (root / "dog" / "damaged-dog-2.png").write_text("I am no image")
    return root


def test_damaged_images_are_skipped_on_request_and_counted(cli, damaged_photos):
    outcome = cli("train", damaged_photos, "--epochs", 1, "--out", "run", "--bad-images", "skip", *SMALL)
    assert outcome.code == 0, outcome.err
    assert "3 images cannot be read and were skipped" in outcome.err
    result = json.loads(Path("run/result.json").read_text())
    assert result["skipped_images"] == 3
    scored = cli("evaluate", "run", "--split", "train")
    assert f"(train, {sum(result['class_counts'])} images)" in scored.out


def test_a_damaged_image_to_predict(cli, photo_run, damaged_photos):
    for name in ("cat/damaged-cat-3.png", "dog/damaged-dog-1.png", "dog/damaged-dog-2.png", "none.png"):
        assert str(damaged_photos / name) in cli("predict", photo_run, damaged_photos / name).complaint
    assert "at least one image" in cli("predict", photo_run).complaint
    assert "--top 0" in cli("predict", photo_run, "x.png", "--top", 0).complaint


# Damaged runs.


@pytest.fixture
def copied_run(digits_run, tmp_path) -> Path:
    return Path(shutil.copytree(digits_run, tmp_path / "copy"))


USES = (("evaluate",), ("export",), ("predict", "image.png"))


def use(tokens: tuple[str, ...], run: Path) -> tuple[object, ...]:
    return (tokens[0], run, *tokens[1:])


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "meta.json"])
@pytest.mark.parametrize("all_of_them", [False, True])
def test_a_truncated_checkpoint(cli, copied_run, make_picture, name, all_of_them):
    """Never answered from other weights than the last epoch's without being asked to."""
    make_picture(Path("image.png"))
    saved = sorted((copied_run / "checkpoint").iterdir())
    for folder in saved if all_of_them else saved[-1:]:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for tokens in USES:
        assert str(saved[-1] / name) in cli(*use(tokens, copied_run)).complaint
    if not all_of_them:
        shutil.rmtree(saved[-1])
        assert cli("predict", copied_run, "image.png").code == 0


def test_a_run_without_checkpoint_or_configuration(cli, copied_run, make_picture):
    make_picture(Path("image.png"))
    (copied_run / "config.toml").write_text("version = 1\n")
    for tokens in USES:
        assert str(copied_run / "config.toml") in cli(*use(tokens, copied_run)).complaint
    shutil.rmtree(copied_run / "checkpoint")
    (copied_run / "config.toml").write_text((copied_run / "config.toml").read_text()[:20])
    assert "config.toml" in cli("evaluate", copied_run).complaint


# Recipes.


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ('method = "ce+drw+sam"', 'method = "ce+drw+sam"\ncolour = "red"', "unknown key 'colour'"),
        ('loss = "ce"', 'loss = "cee"', "cee"),
        ('model = "smallcnn"', 'model = "bigcnn"', "bigcnn"),
        ('device = "cpu"', 'device = "cuda:77"', "cuda:77"),
        ('name = "digits"', 'name = "cifar10"', "'cifar10'"),
        ("version = 1", "version = 99", "99"),
        ("seed = 0", "seed = ", "config"),
        ("eval_every = 1", "eval_every = 1\n[[stages]]\nname = 3", "config"),
    ],
)
def test_a_recipe_with_a_mistake(cli, digits_run, old, new, wanted):
    text = (digits_run / "config.toml").read_text()
    assert old in text
    Path("config-edited.toml").write_text(text.replace(old, new, 1))
    assert wanted in cli("train", "digits", "--recipe", "config-edited.toml", "--out", "run").complaint
    assert not Path("run").exists()


def test_a_recipe_that_is_not_there_or_no_text(cli, photos):
    complaint = cli("train", "digits", "--recipe", "none.toml").complaint
    assert "none.toml: No such file" in complaint and "give --recipe a run's config.toml" in complaint
    picture = next((photos / "test" / "cat").iterdir())
    assert str(picture) in cli("train", "digits", "--recipe", picture).complaint
    assert str(photos) in cli("train", "digits", "--recipe", photos).complaint


# Scoring.


def test_scoring_what_cannot_be_scored(cli, photo_run, make_folder):
    assert "--split val" in cli("evaluate", photo_run, "--split", "val").complaint
    assert "--split all" in cli("evaluate", photo_run, "--split", "all").complaint
    for tau in ("nan", "inf"):
        assert f"--post-hoc {tau}" in cli("evaluate", photo_run, "--post-hoc", tau).complaint
    make_folder(Path("other"), cat=3, yak=3)
    complaint = cli("evaluate", photo_run, "--data", "other").complaint
    assert "'yak'" in complaint
    assert "cat, dog, owl" in complaint
