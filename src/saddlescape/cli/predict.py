"""``saddlescape predict``: classes and probabilities of images."""

from __future__ import annotations

from pathlib import Path

from saddlescape.cli.display import console, say
from saddlescape.runs.request import Whole


def predict(run: Path, /, *images: Path, top: Whole = 5, json: bool = False, csv: Path | None = None) -> None:
    """Print the most probable classes of images. Exit code 1 where some cannot be read; they are named.

    Example: saddlescape predict runs/vs-sam photo.jpg folder "more/**/*.png" --csv classes.csv

    Args:
        run: A run folder.
        images: Image files of any size and format, folders of them, patterns in quotes; for a run on features, files of
            them.
        top: How many classes to print.
        json: Print one JSON object a line instead.
        csv: Write a table to this file instead: image, then class and probability from the most probable on.
    """
    import csv as table
    import io
    from json import dumps

    from saddlescape.disk import write_text
    from saddlescape.errors import InputError, counted
    from saddlescape.runs.opened import open_run
    from saddlescape.runs.prediction import predict_files

    if not images:
        raise InputError(f"name at least one image: saddlescape predict {run} photo.jpg")
    if top < 1:
        raise InputError(f"--top {top}: at least 1")
    if csv is not None and csv.is_dir():
        raise InputError(f"--csv {csv} is a folder; give a file such as {csv / 'classes.csv'}")
    opened = open_run(run)
    files, answers = predict_files(opened, images, top)
    bad = [answer for answer in answers if isinstance(answer, InputError)]
    if len(bad) == len(answers):
        for error in bad[:-1]:
            say(f"saddlescape: {error}")
        raise bad[-1]
    for error in bad:
        say(f"saddlescape: {error}")
    good = [(file, answer) for file, answer in zip(files, answers, strict=True) if not isinstance(answer, InputError)]
    if csv is not None:
        text = io.StringIO()
        writer = table.writer(text, lineterminator="\n")
        writer.writerow(["image", *(f"{what}_{rank + 1}" for rank in range(len(good[0][1]))
                                    for what in ("class", "probability"))])  # fmt: skip
        writer.writerows([file, *(cell for name, p in ranked for cell in (name, f"{p:.6g}"))] for file, ranked in good)
        write_text(csv, text.getvalue())
        console.print(f"{counted(len(good), 'image')} -> {csv}")
    for file, ranked in () if csv is not None else good:
        if json:
            classes = [{"class": name, "probability": p} for name, p in ranked]
            print(dumps({"image": file, "classes": classes}))
        else:
            console.print(f"{file}: " + ", ".join(f"{name} {100 * p:.1f} %" for name, p in ranked))
    if bad:
        raise SystemExit(1)
