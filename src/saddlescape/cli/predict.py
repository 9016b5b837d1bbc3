"""``saddlescape predict``: classes and probabilities of images."""

from __future__ import annotations

from pathlib import Path

from saddlescape.cli.display import console, say
from saddlescape.runs.request import Whole


def predict(run: Path, /, *images: Path, top: Whole = 5, json: bool = False) -> None:
    """Print the most probable classes of each image. Exit code 1 where some images cannot be read; they are named.

    Example: saddlescape predict runs/vs-sam photo.jpg

    Parameters
    ----------
    run:
        A run folder.
    images:
        Image files of any size and format.
    top:
        How many classes to print.
    json:
        Print one JSON object a line instead.
    """
    import json as encoder

    from saddlescape.errors import InputError
    from saddlescape.runs.opened import open_run
    from saddlescape.runs.prediction import predict as predict_images

    if not images:
        raise InputError(f"name at least one image: saddlescape predict {run} photo.jpg")
    if top < 1:
        raise InputError(f"--top {top}: at least 1")
    answers = predict_images(open_run(run), images, top)
    bad = [answer for answer in answers if isinstance(answer, InputError)]
    for error in bad[: -1 if len(bad) == len(answers) else None]:
        say(f"saddlescape: {error}")
    for image, ranked in zip(images, answers, strict=True):
        if isinstance(ranked, InputError):
            continue
        if json:
            row = {"image": str(image), "classes": [{"class": name, "probability": p} for name, p in ranked]}
            print(encoder.dumps(row))
        else:
            console.print(f"{image}: " + ", ".join(f"{name} {100 * p:.1f} %" for name, p in ranked))
    if bad:
        raise bad[-1] if len(bad) == len(answers) else SystemExit(1)
