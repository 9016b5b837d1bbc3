"""The paper's numbers as data: ``recipes.toml`` (how each row is trained), ``results.json`` (what was published)."""

from __future__ import annotations

import json
import tomllib
from functools import cache
from importlib import resources
from typing import Any


@cache
def recipes() -> dict[str, Any]:
    """Training recipes per data set."""
    return tomllib.loads(resources.files(__name__).joinpath("recipes.toml").read_text(encoding="utf-8"))


@cache
def results() -> list[dict[str, Any]]:
    """Published figures: rows of dataset, imbalance, method, metric, mean, std."""
    rows: list[dict[str, Any]] = json.loads(
        resources.files(__name__).joinpath("results.json").read_text(encoding="utf-8")
    )
    return rows
