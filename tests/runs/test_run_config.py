"""The configuration of a run as TOML: there and back, strictly, and the differences between two."""

from __future__ import annotations

import dataclasses
import sys
import tomllib
import typing
from pathlib import Path
from typing import Annotated, Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from saddlescape.errors import InputError
from saddlescape.methods.recipe import Facts
from saddlescape.methods.resolve import resolve
from saddlescape.records.config import DataConfig, RunConfig, Stage, check, check_stages
from saddlescape.runs.config import differences, from_toml, load, save, to_toml
from saddlescape.runs.plan import plan
from saddlescape.runs.request import Request

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
    lr=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    rho=st.lists(st.floats(min_value=0, allow_infinity=False), max_size=4),
    options=st.dictionaries(st.text(max_size=8), numbers, max_size=3),
    flag=st.booleans(),
    count=st.integers(1, 2**32 - 1),
)
def test_any_value_comes_back(
    text: str, lr: float, rho: list[float], options: dict[str, float], flag: bool, count: int
) -> None:
    stage = Stage(name=text, lr=lr, rho=tuple(rho), loss_options={**options}, nesterov=flag, epochs=count)
    config = RunConfig(method=text, model="m", seed=count, data=DataConfig(name=text), stages=(stage,), compile=flag)
    assert from_toml(to_toml(config)) == config


def test_a_folder_keeps_it(tmp_path: Path) -> None:
    save(CONFIG, tmp_path)
    assert load(tmp_path) == CONFIG
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.toml"]
    with pytest.raises(InputError, match=r"not a run folder: nothing is there"):
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
        ("epochs = 200", 'epochs = "many"', "stages.0.epochs is 'many'; it must be a whole number of at least 1"),
        ("epochs = 200", "epochs = 1.5", "stages.0.epochs is 1.5; it must be a whole number"),
        ("nesterov = true", "nesterov = 1", "$.stages[0].nesterov"),
        ("seed = 3", "seed = true", "seed is True; it must be a whole number"),
        ("tau = 1.0", "tau = true", "stages.0.loss_options.tau is True; it must be a finite number"),
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
    other = dataclasses.replace(
        CONFIG, eval_every=5, keep_every=2, seed=4, data=dataclasses.replace(CONFIG.data, root="/elsewhere"),
        stages=(dataclasses.replace(STAGE, lr=0.2, loss_options={"gamma": 2.0}), Stage()),
    )  # fmt: skip
    refused, allowed = differences(CONFIG, other)
    assert refused == [
        "seed: 3 -> 4", "stages.0.loss_options.gamma: - -> 2.0", "stages.0.loss_options.tau: 1.0 -> -",
        "stages.0.lr: 0.1 -> 0.2",
    ]  # fmt: skip
    assert allowed == ["data.root:  -> /elsewhere", "eval_every: 1 -> 5", "keep_every: 0 -> 2"]
    fewer, _ = differences(CONFIG, dataclasses.replace(CONFIG, stages=(STAGE,)))
    assert "stages.1.epochs: 200 -> -" in fewer


def _outside(hint: Any) -> list[tuple[Any, str]]:
    """Values that a field with this type may not have, each as in TOML; none where it has no bounds."""
    if typing.get_origin(hint) is tuple:
        return [([value], allowed) for value, allowed in _outside(typing.get_args(hint)[0])]
    if typing.get_origin(hint) is dict:
        member = typing.get_args(hint)[1]
        members = [member, *typing.get_args(member)] if typing.get_origin(member) is not Annotated else [member]
        return [({"key": value}, allowed) for each in members for value, allowed in _outside(each)]
    if typing.get_origin(hint) is not Annotated:
        return []
    bounds = hint.__metadata__[0]
    if bounds.pattern is not None:
        return [("perhaps", bounds.description)]
    wrong = [bounds.ge - 1] if bounds.ge not in (None, -sys.float_info.max) else []
    wrong += [bounds.gt] if bounds.gt is not None else []
    wrong += [bounds.lt] if bounds.lt is not None else []
    wrong += [bounds.le + 1] if bounds.le not in (None, sys.float_info.max) else []
    wrong += [float("nan"), float("inf")] if typing.get_args(hint)[0] is float else [1.5, "many"]
    return [(value, bounds.description) for value in wrong]


CASES = [
    (kind, field, value, allowed)
    for kind in (RunConfig, DataConfig, Stage)
    for field, hint in typing.get_type_hints(kind, include_extras=True).items()
    for value, allowed in _outside(hint)
]


def test_every_number_and_choice_has_bounds() -> None:
    """A number that may be anything is a decision, which stands here."""
    free = {
        (kind.__name__, field)
        for kind in (RunConfig, DataConfig, Stage)
        for field, hint in typing.get_type_hints(kind, include_extras=True).items()
        if hint in (int, float)
    }
    assert free == {("RunConfig", "version")}


@pytest.mark.parametrize(("kind", "field", "value", "allowed"), CASES, ids=lambda each: getattr(each, "__name__", None))
def test_a_value_out_of_range_is_named_in_a_file_and_in_a_plan(
    kind: type, field: str, value: Any, allowed: str
) -> None:
    raw = tomllib.loads(to_toml(CONFIG))
    table = {RunConfig: raw, DataConfig: raw["data"], Stage: raw["stages"][1]}[kind]
    table[field] = value
    shown = next(iter(value.values())) if isinstance(value, dict) else value[0] if isinstance(value, list) else value
    shown = f"{shown:g}" if isinstance(shown, float) else repr(shown)
    path = {RunConfig: "", DataConfig: "data.", Stage: "stages.1."}[kind] + field
    with pytest.raises(InputError) as caught:
        from_toml(tomli_w.dumps(raw), "here.toml")
    ending = ".0" if isinstance(value, list) else ".key" if isinstance(value, dict) else ""
    assert str(caught.value) == f"here.toml: {path}{ending} is {shown}; it must be {allowed}"

    part: Any = {RunConfig: CONFIG, DataConfig: CONFIG.data, Stage: CONFIG.stages[1]}[kind]
    wrong: Any = dataclasses.replace(part, **{field: tuple(value) if isinstance(value, list) else value})
    planned = {
        RunConfig: lambda: wrong,
        DataConfig: lambda: dataclasses.replace(CONFIG, data=wrong),
        Stage: lambda: dataclasses.replace(CONFIG, stages=(STAGE, wrong)),
    }[kind]()
    with pytest.raises(InputError) as caught:
        check(planned)
    if kind is Stage:
        assert str(caught.value) == f"stage 'train': {field}{ending.replace('.0', '')} is {shown}; it must be {allowed}"
    else:
        assert str(caught.value) == f"--{field.replace('_', '-')} {shown}: must be {allowed}"


@pytest.mark.parametrize(("field", "value", "allowed"), [case[1:] for case in CASES if case[0] is Stage])
def test_a_value_out_of_range_is_named_when_it_comes_from_set(field: str, value: Any, allowed: str) -> None:
    """Or it is no value of the type, which is said when the setting is read."""
    key = f"{field}.key" if isinstance(value, dict) else field
    shown = next(iter(value.values())) if isinstance(value, dict) else value[0] if isinstance(value, list) else value
    facts = Facts(dataset="digits", class_counts=[9, 3], image_size=8, augment="none")
    with pytest.raises(InputError, match=r"must be|not an? (int|float)") as caught:
        check_stages(resolve("ce", facts, epochs=2, settings=[f"train.{key}={shown}"]).stages)
    assert key in str(caught.value)
    assert allowed in str(caught.value) or f"--set train.{key}={shown}: " in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        case[1:]
        for case in CASES
        if case[0] is not Stage and case[1] in vars(Request(data="")) and case[2] not in ("many", 1.5)
    ]
    + [("image_size", 0, "a whole number of at least 1"), ("imbalance", 0.0, "head over tail, at least 1")],
)  # fmt: skip
def test_a_value_out_of_range_is_named_when_it_comes_from_a_flag(field: str, value: Any, allowed: str) -> None:
    asked: dict[str, Any] = {field: value}
    with pytest.raises(InputError) as caught:
        plan(Request(data="digits", method="ce", epochs=1, **asked))
    shown = f"{value:g}" if isinstance(value, float) else repr(value)
    assert str(caught.value).startswith(f"--{field.replace('_', '-')} {shown}: must be ")
    assert allowed in str(caught.value) or field in ("imbalance", "image_size")  # stricter than in a file
