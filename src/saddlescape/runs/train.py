"""``saddlescape.train``: a run from Python, as the command line trains it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from saddlescape.errors import InputError
from saddlescape.methods.resolve import canonical
from saddlescape.runs.config import begun
from saddlescape.runs.execute import execute
from saddlescape.runs.opened import Opened, open_run
from saddlescape.runs.plan import plan
from saddlescape.runs.request import Request


def run_folder(data: str, method: str | None, seed: int | None, default: str = "default") -> Path:
    """Where a run lies unless its folder is named: ``runs/DATA-METHOD-seedS``; ``default`` where no method is."""
    named = canonical(method) if method else default
    return Path("runs") / f"{Path(data).expanduser().resolve().name}-{named}-seed{seed or 0}"


def train(
    data: str | Path,
    *,
    method: str | None = None,
    out: str | Path | None = None,
    say: Callable[[str], None] = print,
    **options: Any,
) -> Opened:
    """Train a run, or resume or only open the one that is there, as ``saddlescape train`` does.

    Args:
        data: A name such as ``cifar10``, or the path of a folder of images, a list, parquet shards or features.
        method: A sum such as ``ldam+drw`` or a named system; None: it follows from the data.
        out: The run folder; None: ``runs/DATA-METHOD-seedS``.
        say: Called with each line on what was decided and why.
        options: The flags of ``saddlescape train`` (``epochs=30``, ``image_size=64``, ``seed=1`` ...).

    Returns:
        The trained run: ``result`` is its ``result.json``, ``predict`` classifies images.

    Raises:
        InputError: anything that cannot be, with how to repair it.
        Interrupted: Ctrl-C; a checkpoint has been written, and the same call resumes.
    """
    known = sorted(set(Request.__dataclass_fields__) - {"data", "method", "processes"})
    if unknown := sorted(set(options) - set(known)):
        raise InputError(f"train: unknown option {unknown[0]!r}; it has {', '.join(known)}")
    request = Request(data=str(data), method=method, **options)
    folder = Path(out) if out is not None else run_folder(request.data, method, request.seed)
    config, dataset, notes = plan(request, begun=begun(folder), folder=folder)
    for note in notes:
        say(note)
    for warning in execute(config, dataset, folder, say=say).get("warnings", []):
        say(f"warning: {warning}")
    return open_run(folder)
