"""The look of figures in a paper: small serif type, thin lines, vector output with real text."""

from __future__ import annotations

import os
from typing import Any

from saddlescape.errors import MissingExtraError

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


def figure_class() -> Any:
    """matplotlib's ``Figure``; no global state, no display. Raises MissingExtraError."""
    chosen = os.environ.pop("MPLBACKEND", None)  # a notebook's, which need not exist here; no backend is used
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("--figures", "report", "matplotlib") from None
    finally:
        if chosen is not None:
            os.environ["MPLBACKEND"] = chosen
    return Figure
