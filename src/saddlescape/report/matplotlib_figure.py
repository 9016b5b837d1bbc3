"""The figures as files for a paper: the same numbers as on the page, drawn by matplotlib as PDF, SVG and PNG.

Small serif type, thin lines, vector output with real text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saddlescape.disk import MARK, whole, writing
from saddlescape.errors import MissingExtraError
from saddlescape.report.drawing import (
    HEAT_SCALE,
    MOST_WRITTEN,
    Drawing,
    Figure,
    Heatmap,
    Panel,
    Panels,
    Relief,
    Series,
    Value,
    letters,
    log_ticks,
)
from saddlescape.report.page import study
from saddlescape.report.palette import LIGHT
from saddlescape.report.read import read, studies
from saddlescape.report.text import short

FORMATS = ("pdf", "svg", "png")
# No date and no program's version, so that the same runs give the same bytes.
METADATA: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None, "Producer": None, "Creator": None},
                                       "svg": {"Date": None, "Creator": None}, "png": {"Software": None}}  # fmt: skip
PALE = 0.3  # opacity of what stands for few images
WIDTH = 6.75  # inches: the text width of a NeurIPS page is 5.5, of a two-column page 6.75
STYLE: Any = {
    "font.family": "serif",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e6ec",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "saddlescape",
    "savefig.bbox": "tight",
    "savefig.dpi": 200,
    "mathtext.default": "regular",
    "text.parse_math": False,
}  # text.parse_math: a class called $x$ is shown as it is
LINES = {"solid": "-", "dash": (0, (5, 2)), "dot": (0, (1, 1.5)), "dashdot": (0, (5, 1.5, 1, 1.5))}
MARKERS = {"circle": "o", "diamond": "D", "square": "s", "triangle-up": "^", "cross": "P", "x": "X", "star": "*",
           "hexagon": "h"}  # fmt: skip


def write_figures(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Write every figure of the page as PDF, SVG and PNG into ``folder``.

    Of figures with a list of runs each is written, of those with a list of classes the one that the page opens with.

    Returns:
        The files.

    Raises:
        InputError: as ``read``, or a folder that cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    _figure_class()
    from matplotlib import rc_context

    written: list[Path] = []
    found = studies(read(paths))
    with writing(folder, "choose another --figures"):
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            (folder / MARK).touch()
    with rc_context(dict(STYLE)):
        for index, runs in enumerate(found):
            key = f"s{index + 1}"
            for figure in study(runs, key).figures:
                base = figure.key.removeprefix(f"{key}-") if len(found) == 1 else figure.key
                for name, drawing in _chosen(figure):
                    written += _save(draw(drawing), folder, base + (f"-{_file(name)}" if name else ""))
    return written


def _chosen(figure: Figure) -> list[tuple[str, Drawing]]:
    if figure.choice == "run" and len(figure.variants) > 1:
        return list(figure.variants)
    name, drawing = figure.variants[figure.start]
    return [(name if figure.choice == "class" else "", drawing)]


def _file(name: str) -> str:
    """A name from data as part of a file's name: letters, digits, + and - alone."""
    return re.sub(r"[^\w+]+", "-", name.replace(" + ", "+")).strip("-")[:60] or "unnamed"


def _save(figure: Any, folder: Path, name: str) -> list[Path]:
    files = [folder / f"{name}.{suffix}" for suffix in FORMATS]
    for file, suffix in zip(files, FORMATS, strict=True):
        with whole(file, "make room or choose another --figures") as temporary:
            figure.savefig(temporary, metadata=METADATA[suffix])
    return files


def _figure_class() -> Any:
    """matplotlib's ``Figure``; no global state, no display.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    chosen = os.environ.pop("MPLBACKEND", None)  # a notebook's, which need not exist here; no backend is used
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("--figures", "report", "matplotlib") from None
    finally:
        if chosen is not None:
            os.environ["MPLBACKEND"] = chosen
    return Figure


def _blank(width: float, height: float) -> Any:
    return _figure_class()(figsize=(width, height), layout="constrained")


def draw(drawing: Drawing) -> Any:
    """The matplotlib figure of any drawing, with every number at its place."""
    if isinstance(drawing, Heatmap):
        return _heatmap(drawing)
    return _relief(drawing) if isinstance(drawing, Relief) else _panels(drawing)


def _array(values: Sequence[Value] | list[list[Value]]) -> np.ndarray:
    return np.array(values, float)  # None becomes nan


def _panels(drawing: Panels) -> Any:
    """One legend for all panels, above them."""
    columns = max(1, min(drawing.columns, len(drawing.panels)))
    rows = -(-len(drawing.panels) // columns)
    figure = _blank(WIDTH, 0.4 + rows * drawing.height / 145)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=drawing.shared_x, sharey=drawing.shared_y)
    handles: dict[str, Any] = {}
    for index, ax in enumerate(axes.flat):
        if index >= len(drawing.panels):
            ax.set_visible(False)
            continue
        _panel(ax, drawing.panels[index], handles, last=index + columns >= len(drawing.panels) or not drawing.shared_x)
    if handles:
        names = [short(name, 40) for name in handles]
        widest = max(map(len, names)) + 7  # letters; the sign and its gap take about seven
        abreast = max(1, min(len(names), 110 // widest))
        figure.legend(list(handles.values()), names, loc="outside upper center", ncols=abreast)
    return figure


def _panel(ax: Any, panel: Panel, handles: dict[str, Any], *, last: bool) -> None:
    ax.set_title(panel.title, loc="left", fontweight="bold")
    ax.margins(y=0.1)  # a point at the end of the axis is drawn whole
    ax.set(xscale=panel.x_scale, yscale=panel.y_scale)
    if panel.shaded:
        ax.axvspan(*panel.shaded, color=LIGHT["negative"], alpha=0.09, linewidth=0)
    for series in panel.series:
        handle = _series(ax, series, panel)
        if series.legend:
            handles.setdefault(series.name, handle)
    for mark in panel.v_marks:
        ax.axvline(mark.at, color=LIGHT[mark.colour], linewidth=0.8, linestyle=LINES["dot"])
        right = panel.right_of(mark)
        ax.annotate(mark.text, (mark.at, 1.0), xycoords=("data", "axes fraction"), xytext=(2 if right else -2, -2),
                    textcoords="offset points", ha="left" if right else "right", va="top", fontsize=6,
                    color=LIGHT[mark.colour])  # fmt: skip
    for mark in panel.h_marks:
        ax.axhline(mark.at, color=LIGHT[mark.colour], linewidth=0.6)
    if panel.x_range:
        ax.set_xlim(*panel.x_range)
    if panel.y_range:
        ax.set_ylim(*panel.y_range)
    if panel.x_title and last:
        ax.set_xlabel(panel.x_title)
    if panel.x_scale == "log":
        _log(ax.xaxis, panel.x_ends)
    if panel.y_scale == "log":
        _log(ax.yaxis, panel.y_ends)
    if panel.percent or panel.y_title:
        ax.set_ylabel(panel.y_title or "%")
    if panel.x_ticks:
        ax.set_xticks(*zip(*panel.x_ticks, strict=True))
        if letters(panel.x_ticks)[1] > 60:
            ax.tick_params(axis="x", rotation=60)
    if panel.y_ticks:
        ax.set_yticks(*zip(*panel.y_ticks, strict=True))


def _log(axis: Any, ends: tuple[float, float]) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    places, names = zip(*log_ticks(ends), strict=True)
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(FixedFormatter(names))
    axis.set_minor_locator(NullLocator())


def _series(ax: Any, series: Series, panel: Panel) -> Any:
    x, y, colour = _array(series.x), _array(series.y), LIGHT[series.colour]
    ends = None if series.low is None or series.high is None else np.stack([_array(series.low), _array(series.high)])
    if series.kind == "bars":
        bars = ax.bar(x, y, width=series.bar_width or 0.8, color=colour, label=series.name)
        for bar, pale in zip(bars, series.faded, strict=False):
            bar.set_alpha(PALE if pale else 1)
        return bars
    if series.kind in ("line", "area"):
        (handle,) = ax.plot(x, y, color=colour, linestyle=LINES[series.dash], linewidth=0.6 * series.width,
                            label=series.name)  # fmt: skip
        if ends is not None:
            ax.fill_between(x, *ends, color=colour, alpha=0.18, linewidth=0)
        if series.kind == "area":
            floor = panel.y_range[0] if panel.y_range else 0.0
            ax.fill_between(x, floor, y, color=colour, alpha=0.22, linewidth=0)
        if series.markers:
            _points(ax, series, x, y, colour)
        return handle
    if ends is not None:
        along, middle = ("xerr", x) if panel.y_ticks else ("yerr", y)
        ax.errorbar(x, y, fmt="none", ecolor=colour, elinewidth=0.8, capsize=1.5, **{along: np.abs(ends - middle)})
    return _points(ax, series, x, y, colour)


def _points(ax: Any, series: Series, x: np.ndarray, y: np.ndarray, colour: str) -> Any:
    """Filled points, and hollow ones where a figure is not settled."""
    hollow = np.array(series.hollow or [False] * len(x), bool)
    handle = None
    for chosen, face in ((~hollow, colour), (hollow, "white")):
        if chosen.any():
            (drawn,) = ax.plot(x[chosen], y[chosen], linestyle="none", marker=MARKERS[series.symbol],
                               markersize=series.size * 0.5, markerfacecolor=face, markeredgecolor=colour,
                               markeredgewidth=0.8, alpha=PALE if any(series.faded) else None)  # fmt: skip
            handle = handle or drawn
    return handle


def _heatmap(drawing: Heatmap) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    side = min(WIDTH, 2.2 + 0.22 * len(drawing.rows))
    figure = _blank(side, 0.86 * side)
    ax = figure.subplots()
    z = _array(drawing.z)
    image = ax.imshow(z, cmap=LinearSegmentedColormap.from_list("heat", HEAT_SCALE), vmin=0, vmax=100, aspect="auto")
    ax.grid(False)
    ax.set_xticks(range(len(drawing.columns)), drawing.columns, rotation=60, ha="right")
    ax.set_yticks(range(len(drawing.rows)), drawing.rows)
    ax.set(xlabel=drawing.x_title, ylabel=drawing.y_title)
    figure.colorbar(image, ax=ax, label="%", shrink=0.8)
    if len(drawing.rows) <= MOST_WRITTEN:
        for (i, j), value in np.ndenumerate(z):
            if value >= 0.5:
                shade = "white" if value > 45 else "black"
                ax.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=6, color=shade)
    return figure


def _relief(drawing: Relief) -> Any:
    from matplotlib.ticker import MaxNLocator

    """Surfaces in a row, and the slice below them."""
    figure = _blank(WIDTH, 1.8 + WIDTH / max(2, len(drawing.names)))
    grid, (low, cut) = figure.add_gridspec(2, len(drawing.names), height_ratios=(3, 1.4)), drawing.ends
    handles: dict[str, Any] = {}
    _panel(figure.add_subplot(grid[1, :]), drawing.slice, handles, last=True)
    figure.legend(handles.values(), [short(name, 40) for name in handles], loc="outside lower center", ncols=2)
    for index, name in enumerate(drawing.names):
        ax = figure.add_subplot(grid[0, index], projection="3d", computed_zorder=False)
        x, y = np.meshgrid(drawing.x[index], drawing.y[index])
        z = _array(drawing.z[index])
        ax.plot_surface(x, y, _cut(z, cut), cmap="viridis", vmin=low, vmax=cut, linewidth=0.1,
                        edgecolor="#ffffff55", rstride=1, cstride=1, antialiased=True)  # fmt: skip
        ax.scatter([0], [0], [drawing.centers[index]], color=LIGHT["negative"], s=14, depthshade=False, zorder=9)
        ax.set_zlim(low, cut)
        ax.set_title(name, fontweight="bold")
        ax.set_xlabel(drawing.x_title, labelpad=-4)
        ax.set_ylabel(drawing.y_title, labelpad=-4)
        ax.set_zlabel("loss", labelpad=7)
        ax.tick_params(pad=-2)
        ax.tick_params(axis="z", pad=5)
        for one in (ax.xaxis, ax.yaxis, ax.zaxis):
            one.set_major_locator(MaxNLocator(5))
            one.set_pane_color((1.0, 1.0, 1.0, 0.0))
        ax.patch.set_visible(False)  # or it would cover the end of its neighbour's label
        ax.set_box_aspect(None, zoom=0.78)
        ax.view_init(elev=28, azim=-48)
    return figure


def _cut(z: np.ndarray, cut: float) -> np.ndarray:
    """``z`` with an even upper edge: points above the cut that border on it lie on it, those beyond are left out."""
    above = np.pad(z > cut, 1, constant_values=True)
    beyond = above[1:-1, 1:-1] & above[:-2, 1:-1] & above[2:, 1:-1] & above[1:-1, :-2] & above[1:-1, 2:]
    return np.where(beyond, np.nan, np.minimum(z, cut))
