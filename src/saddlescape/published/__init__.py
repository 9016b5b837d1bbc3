"""Published numbers as data: ``recipes.toml`` (how each row is trained), ``fine_tuning.toml`` (pretrained
networks), ``systems.toml`` (named systems), ``results.json`` (what was published)."""

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
def fine_tuning() -> dict[str, Any]:
    """How pretrained networks are trained further."""
    return tomllib.loads(resources.files(__name__).joinpath("fine_tuning.toml").read_text(encoding="utf-8"))


@cache
def systems() -> dict[str, Any]:
    """Numbers of the named systems."""
    return tomllib.loads(resources.files(__name__).joinpath("systems.toml").read_text(encoding="utf-8"))


def system_recipe(
    name: str, dataset: str, imbalance: float, optimizer: str = "sgd", epochs: int | None = None
) -> dict[str, Any]:
    """The numbers of a system on a data set: defaults, then the data set's, its imbalance's, and the optimiser's there.

    Values that are tables are those of data sets, except "first" (changes to the first stage's recipe) and "up_to"
    (changes for runs of at most so many ``epochs``, those of the next greater number); within those of an imbalance,
    of optimisers.
    """
    table = systems().get(name, {})
    here = table.get(dataset, {})
    exact = here.get("imbalance", {}).get(f"{imbalance:.0f}", {})
    merged: dict[str, Any] = {}
    for layer in (table, _short(table, epochs), here, _short(here, epochs), exact, exact.get(optimizer, {})):
        merged |= {key: value for key, value in layer.items() if not isinstance(value, dict)}
        merged["first"] = merged.get("first", {}) | layer.get("first", {})
    return merged


def _short(layer: dict[str, Any], epochs: int | None) -> dict[str, Any]:
    lengths = [int(length) for length in layer.get("up_to", {}) if epochs is not None and epochs <= int(length)]
    return layer["up_to"][str(min(lengths))] if lengths else {}


@cache
def optimizers() -> dict[str, Any]:
    """How the optimisers of sums are set, by word."""
    return tomllib.loads(resources.files(__name__).joinpath("optimizers.toml").read_text(encoding="utf-8"))


def optimizer_recipe(word: str, dataset: str) -> dict[str, Any]:
    """The numbers of an optimiser on a data set: ``optimizer``, ``rho`` or ``over_sam``, ``options``, ``start``."""
    table = optimizers()[word]
    merged: dict[str, Any] = {}
    for layer in (table, table.get(dataset, {})):
        merged |= {key: value for key, value in layer.items() if not isinstance(value, dict)}
        merged["options"] = merged.get("options", {}) | layer.get("options", {})
    return merged


@cache
def results() -> list[dict[str, Any]]:
    """Published figures: rows of dataset, imbalance, method, metric, mean, std."""
    rows: list[dict[str, Any]] = json.loads(
        resources.files(__name__).joinpath("results.json").read_text(encoding="utf-8")
    )
    return rows
