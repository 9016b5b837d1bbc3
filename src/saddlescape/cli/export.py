"""``saddlescape export``: one file that predicts without saddlescape."""

from __future__ import annotations

from pathlib import Path

from saddlescape.cli.display import console


def export(run: Path, /, *, out: Path | None = None, onnx: bool = False) -> None:
    """Write the model as torch.export (.pt2) or ONNX, with preprocessing and class names inside, and check it.

    Example: saddlescape export runs/vs-sam --out model.pt2

    Args:
        run: A run folder.
        out: File to write; the ending decides the format: .pt2 or .onnx (default: model.pt2 in the run folder).
        onnx: Short for --out RUN/model.onnx.
    """
    from saddlescape.errors import InputError, counted
    from saddlescape.runs.export import export as write
    from saddlescape.runs.export import input_of
    from saddlescape.runs.opened import open_run

    if onnx and out is not None:
        raise InputError("--onnx and --out: give one of them; the ending of --out decides the format")
    opened = open_run(run)
    path = out or run / ("model.onnx" if onnx else "model.pt2")
    gap = write(opened, path)
    size = path.stat().st_size / 1e6
    console.print(
        f"{path} ({size:.1f} MB): {input_of(opened)} in, "
        f"probabilities of {counted(len(opened.classes), 'class', 'classes')} out; "
        f"checked against the run, largest difference {gap:.1e}"
    )  # fmt: skip
