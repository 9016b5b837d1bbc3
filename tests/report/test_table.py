"""The table: published figures beside ours, mean and spread, marks, Markdown."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saddlescape.report.table import (
    build,
    caption,
    cells,
    columns,
    escaped,
    markdown,
    number,
    published,
    published_name,
    spread,
)


def result(method: str = "ce", seed: int = 0, accuracy: float = 70.0, **changes: Any) -> dict[str, Any]:
    return {
        "method": method, "seed": seed, "dataset": "cifar10", "imbalance": 100.0, "epochs": 200, "model": "resnet32",
        "accuracy": accuracy, "head": 90.0, "mid": 70.0, "tail": 50.0, "best_accuracy": accuracy + 1,
        "draw_hash": "aa", "settings": [],
    } | changes  # fmt: skip


def test_no_figure_is_lent_to_another_row_or_imbalance() -> None:
    assert published("cifar10", 50.0, "ce") == {}
    assert published("cifar10", None, "ce") == {}
    assert published("cifar10", 100.0, "bs+sam") == {}
    assert published("digits", 50.0, "ce") == {}
    assert published_name("ldam+drw+sam") == "LDAM + DRW + SAM"
    assert published_name("crt") == "cRT"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=8))
def test_spread_is_numpys_with_n_minus_one(values: list[float]) -> None:
    found = spread(values)
    assert found["mean"] == pytest.approx(np.mean(values), abs=1e-9)
    assert found["std"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)


def test_spread_of_few_and_of_missing_values() -> None:
    assert spread([3.0]) == {"mean": 3.0, "std": None}
    assert spread([]) == {"mean": None, "std": None} == spread([None, None])
    assert spread([None, 1.0, 3.0]) == {"mean": 2.0, "std": pytest.approx(math.sqrt(2))}


def test_a_row_for_each_method_with_difference_and_spread() -> None:
    results = [result("ce+drw", seed, accuracy) | {"work": 200.0} for seed, accuracy in enumerate((74.0, 75.0, 76.0))]
    table = build([*results, result("ce+drw+sam", 0, 80.0)], 200)
    first, second = table["rows"]
    assert (first["method"], first["seeds"], second["method"], second["seeds"]) == (
        "ce+drw",
        [0, 1, 2],
        "ce+drw+sam",
        [0],
    )
    assert first["last"]["acc"] == {"mean": 75.0, "std": 1.0}
    assert first["best"]["acc"]["mean"] == 76.0
    assert first["published"]["acc"] == {"mean": 75.5, "std": 0.2}
    assert first["difference"]["acc"] == pytest.approx(-0.5)
    assert first["difference"]["tail"] == pytest.approx(50.0 - 61.4)
    assert second["last"]["acc"]["std"] is None and cells(second)[2] == "-"  # of an older version, without work
    assert dict(zip(columns(), cells(first), strict=True)) == {
        "method": "ce+drw", "seeds": "3", "work": "200", "acc": "75.0 ± 1.0", "head": "90.0 ± 0.0", "mid": "70.0 ± 0.0",
        "tail": "50.0 ± 0.0", "best epoch acc": "76.0 ± 1.0", "published acc": "75.5 ± 0.2",
        "published head": "91.6 ± 0.4", "published mid": "74.1 ± 0.4", "published tail": "61.4 ± 0.9",
        "difference acc": "-0.5", "difference tail": "-11.4",
    }  # fmt: skip


def test_other_draws_and_networks_are_marked() -> None:
    same = [result("ce"), result("vs")]
    assert all(row["comparable"] for row in build(same, 200)["rows"])
    assert "marked *" not in caption(build(same, 200))
    for odd in (result("vs", draw_hash="bb"), result("vs", model="resnet20")):
        table = build([result("ce"), odd], 200)
        assert [row["comparable"] for row in table["rows"]] == [True, False]
        assert cells(table["rows"][1])[0] == "vs *"
        assert "Rows marked * were trained on other images or another network" in caption(table)
    mixed = build([result("ce"), result("ce", 1, draw_hash="bb")], 200)
    assert not mixed["rows"][0]["comparable"]


def test_the_caption_says_what_is_not_comparable() -> None:
    assert "no claim" not in caption(build([result()], 200))
    short = caption(build([result(epochs=20)], 200))
    assert "200 epochs" in short
    assert "runs of 20" in short
    assert "no claim about the methods" in short
    changed = caption(build([result(settings=["rho 0.1 (0.5)"])], 200))
    assert "Changed from the published recipe: rho 0.1 (0.5). " in changed + " "
    assert "CIFAR-10-LT, imbalance 100, resnet32" in changed


def test_the_caption_says_which_rows_were_changed() -> None:
    small, decay, radius = "model resnet20 (resnet32)", "weight_decay 0.001 (0.0002)", "rho 0.1 (0.5)"
    made = [
        result("ce", settings=[small, decay]), result("ce", 1, settings=[small, decay]),
        result("ce+sam", settings=[small, decay, radius]),
        result("glmc", settings=["model resnet20 (resnet32-wide)", decay]),
    ]  # fmt: skip
    changes = caption(build(made, 200)).split("Changed from the published recipe: ")[1]
    assert changes == f"{decay}; all but glmc: {small}; ce+sam: {radius}; glmc: model resnet20 (resnet32-wide)."


def test_the_length_in_the_caption_is_that_of_the_first_stage_whichever_row_comes_first() -> None:
    system = result("crt", epochs=210, stage_epochs=[200, 10], first_stage="aa")
    for results in ([system, result()], [result(stage_epochs=[200]), system], [result()]):
        built = build(results, 200)
        assert built["epochs"] == 200
        assert "200 epochs" in caption(built) and "check the machinery" not in caption(built)
    assert build([system], 200)["rows"][0]["epochs"] == 210


def test_the_caption_says_in_which_number_format_the_rows_were_trained() -> None:
    rows = [{**result("ce", seed, 70.0), "precision": "bf16"} for seed in (0, 1)]
    assert "Trained in bf16." in caption(build(rows, None))
    rows.append({**result("ce+sam", 0, 71.0), "precision": "float32"})
    assert "Number formats differ (float32: ce+sam; bf16: ce)." in caption(build(rows, None))


def test_groups_without_classes_are_not_available() -> None:
    table = build([result(tail=None, dataset="photos", imbalance=None)], None)
    row = dict(zip(columns(), cells(table["rows"][0]), strict=True))
    assert (row["tail"], row["published tail"], row["difference tail"]) == ("n/a", "-", "-")
    assert number(None) == "-"
    assert number({"mean": None, "std": None}) == "n/a"
    assert "imbalance" not in caption(table).split(".")[0]


def test_markdown_has_as_many_cells_as_columns_whatever_is_in_them() -> None:
    assert escaped("a|b*c_d\\e\nf") == r"a\|b\*c\_d\\e f"
    table = build([result("ce"), result("toy|x", draw_hash="bb", dataset="cifar10")], 200)
    lines = [line for line in markdown(table).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    for line in lines:
        assert line.replace(r"\|", "").count("|") == len(columns()) + 1
    assert r"toy\|x \*" in lines[3]


def test_no_results_are_an_empty_table() -> None:
    assert build([], 200)["rows"] == []


def test_systems_on_the_same_first_stages_share_a_letter() -> None:
    rows = [
        result("ce"),
        result("crt", first_stage="1111"), result("crt", 1, first_stage="2222"),
        result("lws", first_stage="1111"), result("lws", 1, first_stage="2222"),
        result("mislas", first_stage="3333"),
    ]  # fmt: skip
    table = build(rows, 200)
    assert [cells(row)[0] for row in table["rows"]] == ["ce", "crt [a]", "lws [a]", "mislas [b]"]
    assert "first stage" in caption(table)
    assert "first stage" not in caption(build([result("ce")], 200))


def test_rows_of_another_test_set_are_marked() -> None:
    """Results of older versions and of named sets do not name theirs."""
    same = build([result("ce", held_hash="aa"), result("vs", held_hash="aa"), result("ldam")], 200)
    assert [row["comparable"] for row in same["rows"]] == [True, True, True]
    other = build([result("ce", held_hash="aa"), result("vs", held_hash="bb")], 200)
    assert [row["comparable"] for row in other["rows"]] == [True, False]


def test_results_are_held_against_what_most_have_in_common() -> None:
    rows = [result("ce", draw_hash="bb"), result("vs"), result("ldam"), result("la", model="resnet20"),
            result("bs", held_hash="cc"), result("focal", held_hash="cc"), result("ib", held_hash="dd")]  # fmt: skip
    table = build(rows, 200)
    assert [row["comparable"] for row in table["rows"]] == [False, True, True, False, True, True, False]
    assert table["draw_hash"] == "aa"
    assert cells(table["rows"][0])[0] == "ce *"
