"""The configuration of a run as TOML: there and back, strictly, and the differences between two."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saddlescape.errors import InputError
from saddlescape.runs.config import DataConfig, RunConfig, differences, from_toml, load, replace, save, to_toml
from saddlescape.training.stage import Stage

STAGE = Stage(rho=(0.05, 0.1), loss_options={"tau": 1.0}, nesterov=True, name="first")
CONFIG = RunConfig(
    method="vs+sam", model="resnet32", seed=3, data=DataConfig(name="cifar10", imbalance=100.0), stages=(STAGE, Stage())
)
numbers = st.floats(allow_nan=False, allow_infinity=False)


def test_every_field_comes_back() -> None:
    assert from_toml(to_toml(CONFIG)) == CONFIG


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(max_size=20),
    lr=numbers,
    rho=st.lists(numbers, max_size=4),
    options=st.dictionaries(st.text(max_size=8), numbers, max_size=3),
    flag=st.booleans(),
    count=st.integers(-(2**60), 2**60),
)
def test_any_value_comes_back(
    text: str, lr: float, rho: list[float], options: dict[str, float], flag: bool, count: int
) -> None:
    stage = Stage(name=text, lr=lr, rho=tuple(rho), loss_options=options, nesterov=flag, epochs=count)
    config = RunConfig(method=text, model="m", seed=count, data=DataConfig(name=text), stages=(stage,), compile=flag)
    assert from_toml(to_toml(config)) == config


def test_a_folder_keeps_it(tmp_path: Path) -> None:
    save(CONFIG, tmp_path)
    assert load(tmp_path) == CONFIG
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.toml"]
    with pytest.raises(InputError, match=r"not a run folder: it has no config\.toml"):
        load(tmp_path / "nothing")
    (tmp_path / "config.toml").write_bytes(b'method = "\xff\xfe"')
    with pytest.raises(InputError, match=r"config\.toml: not UTF-8 text"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lr = 0.1", "lrr = 0.1", "unknown key 'stages.0.lrr'"),
        ("seed = 3", "seed = 3\nsede = 4", "unknown key 'sede'"),
        ('name = "cifar10"', 'name = "cifar10"\nimbalanse = 3', "unknown key 'data.imbalanse'"),
        ("epochs = 200", 'epochs = "many"', "$.stages[0].epochs"),
        ("epochs = 200", "epochs = 1.5", "$.stages[0].epochs"),
        ("nesterov = true", "nesterov = 1", "$.stages[0].nesterov"),
        ("seed = 3", "seed = true", "$.seed"),
        ("tau = 1.0", "tau = true", "$.stages[0].loss_options"),
        ('method = "vs+sam"', "", "method"),
        ("seed = 3", "seed = = 3", "line"),
        ("version = 1", "version = 2", "written by format 2, this version reads 1"),
    ],
)
def test_reading_is_strict_and_names_the_key(old: str, new: str, said: str) -> None:
    text = to_toml(CONFIG)
    assert old in text
    with pytest.raises(InputError) as caught:
        from_toml(text.replace(old, new, 1), "here.toml")
    assert said in str(caught.value)
    assert str(caught.value).startswith("here.toml: ")
    assert "\n" not in str(caught.value)


def test_whole_numbers_are_read_where_fractions_are_meant() -> None:
    text = to_toml(CONFIG).replace("lr = 0.1", "lr = 1", 1)
    assert from_toml(text).stages[0].lr == 1.0


def test_differences_are_shown_and_sorted_into_refused_and_allowed() -> None:
    assert differences(CONFIG, CONFIG) == ([], [])
    other = replace(
        CONFIG, eval_every=5, keep_every=2, seed=4, data=dataclasses.replace(CONFIG.data, root="/elsewhere"),
        stages=(dataclasses.replace(STAGE, lr=0.2, loss_options={"gamma": 2.0}), Stage()),
    )  # fmt: skip
    refused, allowed = differences(CONFIG, other)
    assert refused == [
        "seed: 3 -> 4", "stages.0.loss_options.gamma: - -> 2.0", "stages.0.loss_options.tau: 1.0 -> -",
        "stages.0.lr: 0.1 -> 0.2",
    ]  # fmt: skip
    assert allowed == ["data.root:  -> /elsewhere", "eval_every: 1 -> 5", "keep_every: 0 -> 2"]
    fewer, _ = differences(CONFIG, replace(CONFIG, stages=(STAGE,)))
    assert "stages.1.epochs: 200 -> -" in fewer
