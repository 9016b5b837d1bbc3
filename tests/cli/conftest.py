"""Made-up pictures, small trained runs, and a way to run a command in this process."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saddlescape.cli.app import run

COLOURS = {"cat": (200, 60, 60), "dog": (60, 200, 60), "owl": (60, 60, 200), "a cat": (200, 60, 60)}


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line for bad input; everything that must be true of it is checked here."""
        lines = self.err.splitlines()
        found = [line for line in lines if line.startswith("saddlescape: ")]
        assert self.code == 2, (self.code, self.err)
        assert len(found) == 1, self.err
        assert lines[-1] == found[0], self.err
        assert "Traceback" not in self.err
        assert not found[0].startswith("saddlescape: unexpected"), found[0]
        return found[0]


Cli = Callable[..., Outcome]


def command(*tokens: object, debug: bool = False) -> Outcome:
    """One command line, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([str(token) for token in tokens], debug)
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture
def cli() -> Cli:
    return command


@pytest.fixture(scope="session")
def run_command() -> Cli:
    """``cli`` for fixtures that live longer than a test."""
    return command


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty current folder, and neither data nor cache of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SADDLESCAPE_DATA", raising=False)


def picture(path: Path, colour: tuple[int, int, int] = (90, 90, 90), size: tuple[int, int] = (16, 16)) -> Path:
    """A noisy patch of one colour (the noise is a function of the name), in the format of the file's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(path.name.encode())).integers(-50, 51, (size[1], size[0], 3))
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)
    return path


def folder(root: Path, **counts: int) -> Path:
    """A folder per class with so many pictures each; numbered across splits, so that no two are alike."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(root / name / f"{root.name}-{name}-{number}.png", COLOURS.get(name, (120, 120, 0)))
    return root


@pytest.fixture(scope="session")
def make_folder() -> Callable[..., Path]:
    return folder


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., Path]:
    return picture


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes with a train and a test split; not to be written to."""
    root = tmp_path_factory.mktemp("data") / "photos"
    folder(root / "train", cat=12, dog=7, owl=4)
    folder(root / "test", cat=3, dog=2, owl=2)
    return root


SMALL = ("--model", "smallcnn", "--image-size", "16", "--device", "cpu")


@pytest.fixture(scope="session")
def photo_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cross-entropy, two epochs on ``photos``; not to be written to."""
    run_folder = tmp_path_factory.mktemp("runs") / "photos"
    outcome = command("train", photos, "--method", "ce", "--epochs", 2, "--out", run_folder, *SMALL)
    assert outcome.code == 0, outcome.err
    return run_folder


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default method on digits, two epochs; not to be written to."""
    run_folder = tmp_path_factory.mktemp("runs") / "digits"
    outcome = command("train", "digits", "--epochs", 2, "--out", run_folder, "--device", "cpu")
    assert outcome.code == 0, outcome.err
    return run_folder


@pytest.fixture
def untouched() -> Iterator[Callable[[Path], None]]:
    """Remember the bytes of some folders, and hold them against what is there when the test ends."""
    before: dict[Path, dict[str, bytes]] = {}

    def contents(root: Path) -> dict[str, bytes]:
        return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}

    def watch(root: Path) -> None:
        before[root] = contents(root)

    yield watch
    for root, was in before.items():
        assert contents(root) == was
