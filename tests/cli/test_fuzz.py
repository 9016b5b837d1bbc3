"""Invalid flags of every command and damaged run folders, drawn with a seed: one line, an exit code, nothing lost.

The flags come from the command line itself, so a new one is covered without a word here.
"""

from __future__ import annotations

import contextlib
import random
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from saddlescape.cli.app import build

pytestmark = pytest.mark.slow

VALUES = (
    "", " ", "x", "-1", "0", "1.5", "nan", "inf", "1e400", "99999999999999999999", "[1]", "{}", "a=b", ",", "é\udcff",
    "~nobody-here/x", "/dev/full", "/dev/null", "nowhere/x", "file", "file/x", ".", "y" * 300, "all", "train.lr=0",
)  # fmt: skip
SECONDS = 20  # what a value that is valid, and asks for much, may work before it is stopped


@contextlib.contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Ctrl-C after so many seconds."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def problem(outcome: Any) -> str:
    """What must not be in the outcome of any input; "" where all is well."""
    if "interrupted" in outcome.err and outcome.code == 130:
        return ""
    said = [line for line in outcome.err.splitlines() if line.startswith("saddlescape: ")]
    if outcome.code not in (0, 1, 2):
        return f"exit code {outcome.code}: {outcome.err}"
    if "unexpected" in outcome.err or "Traceback" in outcome.err:
        return outcome.err
    return "" if outcome.code != 2 or len(said) == 1 else f"{len(said)} lines: {outcome.err!r}"


def flags() -> list[tuple[str, str]]:
    """(command, flag) of all commands."""
    app = build()
    found = []
    for command in app:
        if not command.startswith("-"):
            for argument in app[command].assemble_argument_collection():
                found += [(command, name) for name in argument.names if name.startswith("--")]
    assert len(found) > 100
    return found


def cases(seed: int, number: int) -> list[tuple[str, str, str]]:
    draw = random.Random(seed)
    every = [(command, flag, value) for command, flag in flags() for value in VALUES]
    one_each = [(command, flag, draw.choice(VALUES)) for command, flag in flags()]
    return [*one_each, *draw.sample(every, number)]


def stop(*_: object, **__: object) -> None:
    from saddlescape.errors import InputError

    raise InputError("the command line is accepted")


@pytest.mark.parametrize("part", range(4))
def test_any_value_of_any_flag(cli, digits_run, tmp_path, monkeypatch, part):
    monkeypatch.setattr("saddlescape.runs.tune.execute", stop)
    monkeypatch.setattr("saddlescape.cli.reproduce.reproduce", stop, raising=False)
    image = picture(Path("image.png"))
    problems = []
    for command, flag, value in cases(0, 200)[part::4]:
        Path("file").write_text("mine")
        run = tmp_path / "run"
        if not run.exists():
            shutil.copytree(digits_run, run)
        words = {
            "train": ["digits", "--dry-run"], "tune": ["digits", "--method", "ce", "--out", "tuned", "--trials", "1"],
            "reproduce": ["digits-lt", "--out", "grid", "--dry-run"], "demo": [], "methods": [], "datasets": [],
            "predict": [run, image], "report": [run],
            "curvature": [run, "--extremes-only", "--classes", "1", "--samples-per-class", "8"],
            "surface": [run, "--steps", "3", "--samples-per-class", "8", "--directions", "random"],
            "escape": [run, "--epochs", "1", "--arms", "sgd", "--seeds", "0", "--classes", "1"],
        }.get(command, [run])  # fmt: skip
        if command == "demo" and flag not in ("--help",):
            monkeypatch.setattr("saddlescape.runs.grid.run_grid", stop)
        with stopped_after(SECONDS):
            outcome = cli(command, *words, f"{flag}={value}")
        if told := problem(outcome):
            problems.append(f"{command} {flag}={value[:40]!r}: {told}")
    assert not problems, "\n".join(problems)


MEASURED = ("*.npz", "surface-*", "curvature*", "*advice*", "escape*")
DAMAGES = ("cut", "zeros", "flip", "empty", "{}", "list", "text", "deleted", "folder")


def damage(path: Path, kind: str, draw: random.Random) -> None:
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind != "deleted":
        flipped = bytearray(content)
        for _ in range(3):
            flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        path.write_bytes({
            "cut": content[: len(content) // 2], "zeros": bytes(len(content)), "flip": bytes(flipped), "empty": b"",
            "{}": b"{}\n", "list": b"[1, {}]\n", "text": b"\xff\xfe no such thing\n",
        }[kind])  # fmt: skip


def commands(run: Path, image: Path) -> dict[str, list[Any]]:
    few = ["--samples-per-class", "8", "--classes", "1"]
    return {
        "resume": ["train", "digits", "--recipe", run / "config.toml", "--out", run, "--keep-every", "1"],
        "evaluate": ["evaluate", run], "predict": ["predict", run, image], "report": ["report", run],
        "curvature": ["curvature", run, "--extremes-only", *few],
        "course": ["curvature", run, "--over-training", "--products", "10", *few],
        "advice": ["curvature", run, "--advise-rho", "--products", "10", *few],
        "surface": ["surface", run, "--steps", "3", "--samples-per-class", "8", "--directions", "random"],
        "escape": ["escape", run, "--epochs", "1", "--arms", "sgd", "--seeds", "0", "--classes", "1"],
        "reproduce": ["reproduce", "digits-lt", "--methods", "ce", "--epochs", "2", "--out", run.parent,
                      "--keep-every", "1", "--device", "cpu"],
        "export": ["export", run],
    }  # fmt: skip


def picture(path: Path) -> Path:
    Image.new("L", (8, 8), 100).save(path)
    return path


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory, run_command: Any) -> Path:
    """A run of a grid with everything measured; not to be written to."""
    grid = tmp_path_factory.mktemp("full")
    image = picture(grid.parent / "image.png")
    assert run_command("reproduce", "digits-lt", "--methods", "ce", "--epochs", 2, "--out", grid, "--device", "cpu",
                       "--keep-every", 1).code == 0  # fmt: skip
    (run,) = (path for path in grid.iterdir() if path.is_dir())
    for name, words in commands(run, image).items():
        if name in ("resume", "reproduce"):
            (run / "result.json").unlink()
        if name != "export":
            with contextlib.chdir(grid):  # where the page of `report` goes
                outcome = run_command(*words)
            assert outcome.code == 0, outcome.err
    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("part", range(4))
def test_any_damaged_file_of_a_run(cli, full_run, tmp_path, part):
    image = picture(Path("image.png"))
    draw = random.Random(7 + part)
    names = sorted(name for name in contents(full_run) if not name.startswith(".") and not name.endswith(".lock"))
    words = commands(Path(), image)
    every = [(name, kind, command) for name in names for kind in DAMAGES for command in words if command != "export"]
    resumes = [one for one in every if one[0] == "metrics.jsonl" and one[2] in ("resume", "course")]
    chosen = draw.sample(every, 75) + resumes[part::4] + [(name, "flip", "export") for name in draw.sample(names, 2)]
    problems = []
    for name, kind, command in chosen:
        shutil.rmtree(tmp_path / "grid", ignore_errors=True)
        run = Path(shutil.copytree(full_run, tmp_path / "grid" / full_run.name))
        damage(run / name, kind, draw)
        if command in ("resume", "reproduce") and name != "result.json":
            (run / "result.json").unlink()  # else there is nothing to resume
        before = contents(run)
        with stopped_after(60):
            outcome = cli(*commands(run, image)[command])
        told = problem(outcome)
        after = contents(run)
        kept = set(after.values())
        lost = [other for other, content in before.items()
                if other != name and other not in after and content not in kept]  # fmt: skip
        if told or lost:
            problems.append(f"{command} after {name} {kind}: {told} {'lost ' + ', '.join(lost) if lost else ''}")
    assert not problems, "\n".join(problems)


@contextlib.contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file can grow beyond ``room`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 300, 3000])
def test_a_full_disk(cli, full_run, tmp_path, room):
    """One line with the file and the reason; whatever was there before is there after."""
    image = picture(Path("image.png"))
    more = {"train": ["train", "digits", "--method", "ce", "--epochs", "1", "--out", "new", "--device", "cpu"],
            "figures": ["report", full_run, "--figures", "figures"],
            "scores": ["evaluate", full_run, "--out", "s.json"],
            "tensorboard": ["train", "digits", "--method", "ce", "--epochs", "1", "--out", "logged", "--device", "cpu",
                            "--tensorboard"]}  # fmt: skip
    problems = []
    for name, words in {**commands(full_run, image), **more}.items():
        run = Path(shutil.copytree(full_run, tmp_path / name / full_run.name))
        for path in {found for name in MEASURED for found in run.glob(name)}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        (run / "result.json").unlink()
        before = contents(run)
        words = commands(run, image).get(name) or [run if word == full_run else word for word in words]
        with full_disk(room):
            outcome = cli(*words)
        told = problem(outcome)
        lost = [other for other in before if other not in contents(run)]
        if outcome.code == 2 and "File too large" not in outcome.err:
            told = told or f"no reason: {outcome.err}"
        left = [path.name for path in Path().rglob(".*") if path.is_file() and path.name != ".lock"]
        if told or lost or left:
            problems.append(f"{name}: {told} lost {lost} left {left}")
    assert not problems, "\n".join(problems)
