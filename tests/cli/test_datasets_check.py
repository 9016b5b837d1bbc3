"""``datasets check`` on a set in the layout of ImageNet-LT, and the tool that makes such sets."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from saddlescape.data import load

TOOL = Path(__file__).resolve().parents[2] / "tools" / "make_longtail_set.py"
SMALL = ("--size", "40", "30", "--workers", "1")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_longtail_set", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_longtail_set"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def made(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(
        "SADDLESCAPE_DATA", str(tmp_path / "nothing")
    )  # the digits, so that every machine makes the same
    argv = ("imagenet-lt", str(tmp_path / "made"), "--classes", "12", "--scale", "0.01", "--test-per-class", "2")
    assert tool.main([*argv, *SMALL]) == 0
    return tmp_path / "made"


def test_a_made_set_is_ready_to_train(cli, made):
    outcome = cli("datasets", "check", "imagenet-lt", "--root", made, "--json", "report.json")
    assert outcome.code == 0, outcome.err
    total = sum(load("imagenet-lt", root=made).class_counts)
    last = outcome.out.rstrip().splitlines()[-1]
    assert last == f"imagenet-lt: {total} + 24 images of 12 classes: ready to train"
    report = json.loads(Path("report.json").read_text())
    assert report["ok"] is True and report["summary"] == last and report["unreadable"] == []
    assert sum(report["counts"]["test"]) == 24


def test_what_is_wrong_is_listed_and_the_exit_code_is_2(cli, made):
    files = sorted((made / "train").rglob("*.JPEG"))
    files[0].write_bytes(files[0].read_bytes()[:-100])
    files[1].unlink()
    test_file = sorted((made / "val").rglob("*.JPEG"))[0]
    test_file.write_bytes(files[2].read_bytes())
    outcome = cli("datasets", "check", "imagenet-lt", "--root", made, "--workers", 1, "--json", "report.json")
    assert "2 files cannot be read" in outcome.complaint and "--bad-images skip" in outcome.complaint
    assert files[0].name in outcome.out and "truncated" in outcome.out
    assert f"no file {files[1]}" in outcome.out
    assert "the same image in training and elsewhere (1):" in outcome.out
    report = json.loads(Path("report.json").read_text())
    assert len(report["unreadable"]) == 2 and len(report["leaks"]) == 1 and report["ok"] is False


def test_counts_of_a_whole_copy_are_held_against_the_published_ones(cli, tmp_path):
    lines = []
    for label in range(1000):
        path = tmp_path / f"train/n{label:08d}/x.JPEG"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (2, 2), (label % 256, label // 256, 0)).save(path, "PNG")
        lines.append(f"train/n{label:08d}/x.JPEG {label}\n")
    for split in ("train", "test"):
        (tmp_path / f"ImageNet_LT_{split}.txt").write_text("".join(lines))
    outcome = cli("datasets", "check", "imagenet-lt", "--root", tmp_path, "--workers", 1)
    assert "counts are not the published ones" in outcome.complaint and "skip" not in outcome.complaint
    assert "1,000 training images, published are 115,846" in outcome.out
    assert "1,000 classes do not have the published 50 test images" in outcome.out


def test_a_missing_set_says_where_it_should_be(cli, tmp_path):
    complaint = cli("datasets", "check", "inat2018", "--root", tmp_path).complaint
    assert "no iNaturalist18_train.txt" in complaint and "train_val2018" in complaint


# The tool.


@pytest.mark.parametrize("name", ["imagenet-lt", "inat2018"])
def test_the_profile_has_the_published_total_and_ends(tool: ModuleType, name: str) -> None:
    kind = tool.KINDS[name]
    counts = tool.profile(kind, kind.classes, 1.0)
    assert counts == sorted(counts, reverse=True) and len(counts) == kind.classes
    assert abs(sum(counts) / kind.total - 1) < 0.001
    assert (counts[0], counts[-1]) == ((1280, 5) if name == "imagenet-lt" else (1000, 2))
    small = tool.profile(kind, 50, 0.1)
    assert small[0] == round(0.1 * counts[0]) and small[-1] == 1


def test_the_same_arguments_make_the_same_files(tool, made, tmp_path):
    again = tmp_path / "again"
    argv = ("imagenet-lt", str(again), "--classes", "12", "--scale", "0.01", "--test-per-class", "2")
    tool.main([*argv, *SMALL[:-1], "2"])  # two processes
    files = [path.relative_to(made) for path in sorted(made.rglob("*")) if path.is_file()]
    assert files == [path.relative_to(again) for path in sorted(again.rglob("*")) if path.is_file()]
    assert all((made / file).read_bytes() == (again / file).read_bytes() for file in files)
    other = tmp_path / "other"
    tool.main([*argv[:1], str(other), *argv[2:], *SMALL, "--seed", "1"])
    assert (other / "ImageNet_LT_train.txt").read_text() != (made / "ImageNet_LT_train.txt").read_text()


def test_the_inaturalist_shape(tool, tmp_path, monkeypatch):
    monkeypatch.setenv("SADDLESCAPE_DATA", str(tmp_path / "nothing"))
    root = tmp_path / "inat"
    tool.main(["inat2018", str(root), "--classes", "9", "--scale", "0.01", *SMALL])
    dataset = load("inat2018", root=root)
    assert len(dataset.test) == 27 and dataset.class_counts[0] == 10
    assert any(name.startswith("Plantae/") for name in dataset.classes)
    with pytest.raises(SystemExit):
        tool.main(["inat2018", str(root), "--classes", "9", *SMALL])  # holds a set already
    with pytest.raises(SystemExit):
        tool.main(["inat2018", str(tmp_path / "x"), "--classes", "1"])


@pytest.mark.parametrize("fault", ["leak", "contradiction"])
def test_leaks_and_contradictions_in_own_images_are_not_ready(cli, make_folder, fault):
    make_folder(Path("mine/train"), cat=4, dog=4)
    make_folder(Path("mine/test"), cat=2, dog=2)
    source = Path("mine/train/cat/train-cat-0.png").read_bytes()
    Path("mine/test/cat/copy.png" if fault == "leak" else "mine/train/dog/copy.png").write_bytes(source)
    words = {"leak": "1 image is in training and elsewhere", "contradiction": "1 image has different labels"}
    outcome = cli("datasets", "check", "mine")
    assert words[fault] in outcome.complaint and "ready to train" not in outcome.out
    assert outcome.out.rstrip().endswith(f"1 there more than once: not ready, {words[fault]}")


def test_leaks_of_a_published_set_are_its_own(cli, tmp_path, monkeypatch):
    import torch

    from saddlescape.data.sources import registry
    from saddlescape.data.sources.found import Found
    from saddlescape.data.types import ArraySplit, Preprocess

    both = ArraySplit(torch.zeros((2, 3, 8, 8), dtype=torch.uint8), torch.arange(2), ["x", "y"])
    found = Found(
        name="digits", kind="made", classes=["0", "1"], train=both, test=both, preprocess=Preprocess(image_size=8)
    )
    monkeypatch.setattr(registry, "_loader", lambda name: lambda request: found)
    outcome = cli("datasets", "check", "digits")
    assert outcome.code == 0
    assert outcome.out.rstrip().endswith("1 in training and elsewhere, 1 with different labels: ready to train")


def test_one_file_is_not_one_files(cli, make_folder):
    root = make_folder(Path("mine"), cat=4, dog=4)
    (root / "cat" / "x.png").write_bytes(b"")
    (root / "cat" / "x.txt").write_bytes(b"")
    outcome = cli("datasets", "check", root)
    assert "1 file cannot be read" in outcome.complaint and "1 stray file ignored" in outcome.out
    outcome = cli("train", root, "--bad-images", "skip", "--epochs", 1, "--device", "cpu", "--out", "run")
    assert "1 image cannot be read and was skipped" in " ".join(outcome.err.split())
