"""From files on disk to what a person reads. Imports no torch; plotly and matplotlib only when they draw."""

from __future__ import annotations

from saddlescape.report.matplotlib_figure import write_figures
from saddlescape.report.page import write_page

__all__ = ["write_figures", "write_page"]
