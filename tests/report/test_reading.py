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
    changed,
    described,
    gains,
    lead,
    overconfidence,
    published_epochs,
    reading,
    saddles,
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


def test_the_lowest_curvature_is_stated_with_value_error_and_share(run: RunData) -> None:
    assert described(run, row()) == "truck (tail, 50 images) has λmin −3.1 ± 0.01, 4.0 % of λmax, class loss 0.5"
    (found,) = saddles(run)
    assert found.text.startswith(
        "CE + DRW: negative curvature is proved in 2 of 2 head classes, 2 of 2 mid classes and 2 of 2 tail classes; bee"
    )


def test_nothing_is_claimed_that_is_not_proved_or_settled(run: RunData) -> None:
    assert "neither proved nor excluded, λmin −3.1 is not settled" in described(run, row(proved=False))
    unsettled = described(run, row(settled=False))
    assert "has curvature of at least −3.1, 4.0 % of λmax; λmin itself is not settled" in unsettled
    assert "±" not in unsettled
    assert "has no negative curvature: λmin 0.2" in described(run, row(0.2, proved=False))
    assert "neither proved nor excluded" in described(run, row(0.2, proved=False, settled=False))


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


def test_both_ends_are_compared_and_then_moments_of_equal_loss(pair: list[Path]) -> None:
    ends, equal = versus(*read(pair))
    assert (ends.tone, ends.text) == (
        "finding",
        "CE + DRW + SAM makes λmin less negative in 6 and λmax smaller in 0 of 6 classes: λmin to 0.30 of CE + DRW's, "
        "λmax to 1.00. |λmin/λmax| falls (8.2 % → 2.5 %). Class losses: 0.35 → 0.35.",
    )
    assert (equal.tone, equal.text) == (
        "good",
        "bee at equal class loss (0.333 after epoch 6 with CE + DRW, 0.333 after epoch 6 with CE + DRW + SAM): "
        "λmin −1.67 → −0.5, less negative with SAM.",
    )


@pytest.mark.parametrize(("low", "high", "loss", "tone", "words"), [
    (0.35, 0.19, 1.0, "good", "flattens both ends in all 6 classes: λmin to 0.35 of CE + DRW's, λmax to 0.19. "
     "|λmin/λmax| rises (8.2 % → 15.1 %) because λmax falls more. Class losses: 0.35 → 0.35."),
    (0.2, 0.4, 0.5, "finding", "falls (8.2 % → 4.1 %) because λmin falls more. Class losses: 0.35 → 0.175, so part of "
     "this may come from the loss alone."),
    (3.0, 2.0, 1.0, "bad", "sharpens both ends in all 6 classes: λmin to 3.00 of CE + DRW's, λmax to 2.00. |λmin/λmax| "
     "rises (8.2 % → 12.3 %) because λmin grows more."),
    (1.0, 1.0, 1.0, "finding", "leaves both ends as they are in 6 classes (medians): λmin to 1.00"),
    (0.5, 2.0, 1.0, "finding", "makes λmin less negative in 6 and λmax smaller in 0 of 6 classes: λmin to 0.50 of CE + "
     "DRW's, λmax to 2.00. |λmin/λmax| falls (8.2 % → 2.1 %). "),
])  # fmt: skip
def test_why_the_ratio_of_both_ends_moves(
    make: Make, tmp_path: Path, low: float, high: float, loss: float, tone: str, words: str
) -> None:
    plain, sam = make(tmp_path / "a"), make(tmp_path / "b", method="ce+drw+sam")
    content = json.loads((sam / "curvature.json").read_text())
    for each in content["classes"]:
        each["lambda_min"] *= low
        each["lambda_max"] *= high
        each["loss"] *= loss
    (sam / "curvature.json").write_text(json.dumps(content))
    found = versus(*read([plain, sam]))[0]
    assert (found.tone, words in found.text) == (tone, True), found.text


def test_of_several_seeds_one_is_compared(make: Make, tmp_path: Path) -> None:
    for method in ("ce+drw", "ce+drw+sam"):
        for seed in (0, 1):
            make(tmp_path / f"{method}-{seed}", method=method, seed=seed, parts="result curvature")
    assert len([one for one in reading(read([tmp_path])) if one.topic == "saddle"]) == 1


def test_classes_that_are_not_settled_are_not_compared(make: Make, tmp_path: Path) -> None:
    plain, sam = make(tmp_path / "a"), make(tmp_path / "b", method="ce+drw+sam", strength=0.1)
    content = json.loads((sam / "curvature.json").read_text())
    for each in content["classes"]:
        each["converged_min"] = each["label"] == 0
    (sam / "curvature.json").write_text(json.dumps(content))
    assert "makes λmin less negative in 1 and λmax smaller in 0 of 1 class:" in versus(*read([plain, sam]))[0].text
    content["classes"][0]["converged_min"] = False
    (sam / "curvature.json").write_text(json.dumps(content))
    found = versus(*read([plain, sam]))[0]
    assert (found.tone, "so they are not compared" in found.text) == ("unknown", True)


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
    runs = pairs_of(make, tmp_path, [40.0, 42.0, 44.0], [50.0, 51.0, 52.0])
    (tail,) = gains(runs)
    start = "SAM on top of CE + DRW lifts the tail: 42.0 ± 2.0 % → 51.0 ± 1.0 %; head "
    assert (tail.tone, tail.text.startswith(start)) == ("good", True), tail.text
    end = f"all test images 80.0 ± 0.0 % → 80.0 ± 0.0 % (noise of the tail: {noise:.1f} points, from the seeds)."
    assert tail.text.endswith(end)
    assert lead(runs).startswith("With SAM, CE + DRW gains 9.0 points on the tail (42.0 ± 2.0 % → 51.0 ± 1.0 %)")


def test_a_difference_within_the_noise_is_none(make: Make, tmp_path: Path) -> None:
    runs = pairs_of(make, tmp_path, [40.0, 50.0], [46.0, 48.0])
    (tail,) = gains(runs)
    assert tail.tone == "unknown"
    assert "makes no clear difference on the tail" in tail.text
    assert lead(runs).startswith("With SAM, CE + DRW shows no clear change on the tail (45.0 ± 7.1 % → 47.0 ± 1.4 %);")
    worse = pairs_of(make, tmp_path / "worse", [40.0, 41.0], [20.0, 21.0])
    assert (gains(worse)[0].tone, "lowers the tail" in gains(worse)[0].text) == ("bad", True)
    assert "loses 20.0 points on the tail" in lead(worse)


def test_one_seed_has_the_noise_of_the_test_set_or_none(make: Make, tmp_path: Path) -> None:
    runs = pairs_of(make, tmp_path, [40.0], [50.0])
    assert "One seed: how much is chance is unknown" in gains(runs)[0].text
    whole = changed(runs[:1], runs[1:], "accuracy")
    assert whole is not None and whole.noise == pytest.approx(200 * math.sqrt(2 * 0.8 * 0.2 / 240))


def test_the_lead_names_the_classes_that_moved_most(make: Make, tmp_path: Path) -> None:
    runs = pairs_of(make, tmp_path, [40.0], [50.0])
    for run, values in zip(runs, ([90.0, 80, 70, 60, 50, 30], [90.0, 80, 70, 60, 55, 45]), strict=True):
        change(run.path, per_class=values)
    assert "most on bee (+15.0 points) and elk (+5.0 points); all test images: " in lead(read([tmp_path]))


def test_a_class_that_is_lost_is_named_first(make: Make, tmp_path: Path) -> None:
    """By the run's own warnings, or for older files by the same rules."""
    run = make(tmp_path / "run", parts="result")
    change(run, per_class=[90.0, 80.0, 70.0, 60.0, 50.0, 0.0], balanced_accuracy=58.3)
    first = reading(read([run]))[0]
    assert (first.topic, first.tone) == ("failure", "bad")
    assert first.text.startswith("CE + DRW: a class far below the others (70.0 % on average): 'bee' (2 training")
    change(run, warnings=["training was cut short"])
    assert reading(read([run]))[0].text == "CE + DRW: training was cut short."
    alone = lead(read([run]))
    assert alone.startswith("CE + DRW recognises") and "; the lowest is bee with 0.0 % (one seed)." in alone
    assert alone not in [sentence.text for sentence in reading(read([run]))]  # not twice


def test_runs_on_other_images_are_not_compared(make: Make, tmp_path: Path) -> None:
    paths = [make(tmp_path / "a"), make(tmp_path / "b", method="ce+drw+sam", draw="bb")]
    assert gains(read(paths)) == []
    assert not [one for one in reading(read(paths)) if one.topic == "comparison"]


def test_what_was_not_measured_is_named(make: Make, tmp_path: Path) -> None:
    found = reading(read([make(tmp_path / "run", parts="result")]))
    assert found[-1] == Sentence("missing", "unknown", "Curvature was not measured, so no saddle is stated.")
    assert not [one for one in found if "saddle" in one.text and one.topic != "missing"]


def test_calibration_is_stated(run: RunData) -> None:
    assert run.predictions is not None
    (found,) = overconfidence([run])
    sure = 100 * run.predictions.confidences.mean()
    right = 100 * (run.predictions.labels == run.predictions.predictions).mean()
    kind = "overconfident" if sure > right + 1 else "underconfident"
    assert f"CE + DRW is {kind} ({sure:.1f} % confident, {right:.1f} % right, ECE " in found.text
    assert overconfidence([]) == []


def test_short_runs_are_said_to_be_no_claim(make: Make, tmp_path: Path) -> None:
    assert (published_epochs("cifar10"), published_epochs("digits"), published_epochs("photos")) == (200, None, None)
    found = [one.text for one in reading(read([make(tmp_path / "run", dataset="cifar10")]))]
    assert any("Trained for 6 epochs, the paper for 200" in text for text in found)
    assert not any("the paper for" in one.text for one in reading(read([make(tmp_path / "other")])))


def test_the_whole_reading_of_a_pair(pair: list[Path]) -> None:
    found = reading(read(pair))
    assert [one.topic for one in found][:2] == ["accuracy", "accuracy"]
    assert "6 classes with 180 training images: 100 of cat, 2 of bee." in [one.text for one in found]
    assert {"saddle", "comparison", "gain", "escape", "calibration"} <= {one.topic for one in found}
    assert any("Less than SAM." in one.text for one in found)


def test_no_runs_no_words() -> None:
    assert reading([]) == [Sentence("missing", "unknown", "Curvature was not measured, so no saddle is stated.")]


def test_runs_on_other_images_or_another_network_are_not_ranked(make: Make, tmp_path: Path) -> None:
    """The best of those that can be compared, in the sentence and on the tile, though another run has more right."""
    for place, (method, draw, value) in enumerate((("vs", "bb", 99.0), ("ce", "aa", 50.0), ("la", "aa", 60.0))):
        folder = make(tmp_path / f"run{place}", method=method, draw=draw, parts="result")
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(result | {"balanced_accuracy": value, "first_stage": "1111"}))
    runs = read([tmp_path])
    best = lead(runs)
    assert best.startswith("Best of 2 methods by the mean over classes (60.0 %): LA")
    assert ("Best mean over classes", "60.0 %", "LA") in tiles(runs)
    page = render(runs)
    assert "VS [a] *" in page
    assert "LA [a]<" in page
