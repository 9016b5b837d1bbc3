"""What each figure shows, from a run's files to numbers; nothing is drawn here."""

from __future__ import annotations

from saddlescape.report.plots.classes import classes
from saddlescape.report.plots.confusion import confusion
from saddlescape.report.plots.course import course
from saddlescape.report.plots.escape import escape
from saddlescape.report.plots.extremes import extremes
from saddlescape.report.plots.gain import gain
from saddlescape.report.plots.groups import groups
from saddlescape.report.plots.learning import learning
from saddlescape.report.plots.reliability import reliability
from saddlescape.report.plots.spectra import spectra
from saddlescape.report.plots.surfaces import surfaces

__all__ = [
    "classes",
    "confusion",
    "course",
    "escape",
    "extremes",
    "gain",
    "groups",
    "learning",
    "reliability",
    "spectra",
    "surfaces",
]
