"""``methods``, ``datasets``, ``datasets check``, ``--version`` and ``--help``: what is printed without training."""

from __future__ import annotations

import importlib.metadata

import pytest

import saddlescape
from saddlescape.cli.app import COMMANDS


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
    from saddlescape.cli.app import build

    app = build()
    for command in COMMANDS:
        text = " ".join(cli(command, "--help").out.split())
        example = text.split("Example: saddlescape ")[1].split("╭")[0].split()
        bound = app.parse_args(example, exit_on_error=False, print_error=False)[1]
        assert bound is not None


def test_all_commands_are_listed(cli):
    text = cli("--help").out
    for command in COMMANDS:
        assert command in text


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
