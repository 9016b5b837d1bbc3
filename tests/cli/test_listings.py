"""``methods``, ``datasets``, ``datasets check``, ``--version`` and ``--help``: what is printed without training."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys

import pytest

import saddlescape
from saddlescape.cli.app import COMMANDS, EXAMPLES, GROUPS, build
from saddlescape.methods.grammar import OPTIMIZERS
from saddlescape.methods.recipe import Facts
from saddlescape.methods.resolve import resolve
from saddlescape.methods.rows import listing
from saddlescape.methods.systems import SYSTEMS
from saddlescape.training.epoch import work


def test_version(cli):
    outcome = cli("--version")
    assert (outcome.code, outcome.out.strip()) == (0, saddlescape.__version__)
    assert importlib.metadata.version("saddlescape") == saddlescape.__version__


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(cli, command):
    outcome = cli(command, "--help")
    assert outcome.code == 0
    text = " ".join(outcome.out.split())
    assert f"Example: saddlescape {command}" in text
    assert f"Usage: saddlescape {command}" in text


def test_the_example_in_the_help_is_a_legal_command(cli, monkeypatch):
    """Every example parses: the words are bound to the parameters of the function that they would call."""
    app = build()
    helps = [" ".join(cli(command, "--help").out.split()) for command in COMMANDS]
    examples = [text.split("Example: saddlescape ")[1].split("╭")[0] for text in helps]
    for example in (*examples, *EXAMPLES.split("saddlescape ")[1:]):
        assert app.parse_args(example.split(), exit_on_error=False, print_error=False)[1] is not None


def test_the_examples_of_the_help_can_be_run(cli, photos):
    for example in EXAMPLES.split("saddlescape ")[1:]:
        outcome = cli(*example.replace("photos/", str(photos)).split(), "--dry-run")
        assert outcome.code == 0, outcome.err


def test_the_help_lists_each_command_with_a_line_in_groups_and_two_examples(cli):
    text = " ".join(cli("--help").out.replace("│", " ").split())
    assert text == " ".join(cli().out.replace("│", " ").split())
    for group, commands in GROUPS.items():
        assert f" {group} " in text
        for command, line in commands.items():
            assert f"{command} {line}" in text
    assert text.count("saddlescape train ") == 1 and text.count("saddlescape reproduce ") == 1


@pytest.mark.parametrize("command", [("--help",), ("methods",), ("methods", "--json"), ("datasets",)])
def test_what_lists_needs_no_torch(command):
    code = "import sys; from saddlescape.cli.app import run; run(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True)


def test_methods_as_json(cli):
    rows = {row["name"]: row for row in json.loads(cli("methods", "--json").out) if row["kind"] != "row"}
    assert rows["ce"]["passes"] == 1 and rows["sam"]["passes"] == 2 and rows["glmc"]["passes"] == 4
    assert all(row["source"] and row["text"] for row in rows.values())


@pytest.mark.parametrize("name", [*SYSTEMS, *OPTIMIZERS])
def test_passes_are_the_work_of_the_steps(name):
    facts = Facts(dataset="cifar10", class_counts=[500, 50, 5], image_size=32, augment="crop-flip")
    stage = resolve(f"ce+{name}" if name in OPTIMIZERS else name, facts, epochs=100).stages[0]
    (line,) = [line for line in listing() if line.name == name and line.kind != "row"]
    assert line.passes == pytest.approx(work(stage, 555, stage.epochs - 1))


def test_methods_lists_terms_rows_and_sources(cli):
    from saddlescape.methods.grammar import TERMS
    from saddlescape.methods.rows import CIFAR_ROWS

    outcome = cli("methods")
    assert outcome.code == 0
    first = [line.split()[0] for line in outcome.out.splitlines() if line.strip() and not line.startswith(" ")]
    for name in (*TERMS, *CIFAR_ROWS):
        assert name in first
    assert "Foret" in outcome.out
    assert "--method takes a sum" in outcome.out


def test_datasets(cli):
    outcome = cli("datasets")
    assert outcome.code == 0
    for name in ("digits", "cifar10", "cifar100", "folder"):
        assert name in outcome.out


def test_check_says_what_was_understood(cli, photos):
    outcome = cli("datasets", "check", photos)
    assert outcome.code == 0, outcome.err
    assert "photos: folder per class, 3 classes" in outcome.out
    assert "train: 23 images, 12 to 4 per class (imbalance 3)" in outcome.out
    assert "test: 7 images" in outcome.out
    assert outcome.out.rstrip().endswith("ready to train")


def test_every_flag_of_every_command_says_what_it_is() -> None:
    flags = [line for line in build().generate_docs("markdown").splitlines() if line.startswith("* `")]
    assert len(flags) > 150
    assert [line for line in flags if re.match(r"\* `[^`]+`: *(\*\[.*)?$", line)] == []
