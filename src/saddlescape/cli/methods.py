"""``saddlescape methods``: everything that --method takes, with its source."""

from __future__ import annotations

from rich.table import Table

from saddlescape.cli.display import console


def methods() -> None:
    """List the terms of a sum, the rows of the paper's tables and the named systems, each with its source.

    Example: saddlescape methods
    """
    from saddlescape.methods.grammar import LEGAL
    from saddlescape.methods.rows import listing

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "kind", "what it is", "source"):
        table.add_column(heading, overflow="fold")
    for line in listing():
        table.add_row(line.name, line.kind, line.text, line.source)
    console.print(table)
    console.print(f"\n--method takes a sum: {LEGAL}.")
