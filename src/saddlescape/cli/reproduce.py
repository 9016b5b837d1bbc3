"""``saddlescape reproduce``: a table of the paper as one command, next to the published figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from saddlescape.cli.display import bar, console, reading, say
from saddlescape.cli.grid_bars import GridBars
from saddlescape.errors import InputError, near
from saddlescape.runs.request import GridOptions, Request, Seeds, Whole

if TYPE_CHECKING:
    from saddlescape.runs.grid import FailedRuns

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
    seeds: Seeds | None = None,
    options: Annotated[GridOptions, Parameter(name="*")] = GridOptions(),  # noqa: B008, frozen
    tuned: Path | None = None,
    engine: str | None = None,
    jobs: Whole | None = None,
    threads: Whole | None = None,
    gpus_per_run: float | None = None,
    address: str | None = None,
    dry_run: bool = False,
) -> None:
    """Train every row of a table with every seed, and print it next to the published one. Resumes when run again.

    A run that fails ends no other: the table shows what is there, and one line names what is missing. Unless flags say
    otherwise, runs are as published: imbalance 100 (digits-lt: 50; the large sets as they are), 200 epochs (digits-lt:
    300).

    Example: saddlescape reproduce cifar10-lt --methods ce+drw,ce+drw+sam --seeds 0 1 2 --jobs 2 --out runs/table1

    Args:
        table: cifar10-lt, cifar100-lt, imagenet-lt, inat2018 or digits-lt.
        out: Folder of the grid: one run folder per row and seed, table.md and table.json.
        methods: Rows, joined by commas; paper is the rows of the paper's table, all adds every system and SAM variant.
        seeds: Seeds, e.g. --seeds 0 1 2 (default: 0).
        tuned: A folder of searches (saddlescape tune), one per row: train each row with its best settings.
        engine: serial (one run after the other), processes (several at a time on this machine) or ray (over a Ray
            cluster whose machines share the folder; needs the extra ray). Default: processes where --jobs is more than
            1, else serial.
        jobs: Runs at a time (processes: default one for each core, or four for each GPU; ray: as many as fit).
        threads: CPU threads of each run; its bits depend on them. Default: those of one run alone, divided by --jobs.
        gpus_per_run: With ray: the share of a GPU that each run takes, e.g. 0.25 (default 1).
        address: With ray: where the cluster is, e.g. auto (default: one is started on this machine).
        dry_run: Decide everything, print each row's configuration as TOML, and train nothing.
    """
    from saddlescape.methods.rows import CIFAR_ROWS, LARGE_ROWS, all_rows
    from saddlescape.published import recipes
    from saddlescape.report import table as tables
    from saddlescape.runs.config import to_toml
    from saddlescape.runs.engines.choose import choose
    from saddlescape.runs.grid import FailedRuns, parse_methods, plan_grid, run_grid

    if table not in TABLES:
        raise InputError(f"unknown table {table!r}; {near(table, TABLES)}")
    dataset = TABLES[table]
    large = dataset in ("imagenet-lt", "inat2018")
    drawn = None if large else 100.0  # the large sets are long-tailed as they come
    if methods.strip() == "paper":
        methods = ",".join(LARGE_ROWS if large else CIFAR_ROWS)
    request = Request(data=dataset, **vars(options))
    if options.imbalance is None:
        request = replace(request, imbalance=recipes()[dataset].get("imbalance", drawn))
    rows = parse_methods(methods, all_rows(dataset))
    choice = choose(
        engine, jobs, runs=len(rows) * len(seeds or [0]), device=options.device, threads=threads,
        gpus_per_run=gpus_per_run, address=address,
    )  # fmt: skip
    if dry_run:
        for config in plan_grid(request, rows, seeds or [0], tuned=tuned, threads=choice.threads):
            print(f"# {config.method}, seed {config.seed}\n{to_toml(config)}")
        return
    for note in choice.notes:
        say(note)
    failed: FailedRuns | None = None
    with bar() as progress_bar, reading() as progress:
        try:
            results = run_grid(
                request, rows, seeds or [0], out, tuned=tuned, engine=choice.engine,
                threads=choice.threads, say=say, watch=GridBars(progress_bar), progress=progress,
            )  # fmt: skip
        except FailedRuns as error:
            failed, results = error, error.results
    if results:
        _write(out, tables.build(results, int(recipes()[dataset]["epochs"])), failed)
    if failed is not None:
        raise failed


def _write(out: Path, built: dict[str, Any], failed: FailedRuns | None) -> None:
    """The table in its files and on the terminal; runs that it lacks are named under it."""
    from saddlescape.disk import write_text
    from saddlescape.records import files
    from saddlescape.report import table as tables

    missing = [
        {"method": outcome.job.config.method, "seed": outcome.job.config.seed, "reason": outcome.failed}
        for outcome in (failed.failures if failed is not None else ())
    ]
    files.write_json(out / "table.json", {**built, "failed": missing})
    text = tables.markdown(built)
    if missing:
        names = ", ".join(f"{one['method']} seed {one['seed']}" for one in missing)
        text += f"\nFailed, and left out above: {names}.\n"
    write_text(out / "table.md", text)
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
