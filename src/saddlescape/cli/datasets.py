"""``saddlescape datasets``: what can be trained on, and a check of a copy before a long run."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

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
    from saddlescape.names import SOURCES, TAKES

    for name, (_, line) in SOURCES.items():
        console.print(f"{name:12} {line}")
    console.print(f"or a path: {TAKES}")


@datasets.command
def check(data: str, /, *, root: str | None = None, json: Path | None = None, workers: int | None = None) -> None:
    """Say what was understood of some data: classes, counts, splits, files that cannot be read, duplicates.

    Every image is decoded once, so that a long run does not end at a damaged file. Exit code 2 where files are
    damaged or missing, a class is empty, the counts of a published set are not the published ones, or images of your
    own are in training and in another split, or have different labels.

    Example: saddlescape datasets check photos/

    Args:
        data: A name or a path, as for train.
        root: Folder with the data; default $SADDLESCAPE_DATA, then the user cache.
        json: Also write everything that was found to this file.
        workers: Threads that read images; default one a core.
    """
    from saddlescape.data import check as check_data
    from saddlescape.errors import InputError
    from saddlescape.records.files import write_json

    with reading() as progress:
        report = check_data(data, root=root, workers=workers, progress=progress)
    for line in report.lines():
        console.print(line)
    if json is not None:
        write_json(json, report.as_json())
    if not report.ok:
        raise InputError(
            f"{data}: {' and '.join(report.wrong())} (listed above); repair that"
            + (", or train with --bad-images skip" if report.unreadable else "")
        )
