"""``saddlescape evaluate``: score a trained run on its test set, or on other images of the same classes."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from saddlescape.cli.display import console, percent, reading, say
from saddlescape.errors import InputError, counted


def evaluate(
    run: Path,
    /,
    *,
    data: str | None = None,
    root: str | None = None,
    split: str = "test",
    post_hoc: float | None = None,
    device: str = "auto",
    out: Path | None = None,
) -> None:
    """Score a run: accuracy, balanced accuracy, calibration error, head/mid/tail; each class's precision, recall, F1.

    On a finished run's own test set this also keeps its answers (test_predictions.npz, tail_errors.npz) for the report.

    Example: saddlescape evaluate runs/vs-sam --post-hoc 1.0

    Args:
        run: A run folder.
        data: Other images of some of the same classes (a name or a path), matched by name. Without a test set of their
            own all are scored. Images that the run was trained on are left out.
        root: Folder with the data, if it has moved.
        split: test, val or train.
        post_hoc: Subtract tau * log(class frequency) from the logits (Menon et al., ICLR 2021); for a model trained
            with ce.
        device: auto, cpu, cuda or cuda:N.
        out: Also write the scores to this JSON file.
    """
    import dataclasses
    import math

    from saddlescape.records import files
    from saddlescape.runs.evaluation import evaluate_run

    if post_hoc is not None and not math.isfinite(post_hoc):
        raise InputError(f"--post-hoc {post_hoc}: tau is a finite number, such as 1.0")
    if out is not None and out.is_dir():
        raise InputError(f"--out {out} is a folder; give a file such as {out / 'scores.json'}")
    with reading() as progress:
        scores, report, dataset = evaluate_run(
            run, data=data, root=root, split=split, post_hoc=post_hoc, device=device, progress=progress,
            say=say,
        )  # fmt: skip
    loss = "n/a" if scores.loss is None else f"{scores.loss:.3f}"
    groups = ", ".join(f"{name} {percent(value)}" for name, value in scores.groups.items())
    console.print(
        f"{run} on {dataset.name} ({split}, {counted(scores.images, 'image')}): "
        f"accuracy {percent(scores.accuracy)} ({groups}), "
        f"balanced {percent(scores.balanced_accuracy)}, calibration error {percent(scores.ece)}, loss {loss}"
    )  # fmt: skip
    if scores.present < dataset.num_classes:
        console.print(f"{scores.present} of {dataset.num_classes} classes have images here")
    if dataset.num_classes <= 100:
        table = Table(box=None, pad_edge=False)
        for heading in ("class", "training images", *report):
            table.add_column(heading, justify="left" if heading == "class" else "right", overflow="fold")
        for name, count, *figures in zip(dataset.classes, dataset.class_counts, *report.values(), strict=True):
            table.add_row(name, str(count), *map(percent, figures))
        console.print(table)
    if out is not None:
        files.write_json(out, dataclasses.asdict(scores) | report | {"classes": dataset.classes, "split": split})
