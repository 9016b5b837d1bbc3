"""What loggers are given: a row of metrics and the curvature of classes as scalars, spectra as histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saddlescape.curvature import Spectrum

BINS = 60
NAMES = {"lambda_min": "lambda_min", "lambda_max": "lambda_max", "nonconvexity": "lambda_ratio"}


@dataclass(frozen=True)
class Histogram:
    """``counts[i]`` eigenvalues, as estimated, lie between ``edges[i]`` and ``edges[i + 1]``; float64 [B], [B + 1]."""

    edges: np.ndarray
    counts: np.ndarray
    total: float  # sum of the eigenvalues: the trace, as estimated
    squares: float

    @property
    def heights(self) -> np.ndarray:
        """log10(1 + counts): nearly all eigenvalues lie at zero, and beside them no other would be seen."""
        return np.asarray(np.log10(1 + self.counts))


def scalars(row: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a metrics row, nested names joined by "/"; lists and missing values are left out."""
    flat: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "epoch":
            flat[prefix + name] = float(value)
    return flat


def scalars_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``{"lambda_min/tail": -3.1, "lambda_max/class 8": ...}`` of rows as in ``curvature-course.jsonl``; without values
    that are missing or infinite."""
    found = {}
    for row in rows:
        for key, shown in NAMES.items():
            value = row.get(key)
            if value is not None and math.isfinite(value):
                found[f"{shown}/{name_of(row)}"] = float(value)
    return found


def name_of(row: Mapping[str, Any]) -> str:
    """``class 8``, ``class 8 ship`` or, of a group, ``tail``: one step of a path, on one line."""
    if row.get("label") is None:
        return str(row["group"])
    number, name = str(row["label"]), str(row["class"])
    shown = "".join(c if c.isprintable() and c not in "/\\" else "_" for c in name)
    return f"class {number}" if name == number else f"class {number} {shown}"


def histogram(spectra: Sequence[Spectrum], bins: int = BINS) -> Histogram:
    """The Lanczos nodes of one spectrum, each with its weight times the number of parameters; of several, the mean.

    About ``bins`` even bins over all nodes; zero is an edge, so that no bin mixes negative with positive ones.
    """
    values, masses = [], []
    for spectrum in spectra:
        probes = len(spectrum.steps_taken)
        for nodes, weights, steps in zip(
            spectrum.ritz_values, spectrum.ritz_weights, spectrum.steps_taken, strict=True
        ):
            values.append(nodes[:steps].double().numpy())
            masses.append(weights[:steps].double().numpy() * spectrum.num_params / probes / len(spectra))
    x, mass = np.concatenate(values), np.concatenate(masses)
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    width = (high - low) / bins or 1.0
    # A hair of a bin, or rounding would add an empty one at either end; what it leaves outside is clipped.
    first, last = math.floor(low / width + 1e-6), math.ceil(high / width - 1e-6)
    edges = width * np.arange(first, max(last, first + 1) + 1)
    counts, _ = np.histogram(np.clip(x, edges[0], edges[-1]), edges, weights=mass)
    return Histogram(edges, counts, float(mass @ x), float(mass @ x**2))
