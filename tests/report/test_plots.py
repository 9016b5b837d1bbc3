"""What is drawn is what is in the files: in the drawings, in the plotly figures and in the matplotlib ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from saddlescape.density import density
from saddlescape.report import plots
from saddlescape.report.calibration import calibration
from saddlescape.report.drawing import Figure, Heatmap, Panel, Panels, Relief, Series, binned
from saddlescape.report.matplotlib_figure import draw
from saddlescape.report.page import study
from saddlescape.report.palette import DARK, LIGHT
from saddlescape.report.plotly_figure import figure
from saddlescape.report.plots.surfaces import cut
from saddlescape.report.read import RunData, read
from saddlescape.report.select import detailed, pairs

Make = Callable[..., Path]


@pytest.fixture
def runs(pair: list[Path]) -> list[RunData]:
    return read(pair)


def figures(runs: list[RunData]) -> list[Figure]:
    return study(runs, "s1").figures


def only(each: Figure | None, index: int = 0) -> Panels:
    assert each is not None
    drawing = each.variants[index][1]
    assert isinstance(drawing, Panels)
    return drawing


def panel(drawing: Panels, title: str) -> Panel:
    return next(one for one in drawing.panels if one.title.startswith(title))


def series(panel: Panel, name: str) -> Series:
    return next(one for one in panel.series if one.name == name)


def raw(path: Path, name: str) -> Any:
    return json.loads((path / name).read_text())


def test_counts_and_accuracies(runs: list[RunData], pair: list[Path]) -> None:
    drawing = only(plots.classes(runs))
    counts = [y for one in drawing.panels[0].series for y in one.y]
    assert counts == raw(pair[0], "result.json")["class_counts"]
    assert [one.name for one in drawing.panels[0].series] == ["head", "mid", "tail"]
    for run, path in zip(runs, pair, strict=True):
        assert series(drawing.panels[1], run.title).y == raw(path, "result.json")["per_class"]


def test_seeds_are_averaged_with_their_spread(make: Make, tmp_path: Path) -> None:
    paths = [make(tmp_path / str(seed), seed=seed, parts="result") for seed in range(3)]
    values = np.array([raw(path, "result.json")["per_class"] for path in paths])
    drawn = only(plots.classes(read(paths))).panels[1].series[0]
    np.testing.assert_allclose(np.array(drawn.y, float), values.mean(0))
    np.testing.assert_allclose(np.array(drawn.low, float), values.min(0))
    np.testing.assert_allclose(np.array(drawn.high, float), values.max(0))


def test_learning_curves(runs: list[RunData], pair: list[Path]) -> None:
    drawing = only(plots.learning(runs))
    rows = [json.loads(line) for line in (pair[1] / "metrics.jsonl").read_text().splitlines()]
    for name in ("head", "mid", "tail"):
        drawn = series(panel(drawing, name.capitalize()), "CE + DRW + SAM")
        assert (drawn.x, drawn.y) == ([row["epoch"] + 1 for row in rows], [row["test"][name] for row in rows])
    assert series(panel(drawing, "Training loss"), "CE + DRW").y == [2.0 / (e + 1) for e in range(6)]
    marks = [[(mark.at, mark.text) for mark in one.v_marks] for one in drawing.panels]
    assert marks == [[(4, "DRW starts" if at == 3 else "")] for at in range(6)]  # the word once, the line in each panel
    rate, rho = panel(drawing, "Learning rate"), panel(drawing, "SAM's radius rho")
    assert series(rate, "CE + DRW").y == [0.1 / (e + 1) for e in range(6)]
    assert [(one.name, one.y) for one in rho.series] == [("CE + DRW + SAM", [0.5] * 6)]


def test_densities(runs: list[RunData], pair: list[Path]) -> None:
    drawing = only(plots.spectra(runs))
    assert [one.title for one in drawing.panels] == [
        "class cat (head), CE + DRW",
        "class bee (tail), CE + DRW",
        "class cat (head), CE + DRW + SAM",
        "class bee (tail), CE + DRW + SAM",
    ]
    with np.load(pair[1] / "curvature/class_5.npz") as file:
        values, weights = file["ritz_values"], file["ritz_weights"]
    whole, below = drawing.panels[3].series
    low, high = drawing.panels[3].x_range or (0, 0)
    grid = np.array(whole.x, float)
    wanted = density(values, weights, grid=grid, sigma=(high - low) / 400)[1]
    seen = np.array(whole.y, float) > (drawing.panels[3].y_range or (0, 0))[0]
    np.testing.assert_allclose(np.array(whole.y, float)[seen], wanted[seen])
    assert max(x for x in below.x if x is not None) <= 0 < max(x for x in whole.x if x is not None)
    assert drawing.panels[3].shaded == (low, 0.0)
    assert [mark.at for mark in drawing.panels[1].v_marks] == [-6.0]
    assert len({one.x_range for one in drawing.panels} | {one.y_range for one in drawing.panels}) == 2  # all the same


def test_the_spectra_of_each_class_can_be_chosen(runs: list[RunData]) -> None:
    each = plots.spectra(runs)
    assert each is not None
    named = [f"class {name}" for name in ("cat", "dog", "owl", "fox", "elk", "bee")]
    assert [name for name, _ in each.variants] == ["head against tail", *named]
    assert [one.title for one in only(each, 6).panels] == ["CE + DRW", "CE + DRW + SAM"]


def test_extremes(runs: list[RunData], pair: list[Path]) -> None:
    drawing = only(plots.extremes(runs))
    rows = raw(pair[0], "curvature.json")["classes"]
    for title, values in {
        "λmin:": [row["lambda_min"] for row in rows],
        "λmax:": [row["lambda_max"] for row in rows],
        "|λmin/λmax|": [100 * row["nonconvexity"] for row in rows],
        "The class's own loss": [row["loss"] for row in rows],
        "Gauss–Newton": [row["at_lambda_min"]["gauss_newton"] for row in rows],
        "The rest": [row["at_lambda_min"]["residual_part"] for row in rows],
    }.items():
        assert series(panel(drawing, title), "CE + DRW").y == values
    bars = series(panel(drawing, "λmin:"), "CE + DRW")
    np.testing.assert_allclose(np.array(bars.high, float) - np.array(bars.y, float), 0.01)


def test_what_is_not_settled_is_hollow(make: Make, tmp_path: Path) -> None:
    path = make(tmp_path / "run")
    content = raw(path, "curvature.json")
    content["classes"][1]["converged_min"] = False
    content["classes"][2]["negative_curvature_proved"] = False
    (path / "curvature.json").write_text(json.dumps(content))
    drawing = only(plots.extremes(read([path])))
    assert panel(drawing, "λmin:").series[0].hollow == [False, True, True, False, False, False]
    assert panel(drawing, "λmax:").series[0].hollow == [False] * 6
    course = only(plots.course(read([path])))
    assert course.panels[0].series[0].hollow == [False, True, False]
    drawn = figure(drawing)["data"][0]["marker"]["symbol"]
    assert drawn == ["circle", "circle-open", "circle-open", "circle", "circle", "circle"]


def test_course(runs: list[RunData], pair: list[Path]) -> None:
    each = plots.course(runs)
    drawing = only(each)
    lines = [json.loads(line) for line in (pair[1] / "curvature-course.jsonl").read_text().splitlines()][1:]
    tail = [line for line in lines if "label" not in line and line["group"] == "tail"]
    drawn = series(panel(drawing, "λmin"), "tail, CE + DRW + SAM")
    assert (drawn.x, drawn.y) == ([1, 3, 6], [line["lambda_min"] for line in tail])
    assert [mark.at for mark in drawing.panels[0].v_marks] == [4]
    assert each is not None
    assert [name for name, _ in each.variants][1:] == [
        f"class {name}" for name in ("cat", "dog", "owl", "fox", "elk", "bee")
    ]


def test_gain(runs: list[RunData]) -> None:
    each = plots.gain(runs)
    assert each is not None
    assert [name for name, _ in each.variants] == [run.name for run in runs]
    own = only(each, 1).panels[0]
    predicted, measured = own.series[:2]
    assert (measured.name, measured.x, measured.y) == ("bee (tail)", [0.1, 0.5, 1.6], [0.1, 0.5, 1.6])
    assert predicted.y == [0.05, 0.25, 0.8]
    assert measured.hollow == [False, True, True]
    assert [mark.at for mark in own.v_marks] == [0.5]
    assert not only(each, 0).panels[0].v_marks


def test_escape_is_a_mean_over_seeds(runs: list[RunData]) -> None:
    drawn = panel(only(plots.escape(runs)), "Tail").series
    assert [(one.name, one.y, one.low, one.high) for one in drawn] == [
        (arm, [20.5, 21.5, 22.5], [20.0, 21.0, 22.0], [21.0, 22.0, 23.0]) for arm in ("sgd", "sam@0.1")
    ]


def test_confusion_and_calibration(runs: list[RunData]) -> None:
    each = plots.confusion(runs)
    assert each is not None
    heat = each.variants[0][1]
    assert isinstance(heat, Heatmap)
    found = runs[0].predictions
    assert found is not None
    for true in range(6):
        for taken in range(6):
            share = 100 * ((found.labels == true) & (found.predictions == taken)).sum() / 40
            assert heat.z[true][taken] == pytest.approx(share)
    assert heat.words[5][0].startswith("bee predicted as cat: ") and heat.words[5][0].endswith(" of 40 test images")
    drawing = only(plots.reliability(runs))
    assert drawing.panels[0].series[0].faded == [n < 10 for n in calibration(found).images]
    assert figure(drawing)["data"][0]["marker"]["opacity"].count(1) == (calibration(found).images >= 10).sum()
    for one in drawing.panels[1].series[1:]:
        assert one.faded and all(one.faded) == (one.kind == "points")  # no line leads through a bin of few images
    inside = (found.confidences > 14 / 15) & (found.confidences <= 1)
    right = 100 * (found.labels == found.predictions)[inside].mean()
    assert drawing.panels[0].series[0].y[-1] == pytest.approx(right)


def test_surfaces(runs: list[RunData], pair: list[Path]) -> None:
    (each,) = plots.surfaces(runs)
    relief = each.variants[5][1]
    assert isinstance(relief, Relief)
    for index, path in enumerate(pair):
        with np.load(path / "surface-eigen-2d-ce-s0.npz") as file:
            np.testing.assert_array_equal(relief.z[index], file["losses"][5])
    drawn = [trace for trace in figure(relief)["data"] if trace["type"] == "surface"]
    np.testing.assert_allclose(drawn[1]["z"], relief.z[1], rtol=1e-3)
    surface = runs[0].surfaces[5]
    swing = 0.5  # of the line along the most negative direction
    assert cut(surface) >= surface.losses.min() + 1.5 * swing > surface.center
    assert relief.ends == (min(run.surfaces[5].losses.min() for run in runs), max(cut(run.surfaces[5]) for run in runs))
    layout = figure(relief)["layout"]
    assert layout["scene"]["zaxis"]["range"] == layout["scene2"]["zaxis"]["range"]  # one vertical scale
    for one, run in zip(relief.slice.series, runs, strict=True):
        assert (one.x, one.y) == (run.surfaces[5].alphas.tolist(), run.surfaces[5].losses[:, 4].tolist())
    assert each.variants[each.start][0] == "bee"


def test_panels_in_words() -> None:
    lines = [Series("sgd", [1.0, 2, 3], [4.0, 1, 2]), Series("sam", [1.0, 2], [None, 0.5]), Series("-", [1.0], [None])]
    named = Panel("Right", [Series("ce", [0.0, 1.06], [90.0, 12.5], "points")], percent=True,
                  x_ticks=[(0.0, "cat"), (1.0, "bee")])  # fmt: skip
    drawing = Panels([Panel("Loss", lines), named], note="Note.")
    words = "Loss. sgd: 4 at 1 to 2 at 3, lowest 1 at 2; sam: 0.5 at 2. Right. ce: 90 % at cat to 12.5 % at bee."
    assert drawing.text == f"Note. {words}"


def test_every_figure_is_valid_plotly_and_holds_the_numbers_of_its_drawing(runs: list[RunData]) -> None:
    for each in figures(runs):
        for _, drawing in each.variants:
            assert drawing.text
            built = figure(drawing)
            for layout in (built["layout"], built["narrow"]):
                go.Figure(data=built["data"], layout=layout)
            if isinstance(drawing, Panels):
                wanted = [one for panel in drawing.panels for one in panel.series]
                traces = [trace for trace in built["data"] if trace.get("meta") != "band"]
                assert len(traces) == len(wanted)
                for one, trace in zip(wanted, traces, strict=True):
                    ys = np.array([np.nan if v is None else v for v in one.y], float)
                    np.testing.assert_allclose(np.array(trace["y"], float), ys, rtol=6e-4)
                    xs = trace["x"] if "x" in trace else trace["x0"] + trace["dx"] * np.arange(len(one.x))
                    np.testing.assert_allclose(np.array(xs, float), np.array(one.x, float), rtol=1e-4, atol=1e-5)


def test_matplotlib_draws_the_same_numbers(runs: list[RunData]) -> None:
    for each in figures(runs):
        drawing = each.variants[each.start][1]
        axes = draw(drawing).axes
        if isinstance(drawing, Panels):
            for panel_, ax in zip(drawing.panels, axes, strict=False):
                lines = [np.asarray(line.get_ydata(), float) for line in ax.lines]
                bars = [np.array([bar.get_height() for bar in box]) for box in ax.containers if hasattr(box, "patches")]
                for one in panel_.series:
                    values = np.array([np.nan if v is None else v for v in one.y], float)
                    drawn = bars if one.kind == "bars" else lines
                    if one.kind == "points" and one.hollow and any(one.hollow):
                        values = values[~np.array(one.hollow)]
                    assert not len(values) or any(
                        len(line) == len(values) and np.allclose(line, values, equal_nan=True) for line in drawn
                    ), (each.key, panel_.title, one.name)
        elif isinstance(drawing, Heatmap):
            np.testing.assert_allclose(np.asarray(axes[0].images[0].get_array()), np.array(drawing.z, float))


def test_many_classes_are_put_together() -> None:
    found = binned([*range(1000)], 50)
    assert [found[key][0] for key in ("y", "low", "high")] == [9.5, 0, 19]
    assert (len(found["x"]), found["x"][-1]) == (50, 989.5)
    sparse = binned([None, None, 4.0, 6.0], 2)
    assert (sparse["y"], sparse["low"], sparse["high"]) == ([None, 5.0], [None, 4.0], [None, 6.0])


def test_a_thousand_classes_stay_few_points(make: Make, tmp_path: Path) -> None:
    runs = read([make(tmp_path / "run", classes=[f"kind {i}" for i in range(1000)])])
    total = 0
    for each in figures(runs):
        assert len(each.variants) <= 31
        total += len(json.dumps([figure(drawing) for _, drawing in each.variants]))
        for _, drawing in each.variants:
            if isinstance(drawing, Panels):
                assert all(len(one.x) <= 1000 for panel_ in drawing.panels for one in panel_.series)
    assert total < 2_500_000


def test_runs_without_a_measurement_have_no_figure_of_it(make: Make, tmp_path: Path) -> None:
    runs = read([make(tmp_path / "run", parts="result")])
    measured = (plots.spectra, plots.extremes, plots.course, plots.gain, plots.escape,
                plots.confusion, plots.reliability)  # fmt: skip
    assert [plot(runs) for plot in measured] == [None] * len(measured)
    assert plots.surfaces(runs) == []
    assert plots.classes([]) is None
    assert plots.learning([]) is None


def test_selection(make: Make, tmp_path: Path) -> None:
    for method in ("ce", "ce+sam", "ce+drw", "ce+drw+sam", "vs", "vs+sam"):
        for seed in (0, 1):
            parts = "result" if seed == 0 else "result curvature"
            make(tmp_path / f"{method}-{seed}", method=method, seed=seed, parts=parts)
    runs = read([tmp_path])
    assert [run.path.name for run in detailed(runs)] == ["ce-1", "ce+sam-1", "ce+drw-1", "ce+drw+sam-1"]
    wanted = [("ce", "ce+sam"), ("ce+drw", "ce+drw+sam"), ("vs", "vs+sam")]
    assert [(a.method, b.method) for a, b in pairs(runs)][::2] == wanted
    assert all(a.seed == b.seed for a, b in pairs(runs))


def test_no_two_light_colours_are_the_same_so_that_each_has_one_dark_partner() -> None:
    assert len(set(LIGHT.values())) == len(LIGHT)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("name", ["ink", "muted", "head", "mid", "tail", "negative", "run0", "run1"])
def test_colours_stand_out_from_their_paper(name: str) -> None:
    for colours in (LIGHT, DARK):
        a, b = sorted([luminance(colours[name]), luminance(colours["paper"])])
        assert (b + 0.05) / (a + 0.05) >= 3
