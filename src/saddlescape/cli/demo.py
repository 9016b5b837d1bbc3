"""``saddlescape demo``: the question of the paper on a data set that is always there, in under two minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from saddlescape.cli.display import console
from saddlescape.cli.whole import Whole

# Fixed before the numbers were seen: two rows that differ in SAM alone, the recipe of published/recipes.toml.
METHODS = "ce+drw,ce+drw+sam"
SEEDS = (0, 1, 2)


def demo(
    *,
    out: Path = Path("runs/demo"),
    seeds: Annotated[tuple[Whole, ...], Parameter(consume_multiple=True, negative=())] = SEEDS,
    epochs: Whole | None = None,
) -> None:
    """Train ce+drw with and without SAM on long-tailed digits, several seeds, and print the table.

    Example: saddlescape demo

    Parameters
    ----------
    out:
        Folder of the grid; run again, it resumes.
    seeds:
        Seeds of the runs.
    epochs:
        Length of each run (default: the recipe's).
    """
    from saddlescape.cli.reproduce import reproduce

    console.print("Digits-LT: scikit-learn's 8x8 digits, imbalance 50. The question: does SAM help the tail?")
    reproduce(
        "digits-lt",
        out=out,
        methods=METHODS,
        seeds=list(seeds),
        epochs=epochs,
        device="cpu",
        eval_every=50,
        precision="float32",
    )
