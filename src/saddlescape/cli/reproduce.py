"""``saddlescape reproduce``: a table of the paper as one command, next to the published figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from saddlescape.cli.display import TrainingBar, bar, console, reading, say
from saddlescape.cli.whole import Whole
from saddlescape.errors import InputError

TABLES = {
    "cifar10-lt": "cifar10",
    "cifar100-lt": "cifar100",
    "imagenet-lt": "imagenet-lt",
    "inat2018": "inat2018",
    "digits-lt": "digits",
}


def reproduce(
    table: str,
    /,
    *,
    out: Path,
    methods: str = "paper",
    seeds: Annotated[list[Whole] | None, Parameter(consume_multiple=True, negative=())] = None,
    imbalance: float | None = None,
    epochs: Whole | None = None,
    rho: float | None = None,
    weight_decay: float | None = None,
    tuned: Path | None = None,
    root: str | None = None,
    val: float = 0.0,
    download: bool = False,
    device: str = "auto",
    precision: str = "auto",
    compile: bool | None = None,
    eval_every: Whole = 1,
    keep_every: Whole = 0,
    dry_run: bool = False,
) -> None:
    """Train every row of a table with every seed, and print it next to the published one. Resumes when run again.

    Example: saddlescape reproduce cifar10-lt --methods ce+drw,ce+drw+sam --seeds 0 1 2 --out runs/table1

    Parameters
    ----------
    table:
        cifar10-lt, cifar100-lt, imagenet-lt, inat2018 or digits-lt.
    out:
        Folder of the grid: one run folder per row and seed, table.md and table.json.
    methods:
        Rows, joined by commas; paper is the rows of the paper's table, all adds every system and SAM variant.
    seeds:
        Seeds, e.g. --seeds 0 1 2 (default: 0).
    imbalance:
        Default 100 (digits-lt: 50), as published.
    epochs:
        Length of every run; default 200 (digits-lt: 300). Milestones stretch.
    rho:
        One radius for every row that has one, instead of the published ones.
    weight_decay:
        Override the published 2e-4.
    tuned:
        A folder of searches (saddlescape tune), one per row: train each row with its best settings.
    root, val, download, device, precision, compile, eval_every, keep_every:
        As for train.
    dry_run:
        Decide everything, print each row's configuration as TOML, and train nothing.
    """
    from saddlescape.methods.rows import CIFAR_ROWS, LARGE_ROWS, all_rows
    from saddlescape.published import recipes
    from saddlescape.report import table as tables
    from saddlescape.runs import format as files
    from saddlescape.runs.config import to_toml
    from saddlescape.runs.grid import parse_methods, plan_grid, run_grid
    from saddlescape.runs.plan import Request

    if table not in TABLES:
        raise InputError(f"unknown table {table!r}; known are {', '.join(TABLES)}")
    dataset = TABLES[table]
    large = dataset in ("imagenet-lt", "inat2018")
    drawn = None if large else 100.0  # the large sets are long-tailed as they come
    if methods.strip() == "paper":
        methods = ",".join(LARGE_ROWS if large else CIFAR_ROWS)
    flags: dict[str, Any] = {"weight_decay": weight_decay}
    request = Request(
        data=dataset, imbalance=imbalance if imbalance is not None else recipes()[dataset].get("imbalance", drawn),
        root=root, val=val, download=download, epochs=epochs, flags=flags, device=device, precision=precision,
        compile=compile, eval_every=eval_every, keep_every=keep_every,
    )  # fmt: skip
    if dry_run:
        for config in plan_grid(
            request, parse_methods(methods, all_rows(dataset)), seeds or [0], radius=rho, tuned=tuned
        ):
            print(f"# {config.method}, seed {config.seed}\n{to_toml(config)}")
        return
    with bar() as progress_bar, reading() as progress:
        results = run_grid(
            request, parse_methods(methods, all_rows(dataset)), seeds or [0], out, radius=rho, tuned=tuned, say=say,
            progress=progress,
            watchers=lambda label, stage, start: [TrainingBar(progress_bar, stage, start, label)],
        )  # fmt: skip
    built = tables.build(results, int(recipes()[dataset]["epochs"]))
    files.write_json(out / "table.json", built)
    files.write_atomic(out / "table.md", tables.markdown(built))
    show(built)
    console.print(f"-> {out / 'table.md'}, {out / 'table.json'}")


def show(built: dict[str, Any]) -> None:
    """The table on the terminal, caption below."""
    from saddlescape.report import table as tables

    shown = Table(box=None, pad_edge=False)
    headings = tables.columns()
    rows = [tables.cells(row) for row in built["rows"]]
    keep = [i for i in range(len(headings)) if i < 2 or any(row[i] not in ("-", "n/a") for row in rows)]
    for i in keep:
        shown.add_column(headings[i], justify="left" if i == 0 else "right")
    for row in rows:
        shown.add_row(*(row[i] for i in keep))
    console.print(shown)
    console.print(tables.caption(built))
