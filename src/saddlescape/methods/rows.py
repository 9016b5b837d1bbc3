"""The rows of the paper's tables, in its order, and what ``saddlescape methods`` lists."""

from __future__ import annotations

from dataclasses import dataclass

from saddlescape.methods.grammar import TERMS
from saddlescape.methods.systems import SYSTEMS
from saddlescape.published import recipes

CIFAR_ROWS = ("ce", "ce+sam", "ce+drw", "ce+drw+sam", "ldam+drw", "ldam+drw+sam", "vs", "vs+sam")
LARGE_ROWS = ("ce", "ce+drw", "ce+drw+sam", "ldam+drw", "ldam+drw+sam")


@dataclass(frozen=True)
class Line:
    name: str
    kind: str
    text: str
    source: str


def listing() -> list[Line]:
    """Terms of sums, rows of the paper's tables with their radii, and named systems."""
    lines = [Line(word, term.kind, term.text, term.source) for word, term in TERMS.items()]
    for row in CIFAR_ROWS:
        lines.append(Line(row, "row", _radii(row), "Rangwani et al., NeurIPS 2022, tables for CIFAR-10/100-LT"))
    return lines + [Line(name, "system", system.text, system.source) for name, system in SYSTEMS.items()]


def _radii(row: str) -> str:
    if not row.endswith("+sam"):
        return "SGD"
    base = row.removesuffix("+sam")
    parts = []
    for dataset in ("cifar10", "cifar100"):
        radius = ", ".join(f"{value:g}" for value in recipes()[dataset]["rho"][base])
        parts.append(f"{dataset} rho {radius}")
    return "; ".join(parts) + (" (ours: the paper's code gives none)" if base == "vs" else "")
