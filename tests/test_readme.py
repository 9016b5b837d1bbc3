"""The README's own commands are the ones that the gate and the document tests run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_command_is_in_a_block_that_is_run() -> None:
    run = re.findall(r"^```(console|python)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    fences = re.findall(r"^```(\w*)$", README, re.MULTILINE)
    assert [kind for kind in fences if kind] == [kind for kind, _ in run], "a block that the document tests do not run"
    commands = [line for kind, text in run if kind == "console" for line in text.splitlines()]
    assert sum(line.startswith("saddlescape ") for line in commands) >= 8


def test_the_gate_runs_the_test_command_of_the_readme() -> None:
    first = re.search(r"## Two commands\n\n```console\n(.*?)```", README, re.DOTALL)
    assert first is not None
    commands = [line.split("#")[0].strip() for line in first[1].splitlines()]
    assert commands == ["make demo", "make test"]
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    run = [line for line in gate.splitlines() if line.startswith("make")]
    assert run == ["make test", "make lint", "make test-slow"]


def test_the_files_that_it_links_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links and not [link for link in links if not (ROOT / link).exists()]
