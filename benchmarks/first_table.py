"""The first real table: from finished run folders to the result file, the Markdown table and the README's picture.

    python benchmarks/first_table.py GRID [--rho-search FOLDER] --out benchmarks/results/cifar10-lt-20-epochs.json

GRID is the folder of ``saddlescape reproduce`` (or of single ``train`` runs laid out like it). Nothing is trained here.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch

import saddlescape
from saddlescape.methods.rows import CIFAR_ROWS
from saddlescape.published import recipes
from saddlescape.report import table as tables
from saddlescape.runs import config as configuration
from saddlescape.runs.format import read_result

GROUPS = ("head", "mid", "tail")
PLAIN, SAM = "#0072b2", "#d55e00"  # Okabe-Ito blue and vermilion: told apart by every kind of colour vision


def collect(grid: Path) -> list[dict[str, Any]]:
    """Results of the finished runs in ``grid``, in the order of the paper's rows, with what differs from the recipe."""
    results = []
    for method in CIFAR_ROWS:
        for folder in sorted(grid.glob(f"{method}-seed*")):
            result = read_result(folder)
            if result is None:
                continue
            stage = configuration.load(folder).stages[0]
            usual = tuple(recipes()["cifar10"]["rho"].get(method.removesuffix("+sam"), ()))
            settings = [f"rho {stage.rho[0]:g} for {method} ({usual[0]:g})"] if stage.rho and stage.rho != usual else []
            results.append({**result, "settings": settings})
    return results


def picture(built: dict[str, Any], path: Path) -> None:
    """Head, mid and tail accuracy of each loss, without and with SAM; ours filled, published as a black line."""
    rows = {row["method"]: row for row in built["rows"]}
    bases = [method for method in CIFAR_ROWS if not method.endswith("+sam") and method in rows]
    figure, axes = plt.subplots(1, len(bases), figsize=(10, 3.2), sharey=True, layout="constrained")
    for axis, base in zip(axes, bases, strict=True):
        for shift, method, colour in ((-0.2, base, PLAIN), (0.2, f"{base}+sam", SAM)):
            row = rows.get(method)
            if row is None:
                continue
            for position, group in enumerate(GROUPS):
                axis.bar(position + shift, row["last"][group]["mean"], 0.38, color=colour)
                known = row["published"].get(group)
                if known is not None:
                    axis.hlines(known["mean"], position + shift - 0.19, position + shift + 0.19, color="black", lw=1.5)
        axis.set_xticks(range(len(GROUPS)), GROUPS)
        axis.set_title(tables.published_name(base), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("accuracy, percent")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in (PLAIN, SAM)]
    lines = [plt.Line2D([], [], color="black", lw=1.5)]
    labels = ["SGD", "SAM", f"published ({built['published_epochs']} epochs, best epoch)"]
    figure.legend(handles + lines, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(
        f"{tables.DATASETS[built['dataset']]}, ResNet-32, {built['epochs']} epochs, last epoch", fontsize=11
    )
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--rho-search", type=Path, help="folder of the runs in which rho was chosen on validation")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--command", action="append", default=[], help="command that made the runs, kept in the file")
    arguments = parser.parse_args()
    results = collect(arguments.grid)
    built = tables.build(results, int(recipes()["cifar10"]["epochs"]))
    search = []
    for folder in sorted(arguments.rho_search.iterdir()) if arguments.rho_search else []:
        result = read_result(folder)
        if result is not None:
            stage = configuration.load(folder).stages[0]
            chosen = {key: result[key] for key in ("val_accuracy", "val_balanced_accuracy", "epochs", "train_loss")}
            search.append({"method": result["method"], "rho": stage.rho[0], **chosen})
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    kept = {
        "table": built,
        "results": results,
        "rho_search": search,
        "commands": arguments.command,
        "machine": platform.processor() or platform.machine(),
        "cpu": _cpu(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "saddlescape": saddlescape.__version__,
        },
        "commit": commit,
    }
    arguments.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    arguments.out.with_suffix(".md").write_text(tables.markdown(built), encoding="utf-8")
    if arguments.picture:
        picture(built, arguments.picture)
    print(tables.markdown(built))


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


if __name__ == "__main__":
    main()
