"""Make the README's pictures from the demo: ``python tools/readme_pictures.py runs/demo docs/images``.

The top of the page comes from a headless Chromium (extra ``browser``), the spectra from the report's figures.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from saddlescape.report import write_figures, write_page

WIDTH, HEIGHT = 1180, 1000


def main(demo: Path, images: Path) -> None:
    """Write ``page.png`` and ``spectra.png`` into ``images`` from the grid folder that the demo left."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("readme_pictures: no chromium on this machine; install it with the system's package manager")
    with tempfile.TemporaryDirectory() as scratch:
        page_path = Path(scratch) / "report.html"
        write_page([demo], page_path)
        write_figures([demo], Path(scratch) / "figures")
        shutil.copyfile(Path(scratch) / "figures" / "spectra.png", images / "spectra.png")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.goto(page_path.resolve().as_uri())
            page.wait_for_timeout(4000)
            page.screenshot(path=images / "page.png")
            browser.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} DEMO_FOLDER IMAGES_FOLDER")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
