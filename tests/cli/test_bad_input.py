"""Bad input: exit code 2, one line on stderr that says what is wrong and where, no traceback, nothing lost.

Numbers and words out of range, for every field: tests/runs/test_run_config.py.
"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

SMALL = ("--model", "smallcnn", "--image-size", "16", "--device", "cpu")

# A command | what its one line must say | ... : the mistakes of a first day, then the others, command by command.
MISTAKES = """
trian digits | unknown command 'trian'; did you mean train
--verbose train digits | unknown option --verbose; see saddlescape --help
train | train needs DATA; see saddlescape train --help
train digits cifar10 | train: 'cifar10' is one argument too many; see
train --data photos | Unknown option: --data; see
train digits --epochz 3 | --epochz | --epochs
train digits --method=ce --method=vs | --method specified multiple times
train digits --seed 1 2 | '2' is one argument too many
train digits --seed -1 | --seed -1: must be a whole number between
train digits --epochs x | Invalid value for --epochs: "x" is not a whole number; see saddlescape train --help
train digits --epochs 1.5 | --epochs: "1.5" is not a whole number
train digits --epochs 1e20 | --epochs: "1e20" is not a whole number
train digits --epochs | train needs --epochs
train digits --epochs 0 | --epochs 0
train digits --epochs -3 | --epochs -3
train digits --batch-size big | --batch-size: "big" is not a whole number
train digits --batch-size 0 | batch_size is 0; it must be a whole number of at least 1
train digits --lr 0,1 | --lr: "0,1" is not a number
train digits --lr -0.1 | lr is -0.1; it must be a finite number above 0
train digits --method ce+sam --rho -0.05 | rho is -0.05; it must be a finite number of at least 0
train digits --method ce --rho 0.5 | --rho has no meaning for ce
train digits --val 20 | --val 20: must be a number from 0 to below 1, or extra
train digits --val x | --val: "x" is not a number
train digits --download=maybe | --download: "maybe" is neither yes nor no
train digits --imbalance 0.5 | imbalance | 0.5
train digits --imbalance 100000 | imbalance 100000 | without images
train digits --image-size 0 | --image-size 0
train digits --image-size 16 | digits has images of 8 x 8: leave out --image-size 16
train features.npz --image-size 16 | features has features: leave out --image-size 16
train features.npz --augment crop-flip | --augment none
train digits --image-size 32x32 | --image-size: "32x32" is not a whole number
train digits --augment crop-flop | crop-flop | crop-flip
train digits --precision half | --precision half | bf16
train digits --model resnet33 | 'resnet33'; did you mean | resnet32
train digits --model timm/no-such-net | no-such-net
train digits --weights w.pt | --weights | --backbone NAME
train digits --method cee | 'cee' | did you mean 'ce'
train digits --method ce+ldam | 'ce' | 'ldam' | loss
train digits --method sam | names no loss | ce+sam
train digits --method ce+ | unknown term ''
train digits --log tensorbord | unknown logger; did you mean tensorboard
train digits --log paper | known are tensorboard, wandb, mlflow
train digits --track-curvature often | every=10
train digits --set momentum | --set momentum | stage.field=value
train digits --set second.lr=1 | no stage 'second' | train
train digits --set train.momentun=1 | no field 'momentun'; did you mean momentum
train digits --set train.momentum=x | 'x' is not a float
train digits --set train.nesterov=maybe | 'maybe' is not a bool
train digits --set train.loss=cee | cee
train digits --set train.loss_options.foo=1 | foo
train digits --set train.sampler=some | some | instance-balanced
train digits --set train.head=round | round | cosine
train digits --set train.optimizer=adamw | adamw | sam
train digits --set train.lr_schedule=up | up | cosine
train digits --set train.rho_schedule=up | up | constant
train digits --set train.rho_schedule=linear | linear | two numbers
train digits --set train.objective=guess | guess | classify
train digits --device tpu | --device tpu: not a device; use auto, cpu, cuda or cuda:N
train digits --device cuda:77 | --device cuda:77 | --device cpu
train digits --recipe none.toml | none.toml: No such file | give --recipe a run's config.toml
train digits --recipe photo.png | photo.png
train digits --recipe run | run
train digits --out run | run was begun with other settings | 10 more): use those, or choose another --out
train digits --out photos | photos is not empty and not a run | choose another --out
train digits --out file | file | choose another --out
train digitz | 'digitz' | did you mean 'digits'
train fotos | unknown data set 'fotos'; did you mean 'photos'? Known are digits
train no/such/folder | no/such/folder: no such file or folder; give a path as this system writes it
train .\\\\photos | no such file or folder; did you mean 'photos'?
train C:\\\\Users\\\\me\\\\photos | C:\\Users\\me\\photos: no such file or folder; give a path as this system writes it
train bare | bare: no class folders here; expected one folder per class
train flat | flat: no class folders here; expected one folder per class
train one | one: only one class folder, 'cat'; expected one folder per class, at least two
train empty | empty: class 'owl' (label 2) has no training images: add some or remove the class
train photo.png | photo.png: a single image; give a folder
train nolabel.csv | nolabel.csv line 1: label 'size' is not an integer | call its columns image and label
train table.csv | save them as an .npz
train list.txt | list.txt line 1: expected 'path label'
train missing.txt | missing.txt line 2: no file | --bad-images skip
train nolabels.npz | nolabels.npz: features without labels; expected arrays features [N, d] and labels [N]
train cifar10 --root nowhere | cifar10 is not under nowhere | --download
train cifar100 | cifar100 is not under | --download
tune digits --out new | tune needs --method
tune digits --method ce --out new --trials 0 | --trials 0: at least 1
tune digits --method ce --out new --val 0 | --val 0: tuning needs a validation split
tune digits --method ce --out new --search lr=0.1..0.2 | expected stage.field=low..high
tune digits --method ce --out new --search train.lrr=0.1..0.2 | no field 'lrr'; did you mean lr
datasets chekc photos | datasets: unknown command 'chekc'; did you mean check
datasets check no/such/folder | no/such/folder: no such file or folder
methods ce | methods: 'ce' is one argument too many
demo --out new --epochs 0 | --epochs 0
evaluate nowhere | nowhere is not a run folder: nothing is there; give the --out of saddlescape train
evaluate rum | rum is not a run folder: nothing is there; did you mean 'run'?
evaluate photos | photos is not a run folder: it has no config.toml; give the --out of saddlescape train
evaluate begun | begun has no checkpoint yet: train at least one epoch
evaluate run --split val | --split val
evaluate run --split tset | --split tset: this data has no such split; use train or test
evaluate run --data strangers | 'yak' | cat, dog, owl
evaluate run --post-hoc nan | --post-hoc nan
evaluate run --post-hoc inf | --post-hoc inf
evaluate run --out file/scores.json | cannot write file/scores.json
evaluate run --out . | is a folder
predict | predict needs RUN
predict run | at least one image
predict run none.jpg | none.jpg: cannot read image: no such file
predict run notes.txt | notes.txt: cannot read image | it looks like text
predict run x.png --top 0 | --top 0
predict photo.png run | photo.png is not a run folder
predict nowhere x.png | nowhere is not a run folder
predict begun photo.png | begun has no checkpoint yet
predict run photo.png --csv bare | is a folder; give a file
export nowhere | nowhere is not a run folder
export run --onx | --onx. Did you mean --onnx
export run --onnx --out model.pt2 | --onnx and --out
export run --out model.bin | model.bin
export run --out model | model
export run --out nowhere/model.pt2 | nowhere/model.pt2
export run --out file/model.pt2 | file/model.pt2
curvature nowhere | not a run folder
curvature begun | begun has no checkpoint yet: train at least one epoch
curvature run --class cat | --class. Did you mean --classes
curvature run --classes | curvature needs --classes
curvature run --classes emu | --classes emu: no class of this data; it has cat, dog, owl
curvature run --checkpoint s0-e00099-b000000 | s0-e00002-b000000
curvature run --loss mse | --loss 'mse'
curvature run --dtype float16 | --dtype 'float16'
curvature run --over-training | --keep-every
curvature run --over-training --advise-rho | give one of them
curvature run --over-training --checkpoint s0-e00002-b000000 | leave out
curvature run --rho 0.1 | --advise-rho
curvature run --advise-rho --rho -1 | --rho
curvature run --probes 0 | --probes 0
curvature run --tol 2 | --tol 2
curvature run --tol x | --tol: "x" is not a number
curvature run --samples-per-class 0 | --samples-per-class 0
curvature run --batch-size 1.5 | is not a whole number
curvature run --seed 1e20 | is not a whole number
surface nowhere | not a run folder
surface begun | begun has no checkpoint yet
surface run --directions up | --directions 'up'
surface run --steps 1 | --steps 1
surface run --steps 3.5 | is not a whole number
surface run --span nan | --span
surface run --out figure.png | .npz
escape nowhere | not a run folder
escape run --arms adam | --arms adam
escape run --arms sam | sam@0.5
escape run --epochs 0 | epochs
escape run --epochs 1e20 | is not a whole number
escape run --lr nan | lr
report | give a run folder
report nowhere | there is no folder nowhere; give a run folder or a folder of runs
report photos | photos is neither a run | give the --out of saddlescape train or reproduce
report run --out photos | is a folder: give a file
report run --out page.pdf | --out page.pdf: the page is HTML | page.html | --figures FOLDER
report run --out file/page.html | cannot write
reproduce digits-lt | reproduce needs --out
reproduce digits --out new | unknown table 'digits'; did you mean digits-lt
reproduce cifar11-lt --out new | 'cifar11-lt' | cifar10-lt
reproduce cifar10-lt --out new | cifar10 is not under | --download
reproduce digits-lt --out new --method ce | --method. Did you mean --methods
reproduce digits-lt --out new --methods ce drw | 'drw' is one argument too many
reproduce digits-lt --out new --methods , | names no method
reproduce digits-lt --out new --methods ce,ce | ce | twice
reproduce digits-lt --out new --methods ce+drw,cee --epochs 1 | 'cee'
reproduce digits-lt --out new --methods ce,ce+sam --rho -1 | rho | -1
reproduce digits-lt --out new --weight-decay nan | weight_decay | nan
reproduce digits-lt --out new --seeds a | --seeds: "a" is not a whole number; write --seeds 0 1 2
reproduce digits-lt --out new --seeds 0-2 | --seeds: "0-2" is not a whole number; write --seeds 0 1 2
reproduce digits-lt --out new --seeds 0 1.5 | "1.5" is not a whole number
reproduce digits-lt --out new --seeds -1 | --seed -1
reproduce digits-lt --out new --seeds | reproduce needs --seeds
reproduce digits-lt --out new --engine dask | 'dask' | serial, processes, ray
reproduce digits-lt --out new --jobs 0 | --jobs 0 | at least 1
reproduce digits-lt --out new --gpus-per-run 0.5 | --gpus-per-run | --engine ray
reproduce digits-lt --out file | file
"""
ROWS = [[cell.strip() for cell in line.split(" | ")] for line in MISTAKES.strip().splitlines()]


@pytest.fixture(scope="session")
def mistaken(photos, photo_run, make_folder, make_picture, tmp_path_factory) -> Path:
    """A folder in which all these mistakes can be made."""
    root = tmp_path_factory.mktemp("mistaken")
    for name, target in {"photos": photos, "run": photo_run}.items():
        (root / name).symlink_to(target)
    for name in ("bare", "begun"):
        (root / name).mkdir()
    shutil.copy(photo_run / "config.toml", root / "begun")
    make_folder(root / "one", cat=3)
    make_folder(root / "empty", cat=3, dog=3, owl=0)
    make_folder(root / "strangers", cat=3, yak=3)
    for place in ("photo.png", "flat/1.png", "flat/2.png", "a.png", "b.png", "c.png"):
        make_picture(root / place)
    rng = np.random.default_rng(0)
    np.savez(root / "features.npz", features=rng.normal(size=(30, 4)), labels=np.arange(30) % 3)
    np.savez(root / "nolabels.npz", features=rng.normal(size=(30, 4)))
    for name, text in {
        "nolabel.csv": "file,size\na.png,1\nb.png,2\nc.png,3\n", "list.txt": "a.png\nb.png\n",
        "notes.txt": "hello\n", "missing.txt": "a.png cat\nz.png cat\nb.png dog\n", "file": "mine",
        "table.csv": "age,city,label\n33,Bern,0\n44,Basel,1\n",
    }.items():  # fmt: skip
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_one_line_and_nothing_begun(cli, mistaken, monkeypatch, row):
    monkeypatch.chdir(mistaken)
    before = sorted(mistaken.rglob("*"))
    outcome = cli(*shlex.split(row[0]))
    for piece in row[1:]:
        assert piece in outcome.complaint
    assert len(outcome.complaint) < 500 and sorted(mistaken.rglob("*")) == before


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
