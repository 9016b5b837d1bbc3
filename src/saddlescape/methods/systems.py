"""Named systems of several stages, by name. A system is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from saddlescape.methods.recipe import Facts, Recipe


@dataclass(frozen=True)
class System:
    """``build(facts, table, epochs) -> Recipe``; ``text`` and ``source`` are what ``saddlescape methods`` prints."""

    text: str
    source: str
    build: Callable[..., Recipe]


SYSTEMS: dict[str, System] = {}


def build_system(name: str, facts: Facts, table: dict[str, object], epochs: int | None) -> Recipe:
    return SYSTEMS[name].build(facts, table, epochs)
