"""Runs every command and every Python block of the documents (Sybil); each document in a folder of its own.

A line ``saddlescape ...`` in a console block is run as printed. Lines that would train for hours (they name a CIFAR
set) are run with ``--dry-run`` added: everything is decided and loaded, nothing is trained. A network of timm, whose
weights come from another host, gives its place to EfficientNet-Lite0 of the test extra. ``make`` and ``pip`` lines
are held against the Makefile and pyproject.toml, since the tests themselves run inside them. A line
``python tools/...`` is run on the digits, whatever data there are.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sybil import Sybil
from sybil.example import Example
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parent
CIFAR = ("cifar10", "cifar100", "cifar10-lt", "cifar100-lt")
QUICK = ("tutorial_own_images.md", "tutorial_own_loop.md")  # the blocks of every other document are slow tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.suffix == ".md" and item.path.name not in QUICK:
            item.add_marker(pytest.mark.slow)


def cifar_root() -> Path | None:
    """The folder with the CIFAR shards that this machine has, if any."""
    for place in (os.environ.get("SADDLESCAPE_DATA"), str(ROOT.parent / "shared" / "data")):
        if place and (Path(place) / "cifar10").is_dir():
            return Path(place).resolve()
    return None


def run_command(line: str, namespace: dict[str, Any]) -> None:
    words = shlex.split(line, comments=True)
    if not words:
        return
    program, *arguments = words
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert arguments[0] in targets, f"no target {arguments[0]} in the Makefile"
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "optional-dependencies"
        ]
        named = re.findall(r"\[([a-z,]+)\]", line)
        assert all(extra in extras for group in named for extra in group.split(",")), f"unknown extra in {line}"
    elif program == "saddlescape":
        from saddlescape.cli.app import run

        if any(word in CIFAR for word in arguments):
            if cifar_root() is None:
                pytest.skip("no CIFAR data here: set SADDLESCAPE_DATA")
            arguments = [*arguments, "--dry-run"]
        arguments = ["lite0:lite0" if word.startswith("timm/") else word for word in arguments]
        assert run(arguments) == 0, f"failed: {line}"
    elif program == "python" and arguments[0].startswith("tools/"):
        nothing = {"SADDLESCAPE_DATA": str(Path.cwd() / "nothing")}
        subprocess.run([sys.executable, ROOT / arguments[0], *arguments[1:]], check=True, env=os.environ | nothing)
    elif program == "torchrun":
        subprocess.run([sys.executable, "-m", "torch.distributed.run", *arguments], check=True)
    else:
        raise AssertionError(f"a document names a program that no test runs: {line}")


def console(example: Example) -> None:
    for line in str(example.parsed).splitlines():
        run_command(line, example.namespace)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder to work in, with ``photos/`` and the data that the documents speak of."""
    from PIL import Image

    here = tmp_path_factory.mktemp("docs")
    for shade, name in ((60, "cat"), (200, "dog")):
        folder = here / "photos" / name
        folder.mkdir(parents=True)
        for i in range(12 if name == "cat" else 6):
            Image.new("RGB", (40, 36), (shade, 10 * i, 255 - shade)).save(
                folder / ("one.png" if i == 0 else f"{i}.png")
            )
    shutil.copy(ROOT / "tests" / "models" / "lite0.py", here)
    before, data = Path.cwd(), cifar_root()
    with pytest.MonkeyPatch.context() as patch:
        if data is not None:
            patch.setenv("SADDLESCAPE_DATA", str(data))
        os.chdir(here)
        try:
            yield here
        finally:
            os.chdir(before)


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), CodeBlockParser("console", console)],
    patterns=["README.md", "docs/*.md", "benchmarks/README.md"],
    fixtures=["workplace"],
).pytest()
