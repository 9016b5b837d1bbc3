"""Make the README's figure and, from the demo, those of docs/.

    python tools/readme_images.py docs/images [runs/demo]

The README's comes from a committed result; the top of the page from a headless Chromium (extra ``browser``), the
spectra from the report's figures.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from saddlescape.report import write_figures, write_page
from saddlescape.report.palette import LIGHT

WIDTH, HEIGHT = 1180, 1000
PAIR = Path(__file__).parents[1] / "benchmarks" / "results" / "cifar10-lt-200-epochs.json"


def pair(images: Path) -> None:
    """Write ``sam_on_the_tail.png``: the accuracy of each class in the two runs of 200 epochs."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    runs = json.loads(PAIR.read_text(encoding="utf-8"))["results"]
    classes, counts = runs[0]["classes"], runs[0]["class_counts"]
    figure, axis = pyplot.subplots(figsize=(9, 3), layout="constrained")
    for place, (run, name) in enumerate(zip(runs, ("SGD", "SAM"), strict=True)):
        label = f"{name}: {run['accuracy'] + 1e-9:.1f} % of all, {run['tail'] + 1e-9:.1f} % of the rarest three"
        xs = [label_of - 0.2 + 0.4 * place for label_of in range(len(classes))]
        axis.bar(xs, run["per_class"], 0.38, label=label, color=LIGHT[f"run{place}"])
    names = [f"{name}\n{count}" for name, count in zip(classes, counts, strict=True)]
    axis.set_xticks(range(len(classes)), names, fontsize=8)
    axis.set(ylabel="test accuracy, %", xlabel="class and training images", ylim=(0, 120), yticks=range(0, 101, 20))
    axis.legend(frameon=False, ncols=2, loc="upper center", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(images / "sam_on_the_tail.png", dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def from_demo(demo: Path, images: Path) -> None:
    """Write ``page.png`` and ``spectra.png`` into ``images`` from the grid folder that the demo left."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("readme_images: no chromium on this machine; install it with the system's package manager")
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
    if len(sys.argv) not in (2, 3):
        sys.exit(f"usage: {sys.argv[0]} IMAGES_FOLDER [DEMO_FOLDER]")
    pair(Path(sys.argv[1]))
    if len(sys.argv) == 3:
        from_demo(Path(sys.argv[2]), Path(sys.argv[1]))
