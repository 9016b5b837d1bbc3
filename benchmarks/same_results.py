"""Do the same seeds still give the same results? Records what short runs give, and compares with an earlier record.

    python benchmarks/same_results.py before.json                       # at the commit before a change
    python benchmarks/same_results.py after.json --against before.json  # after it; exits 1 on a difference

Everything goes through the command line and is read from the files it writes, so that the script runs unchanged on
either side of a redraw. It records the weights (SHA-256) and scores of every row of ``reproduce --methods all`` and of
every loss, balance and optimiser alone, the table of that grid, a run on image files in a folder of its own split, and
the curvature, rho advice, loss surface and escape of one network. Weights must be equal bit for bit and figures to a
relative 1e-9 on one machine with one thread; ``--only`` takes some sections.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TOLERANCE = 1e-9
TERMS = ("ce+rw", "ce+rs", "ldam", "la", "bs", "focal+drw", "ib", "vs+asam", "ldam+drw+msam", "ce+drw+ccsam")
IGNORED = ("seconds", "version", "device", "images_per_second", "file", "torch", "commit", "path", "share")


def saddlescape(*arguments: str) -> None:
    """Run one command in this process. Raises RuntimeError with what it printed where it fails."""
    from saddlescape.cli import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(list(arguments))
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"saddlescape {' '.join(arguments)}: exit {end.code}\n{said.getvalue()}") from None


def weights(run: Path) -> str:
    """SHA-256 over the names, shapes and bytes of the newest checkpoint's tensors."""
    from safetensors.numpy import load_file

    newest = sorted((run / "checkpoint").rglob("model.safetensors"))[-1]
    digest = hashlib.sha256()
    for name, array in sorted(load_file(newest).items()):
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def outcome(run: Path) -> dict[str, Any]:
    result = json.loads((run / "result.json").read_text())
    keys = ("accuracy", "balanced_accuracy", "ece", "head", "mid", "tail", "per_class", "train_loss", "best_accuracy")
    return {"weights": weights(run), **{key: result.get(key) for key in keys}}


def grid(folder: Path) -> dict[str, Any]:
    table = folder / "grid"
    saddlescape(
        "reproduce", "digits-lt", "--methods", "all", "--epochs", "2", "--seeds", "0", "--precision", "float32",
        "--device", "cpu", "--no-compile", "--out", str(table),
    )  # fmt: skip
    runs = {run.parent.name: outcome(run.parent) for run in sorted(table.glob("*/result.json"))}
    return {"runs": runs, "table": json.loads((table / "table.json").read_text())}


def terms(folder: Path) -> dict[str, Any]:
    found = {}
    for method in TERMS:
        run = folder / method
        saddlescape(
            "train", "digits", "--imbalance", "20", "--method", method, "--epochs", "2", "--precision", "float32",
            "--device", "cpu", "--no-compile", "--out", str(run),
        )  # fmt: skip
        found[method] = outcome(run)
    return found


def images(folder: Path) -> dict[str, Any]:
    """Digits as PNG files of 20 x 20 pixels, with a test folder, so that no rule of splitting matters."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    counts = {0: 60, 1: 30, 2: 12}
    for label, count in counts.items():
        members = np.flatnonzero(digits.target == label)
        for split, chosen in (("train", members[:count]), ("test", members[-20:])):
            place = folder / "photos" / split / f"class{label}"
            place.mkdir(parents=True)
            for number in chosen:
                pixels = (digits.images[number] * 15).astype("uint8")
                Image.fromarray(pixels).resize((20, 20)).save(place / f"{number:04d}.png")
    found = {}
    for augment in ("crop-flip", "randaugment", "none"):
        run = folder / f"run-{augment}"
        saddlescape(
            "train", str(folder / "photos"), "--method", "ce+drw+sam", "--epochs", "2", "--precision", "float32",
            "--device", "cpu", "--no-compile", "--augment", augment, "--out", str(run),
        )  # fmt: skip
        found[augment] = outcome(run)
    return found


def measurements(folder: Path) -> dict[str, Any]:
    run = folder / "measured"
    saddlescape(
        "train", "digits", "--imbalance", "20", "--method", "ldam+drw", "--epochs", "6", "--precision", "float32",
        "--device", "cpu", "--no-compile", "--keep-every", "2", "--out", str(run),
    )  # fmt: skip
    saddlescape("curvature", str(run), "--lanczos-steps", "15", "--groups")
    saddlescape("curvature", str(run), "--classes", "0", "9", "--advise-rho")
    saddlescape("curvature", str(run), "--classes", "0", "9", "--over-training")
    saddlescape("surface", str(run), "--classes", "9", "--steps", "5")
    saddlescape("escape", str(run), "--epochs", "1")
    found: dict[str, Any] = {}
    for path in sorted(run.glob("*.json")):
        found[path.name] = json.loads(path.read_text())
    for path in sorted(run.glob("curvature*.jsonl")):
        found[path.name] = [json.loads(line) for line in path.read_text().splitlines()]
    return found


SECTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "grid": grid,
    "terms": terms,
    "images": images,
    "measurements": measurements,
}


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """(place, plain value) of everything in a JSON tree but what names a time, a machine or a version."""
    if isinstance(value, dict):
        for key, each in value.items():
            if not any(key == name or key.endswith(f"_{name}") for name in IGNORED):
                yield from leaves(each, f"{place}/{key}")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from leaves(each, f"{place}/{number}")
    else:
        yield place, value


def same(old: Any, new: Any) -> bool:
    if isinstance(old, float) and isinstance(new, float | int) and not isinstance(new, bool):
        return math.isclose(old, new, rel_tol=TOLERANCE, abs_tol=1e-12)
    return bool(old == new)


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Figures of ``before`` that ``after`` lacks or has otherwise. What is new in ``after`` is no difference."""
    new = dict(leaves(after))
    lines = []
    for place, value in leaves(before):
        if place not in new:
            lines.append(f"{place}: missing (was {value})")
        elif not same(value, new[place]):
            lines.append(f"{place}: {value} -> {new[place]}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path, help="where to write what the runs gave")
    parser.add_argument("--against", type=Path, help="an earlier record to compare with")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.only:
            folder = Path(scratch) / name
            folder.mkdir()
            found[name] = SECTIONS[name](folder)
            print(f"{name}: done", file=sys.stderr)
    options.record.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    if options.against is None:
        return 0
    before = json.loads(options.against.read_text())
    lines = differences({name: before[name] for name in options.only if name in before}, found)
    print("\n".join(lines[:200]) or f"the same as {options.against}")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
