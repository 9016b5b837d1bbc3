"""Runs that an experiment needs: trained by the command line unless they are there, and what their results say."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saddlescape.cli.app import run as saddlescape
from saddlescape.records.files import read_result

FIGURES = ("accuracy", "tail")


def succeed(command: Sequence[str]) -> None:
    """Raises SystemExit with the command where it fails; it has told why."""
    if saddlescape(command):
        raise SystemExit("failed: saddlescape " + " ".join(command))


def finished(folder: Path, command: Sequence[str]) -> dict[str, float]:
    """The figures of the run that ``command`` trains in ``folder``; it is trained (further) if need be."""
    succeed([*command, "--out", str(folder)])
    found = read_result(folder)
    if found is None:
        raise SystemExit(f"{folder} has no result")
    return {name: float(found[name]) for name in FIGURES}


def spread(scores: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """Mean and standard deviation (None of a single one) of each figure."""
    found: dict[str, dict[str, float | None]] = {}
    for name in FIGURES:
        values = [score[name] for score in scores]
        found[name] = {"mean": statistics.mean(values), "std": statistics.stdev(values) if len(values) > 1 else None}
    return found


def cells(row: Mapping[str, Any]) -> list[str]:
    """``spread`` as cells of a table."""
    told = []
    for name in FIGURES:
        mean, std = row[name]["mean"], row[name]["std"]
        told.append(f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.1f}")
    return told
