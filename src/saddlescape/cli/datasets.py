"""``saddlescape datasets``: what can be trained on, and a check of a copy before a long run."""

from __future__ import annotations

from cyclopts import App
from rich.markup import escape

from saddlescape.cli.display import console, reading

datasets = App(
    name="datasets",
    help="List data sets, or check one before training.\n\nExample: saddlescape datasets check photos/",
    help_format="plaintext",
)


@datasets.default
def list_() -> None:
    """List the names that DATA takes.

    Example: saddlescape datasets
    """
    from saddlescape.data import dataset_names

    console.print("names: " + ", ".join(dataset_names()))
    console.print(escape(
        "or a path: a folder with one folder of images per class (with train/ and val/ or test/, or split for you), "
        'a list file of "path label" lines, or a folder of parquet shards in the Hugging Face layout'
    ))  # fmt: skip


@datasets.command
def check(data: str, /, *, root: str | None = None) -> None:
    """Say what was understood of some data: classes, counts, splits, files that cannot be read, duplicates.

    Example: saddlescape datasets check photos/

    Parameters
    ----------
    data:
        A name or a path, as for train.
    root:
        Folder with the data; default $SADDLESCAPE_DATA, then the user cache.
    """
    from saddlescape.data import check as check_data
    from saddlescape.errors import InputError

    with reading() as progress:
        report = check_data(data, root=root, progress=progress)
    for line in report.lines():
        console.print(escape(line))
    if not report.ok:
        raise InputError(
            f"{data}: {len(report.unreadable)} files cannot be read and {len(report.empty)} classes are empty (listed "
            "above); mend them, or train with --bad-images skip"
        )
