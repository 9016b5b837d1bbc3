"""Which images a run was trained on and which it held out: by their content, wherever they lie, whatever is added."""

from __future__ import annotations

import json
import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from saddlescape.data import load
from saddlescape.records.files import CONFIG, METRICS, RESULT, read_rows
from saddlescape.runs.images import IMAGES
from support import result_of

SMALL = ("--method", "ce", "--model", "smallcnn", "--image-size", "16", "--device", "cpu")
SMALL = (*SMALL, "--epochs", "2", "--keep-every", "1")


def accuracy(text: str) -> tuple[int, float]:
    """(images, accuracy) of what ``evaluate`` prints."""
    found = re.search(r", (\d+) images\): accuracy ([\d.]+)", text)
    assert found is not None, text
    return int(found[1]), float(found[2])


@pytest.fixture
def photos(cli, make_folder) -> Path:
    """A folder without a split, and a run on it."""
    root = make_folder(Path("photos"), cat=10, dog=8, owl=7)
    outcome = cli("train", root, "--out", "run", *SMALL)
    assert outcome.code == 0, outcome.err
    return root


def recorded(split: str, name: str, run: Path = Path("run")) -> list[str]:
    """The files of a class in a split, as the run recorded them."""
    rows = [line.split(",") for line in (run / IMAGES).read_text().splitlines()[1:]]
    return [Path(row[1]).name for row in rows if row[0] == split and Path(row[1]).parent.name == name]


def grow(root: Path, make_picture) -> None:
    for name in ("cat", "dog", "owl"):
        make_picture(root / name / f"0-{name}.png", (90, 90, 90))


MEASURES = {
    "evaluate": (),
    "evaluate train": ("--split", "train"),
    "curvature": ("--classes", "tail", "--extremes-only"),
    "curvature --over-training": (),
    "curvature --advise-rho": (),
    "surface": ("--steps", "2"),
    "escape": ("--epochs", "1", "--arms", "sgd"),
}


@pytest.mark.parametrize("how", ["added", "deleted", "replaced"])
def test_a_folder_that_has_changed_is_never_scored_in_silence(cli, photos, make_picture, how):
    """Every command that reads a run's data again: one line that says what changed, where, and how to repair it."""
    before = cli("evaluate", "run")
    assert before.code == 0 and accuracy(before.out)[0] == 2 + 2 + 1
    if how == "added":
        grow(photos, make_picture)
    elif how == "deleted":
        for name in ("cat", "dog", "owl"):
            (photos / name / f"photos-{name}-0.png").unlink()
    else:
        make_picture(photos / "cat" / recorded("train", "cat")[0], (0, 0, 0))
    replaced = recorded("train", "cat")[0]
    what = {"added": "3 new (first: cat/0-cat.png)", "deleted": "3 gone (first: cat/photos-cat-0.png)",
            "replaced": f"1 new (first: cat/{replaced}), 1 gone (first: cat/{replaced})"}  # fmt: skip
    for command, options in MEASURES.items():
        outcome = cli(*command.removesuffix(" train").split()[:1], "run", *command.split()[1:][: "--" in command],
                      *options)  # fmt: skip
        line = outcome.complaint
        assert what[how] in line and str(photos.resolve()) in line and "restore the data as it was" in line, command
    resumed = cli("train", photos, "--out", "run", *SMALL).complaint
    assert what[how] in resumed and "or choose another --out" in resumed
    assert "or score other images with --data" in cli("evaluate", "run").complaint


def test_the_images_of_a_changed_folder_are_scored_without_those_that_were_trained_on(cli, photos, make_picture):
    trained = result_of()["class_counts"]
    kept = cli("evaluate", "run")
    grow(photos, make_picture)
    outcome = cli("evaluate", "run", "--data", photos)
    assert outcome.code == 0, outcome.err
    assert f"{sum(trained)} of {25 + 3} images are left out: the run was trained on them" in outcome.err
    assert accuracy(outcome.out)[0] == 5 + 3
    # Under other names and in another format: the content counts.
    for path in sorted(photos.rglob("*.png")):
        copy = Path("copies", path.parent.name, f"{path.stem[::-1]}.webp")
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(copy, lossless=True)
    assert accuracy(cli("evaluate", "run", "--data", "copies").out) == accuracy(outcome.out)
    for name in ("cat", "dog", "owl"):
        (photos / name / f"0-{name}.png").unlink()
    again = cli("evaluate", "run", "--data", photos)
    assert accuracy(again.out) == accuracy(kept.out)
    shutil.copytree(photos, "trained")
    held = {image.split(",")[1] for image in Path("run", IMAGES).read_text().splitlines() if "test," in image}
    for name in held:
        Path("trained", name).unlink()
    assert "the run was trained on all of these 20 images" in cli("evaluate", "run", "--data", "trained").complaint


def test_an_image_that_is_added_moves_at_most_one_other_of_its_class(make_folder, make_picture):
    root = make_folder(Path("photos"), cat=30, dog=20)
    before = load(root)
    grow(root, make_picture)
    shutil.rmtree(root / "owl")
    after = load(root)
    names = [{Path(name).name for name in each.test.names} for each in (before, after)]
    assert len(names[0] - names[1]) <= 2 and len(names[1] - names[0]) <= 2
    assert before.held_hash != "" and before.class_counts == [24, 16]


def test_the_split_does_not_depend_on_where_the_folder_lies(make_folder):
    root = make_folder(Path("photos"), cat=30, dog=20)
    here = load(root)
    Path("elsewhere").mkdir()
    Path("link").symlink_to(root)
    linked = load("link")
    root.rename("elsewhere/renamed")
    moved = load(Path("elsewhere/renamed").resolve())
    for other in (linked, moved):
        assert (other.draw_hash, other.held_hash) == (here.draw_hash, here.held_hash)
    assert [Path(n).name for n in moved.test.names] == [Path(n).name for n in here.test.names]


def test_validation_images_are_chosen_by_name_too(cli, make_folder, make_picture):
    root = make_folder(Path("photos"), cat=30, dog=20)
    assert cli("train", root, "--out", "run", "--val", 0.2, *SMALL).code == 0
    rows = [line.split(",") for line in Path("run", IMAGES).read_text().splitlines()[1:]]
    val = {row[1] for row in rows if row[0] == "val"}
    assert len(val) == 5 + 3 and len(rows) == 50
    grow(root, make_picture)
    shutil.rmtree(root / "owl")
    assert cli("train", root, "--out", "grown", "--val", 0.2, *SMALL).code == 0
    rows = [line.split(",") for line in Path("grown", IMAGES).read_text().splitlines()[1:]]
    assert len(val - {row[1] for row in rows if row[0] == "val"}) <= 4
    line = cli("evaluate", "run", "--split", "val").complaint
    assert "2 new" in line


def test_an_own_test_folder_that_has_changed(cli, make_folder, make_picture):
    """Curvature is that of the training images, which are the same; the score would be that of another test set."""
    make_folder(Path("photos/train"), cat=6, dog=5)
    make_folder(Path("photos/test"), cat=2, dog=2)
    assert cli("train", "photos", "--out", "run", *SMALL).code == 0
    make_picture(Path("photos/test/dog/new.png"))
    line = cli("evaluate", "run").complaint
    assert "held out other images for testing; in" in line and "1 new (first: test/dog/new.png)" in line
    assert cli("evaluate", "run", "--split", "train").complaint
    outcome = cli("curvature", "run", "--extremes-only", "--products", 5)
    assert outcome.code == 0, outcome.err
    assert "held out other images" in cli("escape", "run", "--epochs", 1, "--arms", "sgd").complaint
    assert "held out other images" in cli("train", "photos", "--out", "run", *SMALL).complaint
    assert accuracy(cli("evaluate", "run", "--data", "photos").out)[0] == 5


def test_classes_renamed_under_the_same_images(cli, make_folder):
    make_folder(Path("photos"), cat=10, dog=8)
    assert cli("train", "photos", "--out", "run", *SMALL).code == 0
    Path("photos/cat").rename("photos/cats")
    line = cli("evaluate", "run").complaint
    assert "other classes" in line and "new: 'cats'" in line and "gone: 'cat'" in line
    assert "run was trained on" in cli("train", "photos", "--out", "run", *SMALL).complaint


def older(run: Path, root: str = "photos") -> None:
    """Turn a run folder into one that was made before images were identified by name."""
    text = (run / CONFIG).read_text()
    kept = [line for line in text.splitlines() if not line.startswith("split = ")]
    (run / CONFIG).write_text("\n".join(f'name = "{root}"' if line.startswith('name = "/') else line for line in kept))
    (run / IMAGES).unlink(missing_ok=True)
    for path in [run / RESULT, *run.glob("checkpoint/*/meta.json")]:
        facts = json.loads(path.read_text())
        for name in ("held_hash", *(("class_counts", "groups") if path.name == "meta.json" else ())):
            facts.pop(name)
        facts.get("sha256", {}).pop("meta.json", None)  # as the first checkpoints
        path.write_text(json.dumps(facts))


@pytest.fixture
def old_run(cli, make_folder, monkeypatch) -> Path:
    """A run as older versions left it: its folder was split by position."""
    from saddlescape.runs import plan

    root = make_folder(Path("photos"), cat=10, dog=8, owl=7)
    with monkeypatch.context() as patch:
        patch.setattr(plan, "OWN_SPLIT", "position")
        assert cli("train", root, "--out", "run", *SMALL).code == 0
    older(Path("run"))
    return root


def test_an_old_run_opens_and_is_recognised(cli, old_run, make_picture):
    outcome = cli("evaluate", "run")
    assert outcome.code == 0, outcome.err
    assert "of an older version, which split by position" in outcome.err
    assert accuracy(outcome.out)[1] == pytest.approx(result_of()["accuracy"], abs=0.06)
    assert cli("curvature", "run", "--classes", "owl", "--extremes-only", "--products", 5).code == 0
    again = cli("train", old_run, "--out", "run", *SMALL)
    assert again.code == 0 and "is finished" in again.err, again.err
    outcome = cli("evaluate", "run", "--data", old_run)  # the folder is as it was, so what was trained on is known
    assert "20 of 25 images are left out" in outcome.err and accuracy(outcome.out)[0] == 5
    grow(old_run, make_picture)
    for command in ("evaluate", "curvature", "surface"):
        line = cli(command, "run").complaint
        assert "older version, which split by position" in line and "trained on other images" in line
    assert "split by position" in cli("train", old_run, "--out", "run", *SMALL).complaint
    outcome = cli("evaluate", "run", "--data", old_run)
    assert outcome.code == 0 and "is not recorded" in outcome.err


def test_an_old_run_goes_on(cli, old_run):
    """Killed after its last epoch, before its result: resumed by the old rule, with the same images."""
    Path("run", RESULT).unlink()
    outcome = cli("train", old_run, "--out", "run", *SMALL)
    assert outcome.code == 0, outcome.err
    assert tomllib.loads(Path("run", CONFIG).read_text())["data"].get("split", "position") == "position"
    assert len(read_rows(Path("run", METRICS))) == 2


def test_a_first_stage_that_saw_the_test_images(cli, photos, make_picture):
    outcome = cli("train", photos, "--out", "same", *SMALL[2:], "--method", "crt", "--from", "run")
    assert outcome.code == 0, outcome.err
    for name in recorded("test", "cat"):  # others take their places in the test set
        (photos / "cat" / name).unlink()
    line = cli("train", photos, "--out", "crt", *SMALL[2:], "--method", "crt", "--from", "run").complaint
    assert re.search(r"was trained on 2 of the 5 test images that 'photos' has now", line), line


# Other images, scored by a run.


@pytest.mark.parametrize("layout", ["folder", "list"])
def test_labelled_images_without_a_split_are_all_scored(cli, photos, make_folder, layout):
    new = make_folder(Path("new"), cat=30, dog=20, owl=10)
    if layout == "list":
        lines = [f"{path.relative_to(new)} {path.parent.name}\n" for path in sorted(new.rglob("*.png"))]
        new = new / "list.txt"
        new.write_text("".join(lines))
    outcome = cli("evaluate", "run", "--data", new)
    assert outcome.code == 0, outcome.err
    assert accuracy(outcome.out)[0] == 60
    assert "set aside" not in outcome.err


def test_one_class_is_scored_and_the_others_are_not_available(cli, photos, make_folder):
    make_folder(Path("dogs"), dog=6)
    outcome = cli("evaluate", "run", "--data", "dogs")
    assert outcome.code == 0, outcome.err
    assert accuracy(outcome.out)[0] == 6 and "1 of 3 classes have images here" in outcome.out
    rows = {line.split()[0]: line.split() for line in outcome.out.splitlines() if line[:3] in ("cat", "dog", "owl")}
    nothing = ["n/a"] * 3
    assert rows["cat"] == ["cat", "8", *nothing] and rows["owl"] == ["owl", "6", *nothing]
    assert "n/a" not in rows["dog"]
    assert "no such split; use test" in cli("evaluate", "run", "--data", "dogs", "--split", "train").complaint


def test_a_class_that_the_run_does_not_know(cli, photos, make_folder):
    make_folder(Path("new"), dog=6, emu=2)
    assert "class 'emu' is unknown to the run, which has cat, dog, owl" in cli(
        "evaluate", "run", "--data", "new"
    ).complaint  # fmt: skip
    shutil.rmtree("new/emu")
    Path("new/emu").mkdir()  # without images it harms nobody
    assert cli("evaluate", "run", "--data", "new").code == 0


def test_integers_of_which_some_are_missing(cli, make_folder):
    """A list of integers stands for the run's classes of these names."""
    make_folder(Path("photos"), a=6, b=6, c=6)
    names = {"a": 0, "b": 1, "c": 2}
    paths = sorted(Path("photos").rglob("*.png"))
    Path("all.txt").write_text("".join(f"{path} {names[path.parent.name]}\n" for path in paths))
    assert cli("train", "all.txt", "--out", "run", *SMALL).code == 0
    make_folder(Path("new"), c=3)
    Path("some.txt").write_text("".join(f"{path} 2\n" for path in sorted(Path("new").rglob("*.png"))))
    outcome = cli("evaluate", "run", "--data", "some.txt")
    assert outcome.code == 0, outcome.err
    assert accuracy(outcome.out)[0] == 3 and "1 of 3 classes have images here" in outcome.out


def test_the_same_classes_in_another_order(cli, make_folder):
    make_folder(Path("photos"), a=10, b=8, c=6)
    paths = sorted(Path("photos").rglob("*.png"))
    Path("list.txt").write_text("".join(f"{path} {path.parent.name}\n" for path in paths))
    Path("classes.txt").write_text("c\nb\na\n")
    assert cli("train", "list.txt", "--out", "run", *SMALL).code == 0
    before = cli("evaluate", "run")
    Path("classes.txt").write_text("b\na\nc\n")
    after = cli("evaluate", "run")
    assert after.code == 0, after.err
    assert "the same classes in another order; matched by name" in after.err
    assert after.out == before.out
    other = cli("evaluate", "run", "--data", "list.txt")
    assert "same classes in another order" in other.err and accuracy(other.out) == accuracy(before.out)
    outcome = cli("curvature", "run", "--classes", "c", "--extremes-only", "--products", 5)
    assert outcome.code == 0 and "in another order" in outcome.err, outcome.err


# A path is a place, however it is written, and data may move.


def test_one_folder_written_in_five_ways(cli, photos):
    Path("linked").symlink_to(photos)
    Path("sub").mkdir()
    for spelling in ("photos", "photos/", "./photos", "sub/../photos", photos.resolve(), "linked"):
        outcome = cli("train", spelling, "--out", "run", *SMALL)
        assert outcome.code == 0 and "is finished" in outcome.err, outcome.err
        assert "resuming with" not in outcome.err
    folders = set()
    for spelling in ("photos/", "./photos", photos.resolve(), "linked", "."):
        if spelling == ".":
            os.chdir("photos")
        outcome = cli("train", spelling, *SMALL, "--dry-run")
        folders.add(tomllib.loads(outcome.out)["data"]["name"])
    assert folders == {str(Path.cwd().resolve())}


def test_a_run_is_opened_from_another_working_folder(cli, photos, monkeypatch):
    Path("sub").mkdir()
    monkeypatch.chdir("sub")
    assert cli("evaluate", "../run").code == 0


def test_an_old_run_with_a_relative_path_is_the_same_run(cli, old_run):
    for spelling in ("photos", "photos/", old_run.resolve()):
        outcome = cli("train", spelling, "--out", "run", *SMALL)
        assert outcome.code == 0 and "resuming with" not in outcome.err, outcome.err


@pytest.mark.parametrize("root", ["archive", "archive/photos", "archive/photos/"])
def test_data_that_have_moved_are_found_below_root(cli, photos, root):
    before = cli("evaluate", "run")
    Path("archive").mkdir()
    photos.rename("archive/photos")
    assert "if the data have moved, name their folder with --root" in cli("evaluate", "run").complaint
    assert "--root" in cli("curvature", "run").complaint
    assert cli("evaluate", "run", "--root", root).out == before.out
    outcome = cli("curvature", "run", "--root", root, "--classes", "owl", "--extremes-only", "--products", 5)
    assert outcome.code == 0, outcome.err


def test_data_that_were_renamed_too(cli, photos):
    before = cli("evaluate", "run")
    photos.rename("images")
    after = cli("evaluate", "run", "--root", "images")
    assert after.out == before.out.replace("on photos", "on images"), after.err


def test_moved_data_in_every_other_command(cli, photos, make_folder):
    """Resume, a recipe, and scoring new images, for which the old ones are not needed."""
    Path("archive").mkdir()
    photos.rename("archive/photos")
    for command in (("surface", "--steps", 2), ("escape", "--epochs", 1, "--arms", "sgd", "--products", 5),
                    ("curvature", "--over-training", "--products", 5)):  # fmt: skip
        outcome = cli(command[0], "run", *command[1:], "--root", "archive")
        assert outcome.code == 0, outcome.err
    outcome = cli("train", "photos", "--root", "archive", "--out", "run", *SMALL)
    assert outcome.code == 0 and "is finished" in outcome.err, outcome.err
    outcome = cli("train", "archive/photos", "--recipe", "run/config.toml", "--out", "again")
    assert outcome.code == 0, outcome.err
    assert (result_of(Path("again"))["draw_hash"], result_of(Path("again"))["accuracy"]) == (
        result_of()["draw_hash"], result_of()["accuracy"],
    )  # fmt: skip
    shutil.rmtree("archive")
    make_folder(Path("new"), cat=3, dog=2, owl=1)
    outcome = cli("evaluate", "run", "--data", "new")
    assert outcome.code == 0 and accuracy(outcome.out)[0] == 6, outcome.err
    assert "is for data" in cli("train", "digits", "--recipe", "run/config.toml", "--out", "other").complaint


def test_a_killed_run_goes_on_where_its_data_are_now(cli, photos):
    Path("run", RESULT).unlink()
    photos.rename("images")
    outcome = cli("train", "images", "--out", "run", *SMALL)
    assert outcome.code == 0, outcome.err
    assert "resuming with data.name" in outcome.err


def test_images_of_the_same_name_and_size_are_not_the_same(cli, make_folder):
    """Uncompressed files of one size: their pixels tell them apart."""
    for root, shade in (("photos", 0), ("new", 100)):
        for number in range(12):
            path = Path(root, "ab"[number % 2], f"{number}.bmp")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (shade + number, number, 2 * number)).save(path)
    assert cli("train", "photos", "--out", "run", *SMALL).code == 0
    assert accuracy(cli("evaluate", "run", "--data", "new").out)[0] == 12


# What saddlescape writes is no class of images.


def test_runs_and_figures_in_the_data_folder_are_no_classes(cli, make_folder, make_picture, monkeypatch):
    pytest.importorskip("matplotlib")
    root = make_folder(Path("photos"), cat=10, dog=8)
    monkeypatch.chdir(root)
    first = cli("train", ".", *SMALL)
    assert first.code == 0, first.err
    run = Path("runs/photos-ce-seed0")
    assert result_of(run)["classes"] == ["cat", "dog"]
    again = cli("train", ".", *SMALL)
    assert again.code == 0 and "is finished" in again.err, again.err
    assert cli("report", run, "--out", "report.html", "--figures", "figures").code == 0
    assert cli("report", run, "--out", "runs/report.html", "--figures", run / "figures").code == 0
    assert any(Path("figures").rglob("*.png")) and any(Path("runs").rglob("*.png"))
    make_picture(Path("runs/old/checkpoint/image.png"))
    Path("runs/old/config.toml").touch()
    for _ in range(2):
        outcome = cli("train", ".", "--seed", 1, *SMALL)
        assert outcome.code == 0, outcome.err
        assert "results of saddlescape in" in outcome.err and outcome.err.count("results of saddlescape in") == 1
    assert result_of(Path("runs/photos-ce-seed1"))["class_counts"] == [8, 6]
    assert "2 classes" in cli("datasets", "check", ".").out
    assert cli("evaluate", run).code == 0
    # Within a class folder too; and a folder of images is a class whatever else is in it.
    assert cli("train", ".", "--out", "cat/run", "--seed", 2, *SMALL).code == 0
    assert cli("report", run, "--out", "report.html", "--figures", "cat/figures").code == 0
    assert cli("evaluate", run).code == 0
    make_picture(Path("runs/1.png"))
    assert "runs" in cli("datasets", "check", ".").out.split()


def test_home_in_every_path(cli, photos, monkeypatch):
    """Shells leave ``~`` after ``--option=`` as it is, and so does whoever calls without a shell."""
    monkeypatch.setenv("HOME", str(Path.cwd()))
    outcome = cli("train", "~/photos", "--out=~/runs/x", "--recipe=~/run/config.toml")
    assert outcome.code == 0, outcome.err
    assert Path("runs/x", RESULT).is_file()
    assert cli("train", "~/photos", "--out", "~/run", *SMALL).code == 0
    assert cli("evaluate", "~/run", "--data=~/photos", "--out=~/scores.json").code == 0
    assert cli("evaluate", "~/run", "--root", "~/photos").code == 0
    image = next(Path("photos/cat").iterdir())
    assert cli("predict", "~/run", f"~/{image}").code == 0
    assert cli("export", "~/run", "--out=~/model.pt2").code == 0
    assert cli("report", "~/run", "--out=~/report.html").code == 0
    assert cli("datasets", "check", "~/photos", "--json=~/check.json").code == 0
    assert cli("curvature", "~/run", "--classes", "owl", "--extremes-only", "--products", 5).code == 0
    assert cli("surface", "~/run", "--steps", 2, "--out=~/surface.npz").code == 0
    assert cli("train", "~/photos", "--method", "crt", *SMALL[2:], "--from=~/run", "--out=~/crt").code == 0
    for name in ("scores.json", "model.pt2", "report.html", "check.json", "surface.npz", "crt"):
        assert Path(name).exists(), name
    assert not Path("~").exists()
