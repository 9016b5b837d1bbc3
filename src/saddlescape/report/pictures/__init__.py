"""What each picture shows, from a run's files to numbers; nothing is drawn here."""

from __future__ import annotations

from saddlescape.report.pictures.classes import classes
from saddlescape.report.pictures.confusion import confusion
from saddlescape.report.pictures.course import course
from saddlescape.report.pictures.escape import escape
from saddlescape.report.pictures.extremes import extremes
from saddlescape.report.pictures.gain import gain
from saddlescape.report.pictures.groups import groups
from saddlescape.report.pictures.learning import learning
from saddlescape.report.pictures.reliability import reliability
from saddlescape.report.pictures.spectra import by_class, side_by_side
from saddlescape.report.pictures.surfaces import surfaces

__all__ = [
    "by_class",
    "classes",
    "confusion",
    "course",
    "escape",
    "extremes",
    "gain",
    "groups",
    "learning",
    "reliability",
    "side_by_side",
    "surfaces",
]
