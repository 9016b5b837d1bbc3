"""``saddlescape methods``: everything that --method takes, with its source."""

from __future__ import annotations

from rich.table import Table

from saddlescape.cli.display import console


def methods(*, json: bool = False) -> None:
    """List the terms of a sum, the rows of the paper's tables and the named systems, each with its source and cost.

    A pass is one forward and one backward pass over a batch; SGD's step takes one.

    Example: saddlescape methods

    Args:
        json: Print a JSON list instead.
    """
    from dataclasses import asdict
    from json import dumps

    from saddlescape.methods.grammar import LEGAL
    from saddlescape.methods.rows import listing

    if json:
        print(dumps([asdict(line) for line in listing()], indent=1, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "kind", "passes", "what it is", "source"):
        table.add_column(heading, overflow="fold")
    for line in listing():
        table.add_row(line.name, line.kind, f"{line.passes:.3g}", line.text, line.source)
    console.print(table)
    console.print(f"\n--method takes a sum: {LEGAL}.")
