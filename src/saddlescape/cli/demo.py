"""``saddlescape demo``: the question of the paper on a data set that is always there, in under two minutes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from saddlescape.cli.display import console
from saddlescape.runs.request import GridOptions, Seeds, Whole

# Fixed before the numbers were seen: two rows that differ in SAM alone, the recipe of published/recipes.toml.
METHODS = "ce+drw,ce+drw+sam"
SEEDS = [0, 1]
LANCZOS_STEPS = 40  # settle both extreme eigenvalues of every class of this network; 100 cost twice the time


def demo(
    *,
    out: Path = Path("runs/demo"),
    seeds: Seeds | None = None,
    epochs: Whole | None = None,
) -> None:
    """Train ce+drw with and without SAM on long-tailed digits, measure the curvature of each class, make the page.

    Prints the table over the seeds and where the page is; the page needs the extra report.

    Example: saddlescape demo

    Args:
        out: Folder of the grid; run again, it resumes.
        seeds: Seeds of the runs (default: 0 1).
        epochs: Length of each run (default: the recipe's).
    """
    import torch

    from saddlescape.cli.reproduce import reproduce

    console.print("Digits-LT: scikit-learn's 8x8 digits, imbalance 50. The question: does SAM help the tail?")
    reproduce(
        "digits-lt",
        out=out,
        methods=METHODS,
        seeds=seeds or SEEDS,
        options=GridOptions(epochs=epochs, device="cpu", eval_every=50, precision="float32"),
        engine="processes",
        threads=1,  # a run on each core: so small a network gains nothing from a second thread
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measure_and_report(out, [out / f"{method}-seed{(seeds or SEEDS)[0]}" for method in METHODS.split(",")])
    finally:
        torch.set_num_threads(threads)


def measure_and_report(out: Path, runs: list[Path]) -> None:
    """Measure what the page shows of one run of each method, then write it to ``out/report.html``."""
    from saddlescape.cli.curvature import curvature
    from saddlescape.cli.evaluate import evaluate
    from saddlescape.cli.report import report
    from saddlescape.cli.surface import surface
    from saddlescape.runs.request import CurvatureOptions, SurfaceOptions

    if importlib.util.find_spec("plotly") is None:
        console.print("The page with curvature and loss surfaces needs plotly: pip install 'saddlescape[report]'")
        return
    console.print(f"Now the curvature of each class, with and without SAM ({runs[0].name}, {runs[1].name})")
    for run in runs:
        evaluate(run)
        curvature(run, options=CurvatureOptions(lanczos_steps=LANCZOS_STEPS, gauss_newton=False))
        surface(run, options=SurfaceOptions(classes=["head", "tail"], span=0.3, steps=15))
    report(out, out=out / "report.html")
