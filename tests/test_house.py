"""The house stands as it is drawn: what loads when, one version, and that every known case has its test."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import saddlescape
from saddlescape.cli.app import COMMANDS

ROOT = Path(__file__).parents[1]
INSTRUMENTS = ("data", "losses", "models", "optim", "curvature", "schedules")


def python(script: str, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter; ``path`` comes first in its module search."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, env=environment)


# What loads when; which room may import which is import-linter's part (`make lint`).


@pytest.mark.parametrize("script", [
    "import saddlescape; dir(saddlescape)",
    "import saddlescape.report.table",
    "import saddlescape.records.files, saddlescape.published",
    "from saddlescape.cli.app import run; assert run(['--help']) == 0",
    "from saddlescape.cli.app import run; assert run(['--version']) == 0",
    "from saddlescape.cli.app import run; assert run(['train', '--help']) == 0",
    "from saddlescape.cli.app import run; assert run(['train', 'digits', '--epochz', '3']) == 2",
])  # fmt: skip
def test_torch_is_not_imported_before_it_is_needed(script):
    done = python(f"{script}\nimport sys; sys.exit('torch was imported' if 'torch' in sys.modules else 0)")
    assert done.returncode == 0, done.stderr


def test_numpy_is_not_imported_for_help():
    done = python("from saddlescape.cli.app import run; run(['--help'])\nimport sys; sys.exit('numpy' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_instruments_import_with_little_more_than_torch():
    script = f"""
import sys

class Blocked:
    names = {{"cyclopts", "rich", "msgspec", "tomli_w", "jinja2", "sklearn", "scipy", "pyarrow", "onnx", "tensorboard",
              "matplotlib", "timm", "lightning", "transformers"}}

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)

import torch  # what torch itself likes to look for is its own affair
sys.meta_path.insert(0, Blocked())
for name in list(sys.modules):
    if name.split(".")[0] in Blocked.names:
        del sys.modules[name]
import importlib
for room in {INSTRUMENTS!r}:
    module = importlib.import_module("saddlescape." + room)
    for name in module.__all__:
        getattr(module, name)
loaded = [name for name in sys.modules if name.startswith("saddlescape.")]
base = ("errors", "counts", "density", "disk", "names", "passes")
strangers = [name for name in loaded if name.split(".")[1] not in {INSTRUMENTS!r} + base]
sys.exit(f"the instruments pull in {{strangers}}" if strangers else 0)
"""
    done = python(script)
    assert done.returncode == 0, done.stderr


# Names and numbers that are written in two places.


CONTRACT = (
    "SAM", "LDAMLoss", "VSLoss", "LogitAdjustedLoss", "BalancedSoftmaxLoss", "FocalLoss", "class_counts",
    "longtail_indices", "effective_number_weights", "class_spectra", "Spectrum", "__version__",
)  # fmt: skip


def test_the_top_level_has_every_name_of_the_contract():
    assert sorted(CONTRACT) == sorted(set(saddlescape.__all__) & set(CONTRACT))
    for name in saddlescape.__all__:
        assert getattr(saddlescape, name) is not None
    assert set(CONTRACT) <= set(dir(saddlescape))
    with pytest.raises(AttributeError, match="no attribute 'SAMM'"):
        _ = saddlescape.SAMM


@pytest.mark.parametrize("room", INSTRUMENTS)
def test_every_name_handed_on_is_there(room):
    module = importlib.import_module(f"saddlescape.{room}")
    assert len(module.__all__) == len(set(module.__all__))
    for name in module.__all__:
        assert hasattr(module, name), name


def test_no_two_public_classes_share_a_name():
    places: dict[str, list[str]] = {}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.name)
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == saddlescape.__version__
    citation = ROOT / "CITATION.cff"
    if citation.exists():
        assert f"\nversion: {saddlescape.__version__}\n" in citation.read_text()


def test_every_command_has_its_file_and_function():
    for command in COMMANDS:
        module = importlib.import_module(f"saddlescape.cli.{command}")
        assert callable(getattr(module, command)), command


# Files of the project.


def test_no_path_of_the_author_s_machine_is_left_in_a_file():
    # Split, so that this file does not find itself.
    machine = re.compile("/" + r"work/(main|shared)|" + "/" + r"tmp/[a-z]")
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: there is no list of the files that belong to the project")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".json", ".txt", ".cff", ".yml", ""} and path.is_file():
            found += [name for line in path.read_text(errors="replace").splitlines() if machine.search(line)][:1]
    assert found == []


# The environment.


def guard(path: Path) -> subprocess.CompletedProcess[str]:
    script = f"import runpy; runpy.run_path({str(ROOT / 'tests' / 'guard.py')!r}, run_name='__main__')"
    return python(script, path=path)


def test_a_torchvision_that_does_not_import_is_said_before_the_tests(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms is missing')")
    done = guard(tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "operator torchvision::nms is missing" in done.stderr
    assert "pip uninstall torchvision" in done.stderr
    (tmp_path / "torchvision" / "__init__.py").write_text("")
    assert guard(tmp_path).returncode == 0


# Cases.


def test_every_case_that_broke_others_has_its_tests():
    there = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    cases = tomllib.loads((ROOT / "tests" / "cases.toml").read_text(encoding="utf-8"))
    assert cases and all(cases.values())
    assert {case: missing for case, names in cases.items() if (missing := set(names) - there)} == {}


def test_the_drawing_names_what_is_there() -> None:
    """Every path in docs/architecture.md exists, and every package and module at the top stands in it."""
    source = ROOT / "src" / "saddlescape"
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", text))
    assert named and not [path for path in named if not (source / path).exists()]
    entries = [path for path in source.iterdir() if not path.name.startswith("_")]
    top = {path.name + "/" if path.is_dir() else path.name for path in entries}
    assert top - {"py.typed"} == set(re.findall(r"^  ([a-z_]+(?:/|\.py)) ", text, re.MULTILINE))
