"""What is decided before training: measured once, kept by a run that was begun, the same for all rows of a grid."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from saddlescape.errors import InputError
from saddlescape.records.config import flag
from saddlescape.runs import plan as planning
from saddlescape.runs.plan import Loaded, plan, plan_from_file
from saddlescape.runs.request import Request

# Enough steps to be worth a measurement: 34 epochs of 3 steps.
REQUEST = Request(data="digits", method="ce", imbalance=50, epochs=34, device="cpu")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A machine on which bf16 is native, and whose steps take what the test says."""
    told: dict[str, Any] = {"calls": 0, "float32": 0.4, "bf16": 0.2}

    def seconds_per_step(stage: Any, dataset: Any, model: str, names: tuple[str, ...], device: Any) -> dict[str, float]:
        told["calls"] += 1
        return {name: told[name] for name in names}

    monkeypatch.setattr(planning, "seconds_per_step", seconds_per_step)
    monkeypatch.setattr(planning, "has_fast_bf16", lambda device: True)
    return told


def test_the_faster_format_is_taken_and_said(measured: dict[str, Any]) -> None:
    config, _, notes = plan(REQUEST)
    assert config.precision == "bf16"
    assert any("float32 400 ms, bf16 200 ms" in note for note in notes)
    measured["bf16"] = 0.5
    assert plan(REQUEST)[0].precision == "float32"


def test_a_short_run_of_fast_steps_is_float32_whatever_a_measurement_says(measured: dict[str, Any]) -> None:
    measured |= {"float32": 0.01, "bf16": 0.005}
    assert plan(REQUEST)[0].precision == "float32"
    few = dataclasses.replace(REQUEST, epochs=5)
    before = measured["calls"]
    assert plan(few)[0].precision == "float32" and measured["calls"] == before


def test_a_begun_run_keeps_what_was_decided_there(measured: dict[str, Any]) -> None:
    begun = dataclasses.replace(plan(REQUEST)[0], precision="float32", compile=True)
    config, _, _ = plan(REQUEST, begun=begun)
    assert (config.precision, config.compile, config.device) == ("float32", True, begun.device)
    asked = dataclasses.replace(REQUEST, precision="bf16", compile=False)
    config, _, _ = plan(asked, begun=begun)
    assert (config.precision, config.compile) == ("bf16", False)  # execute then refuses, showing the difference


def test_the_rows_of_a_grid_share_one_choice(measured: dict[str, Any]) -> None:
    loaded = Loaded()
    first = plan(REQUEST, None, loaded)[0]
    measured["bf16"] = 9.0
    assert plan(dataclasses.replace(REQUEST, method="ce+sam"), None, loaded)[0].precision == first.precision
    assert measured["calls"] == 1
    resumed = Loaded()
    plan(REQUEST, None, resumed, begun=first)
    assert plan(dataclasses.replace(REQUEST, method="ce+sam"), None, resumed)[0].precision == first.precision
    assert measured["calls"] == 1


def test_own_photos_write_down_their_size_and_are_limited_on_a_cpu(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.new("RGB", (230, 224), (40 * i, 90, 10)).save(tmp_path / name / f"{i}.png")
    config, dataset, notes = plan(Request(data=str(tmp_path), device="cpu", epochs=1))
    assert config.data.image_size == dataset.preprocess.image_size == planning.CPU_IMAGE_SIZE
    assert any("is the limit here" in note for note in notes)
    larger = plan(Request(data=str(tmp_path), device="cpu", epochs=1, image_size=96))[0]
    assert larger.data.image_size == 96


UNSET: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(Request) if field.name != "data"}


def test_a_recipe_refuses_every_flag_that_it_decides() -> None:
    free = {"data", "processes", "root", "download", "seed", "eval_every", "keep_every"}
    for field in dataclasses.fields(Request):
        if field.name not in free:
            value: Any = ("x",) if field.name == "settings" else 7 if field.default is None else True
            value = "other" if isinstance(field.default, str) else value
            with pytest.raises(InputError, match=f"leave out {flag(field.name)}, or edit"):
                plan_from_file(Path("recipe.toml"), dataclasses.replace(REQUEST, **UNSET | {field.name: value}))
