"""A ``Heatmap`` as a matplotlib figure."""

from __future__ import annotations

from typing import Any

import numpy as np

from saddlescape.report.figures.style import WIDTH, figure_class
from saddlescape.report.palette import HEAT_LIGHT
from saddlescape.report.panels import Heatmap

MOST_WRITTEN = 12


def draw(heatmap: Heatmap) -> Any:
    """Cells in percent, written out where there are few."""
    figure_type = figure_class()
    from matplotlib.colors import LinearSegmentedColormap

    places = list(zip((0.0, 0.02, 0.15, 0.4, 0.7, 1.0), HEAT_LIGHT, strict=True))
    side = min(WIDTH, 2.2 + 0.22 * len(heatmap.rows))
    figure = figure_type(figsize=(side, 0.86 * side), layout="constrained")
    ax = figure.subplots()
    z = np.array([[np.nan if value is None else value for value in row] for row in heatmap.z], float)
    image = ax.imshow(z, cmap=LinearSegmentedColormap.from_list("heat", places), vmin=0, vmax=100, aspect="auto")
    ax.grid(False)
    ax.set_xticks(range(len(heatmap.columns)), heatmap.columns, rotation=60, ha="right")
    ax.set_yticks(range(len(heatmap.rows)), heatmap.rows)
    ax.set_xlabel(heatmap.x_title)
    ax.set_ylabel(heatmap.y_title)
    figure.colorbar(image, ax=ax, label=heatmap.unit, shrink=0.8)
    if len(heatmap.rows) <= MOST_WRITTEN:
        for (i, j), value in np.ndenumerate(z):
            if value >= 0.5:
                ax.text(
                    j, i, f"{value:.0f}", ha="center", va="center", fontsize=6, color="white" if value > 45 else "black"
                )
    return figure
