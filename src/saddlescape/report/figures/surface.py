"""A ``Relief`` as a matplotlib figure."""

from __future__ import annotations

from typing import Any

import numpy as np

from saddlescape.report.figures.style import WIDTH, figure_class
from saddlescape.report.palette import LIGHT
from saddlescape.report.panels import Relief


def draw(relief: Relief) -> Any:
    """Surfaces side by side, cut where the page cuts them."""
    figure_type = figure_class()
    from matplotlib.ticker import MaxNLocator

    figure = figure_type(figsize=(WIDTH, 0.2 + WIDTH / max(2, len(relief.names))), layout="constrained")
    for index, name in enumerate(relief.names):
        ax = figure.add_subplot(1, len(relief.names), index + 1, projection="3d", computed_zorder=False)
        x, y = np.meshgrid(relief.x[index], relief.y[index])
        z = np.array([[np.nan if v is None else v for v in row] for row in relief.z[index]], float)
        cut = relief.cuts[index]
        ax.plot_surface(x, y, _cut(z, cut), cmap="viridis", vmin=np.nanmin(z), vmax=cut, linewidth=0.1,
                        edgecolor="#ffffff55", rstride=1, cstride=1, antialiased=True)  # fmt: skip
        ax.scatter([0], [0], [relief.centers[index]], color=LIGHT["negative"], s=14, depthshade=False, zorder=9)
        ax.set_zlim(float(np.nanmin(z)), cut)
        ax.set_title(name, fontweight="bold")
        ax.set_xlabel(relief.x_title, labelpad=-4)
        ax.set_ylabel(relief.y_title, labelpad=-4)
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
