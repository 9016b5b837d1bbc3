"""The recipes of CONTRIBUTING.md for a new loss and a new system: what is printed there, and a run with it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from saddlescape.cli.app import run
from saddlescape.losses import registry
from saddlescape.methods import grammar
from saddlescape.methods.systems import table
from saddlescape.published import systems
from saddlescape.records.files import read_result

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_a_new_loss_is_one_file_and_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file, _ = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(file, "squared.py", "exec"), namespace)
    [loss_line] = re.findall(r"`(\"squared\": SquaredLoss),`", TEXT)
    [term_line] = re.findall(r"`(\"squared\": Term\(.*?\)),`", TEXT)
    monkeypatch.setattr(registry, "LOSSES", registry.LOSSES | eval(f"{{{loss_line}}}", namespace))
    monkeypatch.setattr(grammar, "TERMS", grammar.TERMS | eval(f"{{{term_line}}}", {"Term": grammar.Term}))
    [command] = re.findall(r"`saddlescape (train digits --method squared\+sam)`", TEXT)
    assert run([*command.split(), "--epochs", "2", "--out", str(tmp_path / "run")]) == 0
    result = read_result(tmp_path / "run")
    assert result is not None and result["method"] == "squared+sam"


def test_a_new_system_is_one_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, entry = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    [numbers] = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    for name, system in eval(f"{{{entry}}}", vars(table)).items():
        monkeypatch.setitem(table.SYSTEMS, name, system)
    monkeypatch.setitem(systems(), "yours", tomllib.loads(numbers)["yours"])
    command = ["train", "digits", "--method", "yours+vs+sam", "--epochs", "2", "--out", str(tmp_path / "run")]
    assert run(command) == 0
    result = read_result(tmp_path / "run")
    # Both stages are stretched like the first: of digits' 300 epochs to 2, of 20 to at least 1.
    assert result is not None and result["method"] == "yours+vs+sam" and result["epochs"] == 3


def test_the_files_it_names_exist() -> None:
    root = Path(__file__).parent.parent / "src" / "saddlescape"
    named = set(re.findall(r"`((?:data|losses|methods|optim|training|published|runs)/[a-z_/.]+\.(?:py|toml))`", TEXT))
    yours = {"data/sources/yours.py", "methods/systems/yours.py"}
    missing = {name for name in named if not (root / name).is_file()} - yours
    assert len(named) > 8 and not missing
