"""The rows of the paper's tables, in its order, and what ``saddlescape methods`` lists."""

from __future__ import annotations

from dataclasses import dataclass

from saddlescape.methods.grammar import OPTIMIZERS, TERMS
from saddlescape.methods.systems import SYSTEMS
from saddlescape.passes import PASSES
from saddlescape.published import optimizers, recipes

CIFAR_ROWS = ("ce", "ce+sam", "ce+drw", "ce+drw+sam", "ldam+drw", "ldam+drw+sam", "vs", "vs+sam")
LARGE_ROWS = ("ce", "ce+drw", "ce+drw+sam", "ldam+drw", "ldam+drw+sam")
PUBLISHED_SYSTEMS = ("crt", "lws", "mislas", "disalign", "dro-lt")  # of the paper's table for the large sets
PAPER = "Rangwani et al., NeurIPS 2022"


@dataclass(frozen=True)
class Line:
    """``passes``: forward and backward passes of a step; a system's are those of its first stage."""

    name: str
    kind: str
    text: str
    source: str
    passes: float


def all_rows(dataset: str) -> tuple[str, ...]:
    """What ``reproduce --methods all`` trains: the rows of the paper's table, then every system and SAM variant.

    Rows whose first stage others share come first, so that a grid trains it once.
    """
    rows = LARGE_ROWS if dataset in ("imagenet-lt", "inat2018") else CIFAR_ROWS
    variants = [f"ce+drw+{word}" for word in OPTIMIZERS if word not in ("sam", "ccsam")]
    return (*rows, *SYSTEMS, "crt+sam", "mislas+sam", "glmc+sam", *variants)


def listing() -> list[Line]:
    """Terms of sums, rows of the paper's tables with their radii, and named systems."""
    lines = [Line(word, term.kind, term.text, term.source, _passes(word)) for word, term in TERMS.items()]
    for row in CIFAR_ROWS:
        source = f"{PAPER}, tables for CIFAR-10/100-LT"
        lines.append(Line(row, "row", _radii(row, ("cifar10", "cifar100")), source, _passes(row.split("+")[-1])))
    for row in LARGE_ROWS:
        text = _radii(row, ("imagenet-lt", "inat2018"))
        source = f"{PAPER}, table for ImageNet-LT and iNaturalist 2018"
        lines.append(Line(row, "row", text, source, _passes(row.split("+")[-1])))
    for name, system in SYSTEMS.items():
        table = f"; in {PAPER}" if name in PUBLISHED_SYSTEMS else ""
        lines.append(Line(name, "system", system.text, system.source + table, system.passes))
    return lines


def _passes(word: str) -> float:
    """Of a step with a term. PartialSAM shows its share again; those of late SAM count where it is on."""
    own = optimizers().get(word, {})
    if own.get("optimizer") == "partial-sam":
        return 1 + float(own["options"]["share"])
    return float(PASSES.get(str(own.get("optimizer")), 1.0))


def _radii(row: str, datasets: tuple[str, str]) -> str:
    if not row.endswith("+sam"):
        return "SGD"
    base = row.removesuffix("+sam")
    parts = []
    for dataset in datasets:
        radius = ", ".join(f"{value:g}" for value in recipes()[dataset]["rho"][base])
        parts.append(f"{dataset} rho {radius}")
    return "; ".join(parts) + (" (ours: the paper's code gives none)" if base == "vs" else "")
