"""The plain-language reading, rule by rule."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saddlescape.records.course import Moment
from saddlescape.records.curvature import Curvature
from saddlescape.report.page import render, tiles
from saddlescape.report.read import RunData, read
from saddlescape.report.reading import (
    Sentence,
    at_equal_loss,
    depth,
    described,
    gains,
    overconfidence,
    published_epochs,
    reading,
    spread_noise,
    versus,
)

Make = Callable[..., Path]


def row(
    low: float = -3.1, high: float = 77.5, *, settled: bool = True, proved: bool = True, loss: float = 0.5
) -> Curvature:
    return Curvature(
        name="truck", label=0, group="tail", lambda_min=low, lambda_max=high, nonconvexity=abs(low / high),
        residual_min=0.012, converged_min=settled, converged_max=True, negative_curvature_proved=proved,
        training_images=50, loss=loss,
    )  # fmt: skip


@pytest.fixture
def run(make: Make, tmp_path: Path) -> RunData:
    return read([make(tmp_path / "run")])[0]


def test_a_saddle_is_stated_with_value_error_and_share(run: RunData) -> None:
    text = (
        "Class truck (tail, 50 images) sits on a saddle of its own loss with CE + DRW: λmin −3.1 ± 0.01, 4.0 % of "
        "λmax; class loss 0.5."
    )
    assert described(run, row()) == Sentence("saddle", "bad", text)


def test_words_by_share() -> None:
    cases = {-10.0: "deep", -9.99: "saddle", -2.0: "saddle", -1.99: "minimum"}
    assert {low: depth(row(low, 100.0)) for low in cases} == cases
    cases = {0.001: "minimum", -5.0: "unproved"}
    assert {low: depth(row(low, 100.0, proved=False)) for low in cases} == cases


def test_nothing_is_claimed_that_is_not_proved_or_settled(run: RunData) -> None:
    unproved = described(run, row(proved=False))
    assert unproved.tone == "unknown"
    assert "no negative curvature is proved" in unproved.text
    assert "saddle" not in unproved.text
    unsettled = described(run, row(settled=False))
    assert "curvature of at least −3.1 is proved" in unsettled.text
    assert "λmin itself is not settled" in unsettled.text
    assert "±" not in unsettled.text
    minimum = described(run, row(0.2, proved=False))
    assert "lies at a minimum" in minimum.text
    assert "not settled" not in minimum.text
    assert depth(row(0.2, proved=False, settled=False)) == "unproved"
    infinite = Curvature(lambda_min=-1.0, lambda_max=-0.5, nonconvexity=None, negative_curvature_proved=True)
    assert depth(infinite) == "deep"


def moment(epoch: int, loss: float, low: float = -5.0, *, converged: bool = True, proved: bool = True) -> Moment:
    return Moment(epoch=epoch, label=1, lambda_min=low, loss=loss, converged=converged, proved=proved)


def test_moments_of_equal_loss_are_the_latest_within_a_fifth() -> None:
    plain = [moment(1, 2.0), moment(5, 1.0), moment(9, 0.1)]
    sam = [moment(2, 2.1), moment(6, 1.15), moment(8, 0.5)]
    found = at_equal_loss(plain, sam, 1)
    assert found is not None
    assert [one.epoch for one in found] == [5, 6]
    assert at_equal_loss(plain, [moment(3, 1.21)], 1) is None
    assert at_equal_loss(plain, [moment(3, 1.199)], 1) is not None
    assert at_equal_loss(plain, sam, 2) is None
    assert at_equal_loss([], sam, 1) is None


def test_unsettled_moments_are_not_compared() -> None:
    for bad in (moment(6, 1.0, converged=False), moment(6, 1.0, proved=False), moment(6, 0.0)):
        assert at_equal_loss([moment(5, 1.0)], [bad], 1) is None


def test_runs_are_compared_at_equal_loss(pair: list[Path]) -> None:
    text = " ".join(one.text for one in versus(*read(pair)))
    assert (
        "Class bee at the end, at about equal loss (class losses 0.6 and 0.6): λmin −6 ± 0.01 with CE + DRW, "
        "−1.8 ± 0.01 with CE + DRW + SAM"
    ) in text
    assert (
        "Class bee at equal class loss (0.333 after epoch 6 with CE + DRW, 0.333 after epoch 6 with CE + DRW + SAM): "
        "λmin −1.67 and −0.5, less negative with SAM."
    ) in text


def test_at_unequal_loss_nothing_is_claimed_of_the_end(make: Make, tmp_path: Path) -> None:
    plain, sam = make(tmp_path / "a"), make(tmp_path / "b", method="ce+drw+sam", strength=0.1)
    content = json.loads((sam / "curvature.json").read_text())
    content["classes"][5]["loss"] = 1.0
    (sam / "curvature.json").write_text(json.dumps(content))
    found = {one.topic + one.tone: one.text for one in versus(*read([plain, sam]))}
    assert "Not at equal loss (class losses 0.6 and 1)" in found["comparisonnote"]
    content["classes"][5] |= {"loss": 0.6, "converged_min": False}
    (sam / "curvature.json").write_text(json.dumps(content))
    found = {one.topic + one.tone: one.text for one in versus(*read([plain, sam]))}
    assert "Not both are settled, so nothing is claimed" in found["comparisonunknown"]


def change(path: Path, **values: Any) -> None:
    file = path / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def pairs_of(make: Make, folder: Path, plain: list[float], sam: list[float]) -> list[RunData]:
    paths = []
    for method, values in (("ce+drw", plain), ("ce+drw+sam", sam)):
        for seed, value in enumerate(values):
            paths.append(make(folder / f"{method}-{seed}", method=method, seed=seed, parts="result"))
            change(paths[-1], tail=value, accuracy=80.0)
    return read(paths)


def test_a_difference_beyond_the_noise_of_seeds_is_stated(make: Make, tmp_path: Path) -> None:
    noise = spread_noise([40.0, 42.0, 44.0], [50.0, 51.0, 52.0])
    assert noise == pytest.approx(2 * math.sqrt(np.var([40, 42, 44], ddof=1) / 3 + np.var([50, 51, 52], ddof=1) / 3))
    tail = gains(pairs_of(make, tmp_path, [40.0, 42.0, 44.0], [50.0, 51.0, 52.0]))[0]
    lead = "SAM on top of CE + DRW lifts the tail: 42.0 % → 51.0 %, +9.0 points"
    assert (tail.tone, tail.text) == ("good", f"{lead} (noise {noise:.1f} points, from the seeds).")


def test_a_difference_within_the_noise_is_none(make: Make, tmp_path: Path) -> None:
    tail = gains(pairs_of(make, tmp_path, [40.0, 50.0], [46.0, 48.0]))[0]
    assert tail.tone == "unknown"
    assert "makes no clear difference on the tail" in tail.text
    worse = gains(pairs_of(make, tmp_path / "worse", [40.0, 41.0], [20.0, 21.0]))[0]
    assert (worse.tone, "lowers the tail" in worse.text) == ("bad", True)


def test_one_seed_has_the_noise_of_the_test_set_or_none(make: Make, tmp_path: Path) -> None:
    tail, whole = gains(pairs_of(make, tmp_path, [40.0], [50.0]))
    assert "how much of it is chance is not known (one seed)" in tail.text
    assert "from the test set alone: one seed shows nothing of seeds" in whole.text
    noise = 200 * math.sqrt(2 * 0.8 * 0.2 / 240)
    assert f"noise {noise:.1f} points" in whole.text


def test_runs_on_other_images_are_not_compared(make: Make, tmp_path: Path) -> None:
    paths = [make(tmp_path / "a"), make(tmp_path / "b", method="ce+drw+sam", draw="bb")]
    assert gains(read(paths)) == []
    assert not [one for one in reading(read(paths)) if one.topic == "comparison"]


def test_what_was_not_measured_is_named(make: Make, tmp_path: Path) -> None:
    found = reading(read([make(tmp_path / "run", parts="result")]))
    assert found[-1] == Sentence("missing", "unknown", "Curvature was not measured, so nothing is said of saddles.")
    assert not [one for one in found if "saddle" in one.text and one.topic != "missing"]


def test_calibration_is_stated(run: RunData) -> None:
    assert run.predictions is not None
    (found,) = overconfidence(run)
    sure = 100 * run.predictions.confidences.mean()
    assert f"{sure:.1f} % sure on average" in found.text
    assert ("surer than it is right" in found.text) == (
        sure > 100 * (run.predictions.labels == run.predictions.predictions).mean() + 1
    )


def test_short_runs_are_said_to_be_no_claim(make: Make, tmp_path: Path) -> None:
    assert (published_epochs("cifar10"), published_epochs("digits"), published_epochs("photos")) == (200, None, None)
    found = [one.text for one in reading(read([make(tmp_path / "run", dataset="cifar10")]))]
    assert any("Trained for 6 epochs, the paper for 200" in text for text in found)
    assert not any("the paper for" in one.text for one in reading(read([make(tmp_path / "other")])))


def test_the_whole_reading_of_a_pair(pair: list[Path]) -> None:
    found = reading(read(pair))
    assert [one.topic for one in found][:2] == ["data", "accuracy"]
    assert found[0].text == "6 classes with 180 training images: 100 of cat, 2 of bee."
    assert {"saddle", "comparison", "gain", "escape", "calibration"} <= {one.topic for one in found}
    assert any("Less than SAM." in one.text for one in found)
    counts = "on a saddle (λmin proved negative and at least 2 % of λmax) are 2 of 2 head classes"
    assert any(counts in one.text for one in found), [one.text for one in found]


def test_no_runs_no_words() -> None:
    assert reading([]) == [Sentence("missing", "unknown", "Curvature was not measured, so nothing is said of saddles.")]


def test_runs_on_other_images_or_another_network_are_not_ranked(make: Make, tmp_path: Path) -> None:
    """The best of those that can be compared, in the sentence and on the tile, though another run has more right."""
    for place, (method, draw, value) in enumerate((("vs", "bb", 99.0), ("ce", "aa", 50.0), ("la", "aa", 60.0))):
        folder = make(tmp_path / f"run{place}", method=method, draw=draw, parts="result")
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(result | {"balanced_accuracy": value, "first_stage": "1111"}))
    runs = read([tmp_path])
    (best,) = [one.text for one in reading(runs) if one.text.startswith("Best of")]
    assert best.startswith("Best of 2 methods by the mean over classes (60.0 %): LA")
    assert ("Best mean over classes", "60.0 %") in [(tile.what, tile.value) for tile in tiles(runs)]
    page = render(runs)
    assert "VS [a] *" in page
    assert "LA [a]<" in page
