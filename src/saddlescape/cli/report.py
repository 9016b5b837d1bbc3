"""``saddlescape report``: runs and grids as one HTML page, and as figures for a paper."""

from __future__ import annotations

from pathlib import Path

from saddlescape.cli.display import console
from saddlescape.errors import InputError, counted


def report(
    *paths: Path,
    out: Path = Path("report.html"),
    figures: Path | None = None,
    title: str = "",
) -> None:
    """Write one self-contained HTML page about runs: what was trained, what came of it, and where the saddles are.

    It works offline and opens from a file. Everything is read from the run folders; what was not measured is named on
    the page, with the command that measures it.

    Example: saddlescape report runs/ce-drw runs/ce-drw-sam --out report.html

    Example: saddlescape report runs/grid --figures figures

    Args:
        paths: Run folders, and folders of runs (grids).
        out: The page.
        figures: Also write each figure as PDF, SVG and PNG into this folder, in a paper's style.
        title: Headline of the page.
    """
    if not paths:
        raise InputError("give a run folder or a folder of runs: saddlescape report runs/ce-drw")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder: give a file such as {out / 'report.html'}")
    if out.suffix.lower() not in ("", ".html", ".htm"):
        raise InputError(f"--out {out}: the page is HTML; give a file such as {out.with_suffix('.html')}, "
                         "and --figures FOLDER for PDF, SVG and PNG")  # fmt: skip
    from saddlescape.report import write_figures, write_page

    page = write_page(paths, out, title)
    console.print(f"-> {page} ({page.stat().st_size / 1e6:.1f} MB): open it in a browser")
    if figures is not None:
        written = write_figures(paths, figures)
        console.print(f"-> {figures}: {counted(len(written), 'file')}")
