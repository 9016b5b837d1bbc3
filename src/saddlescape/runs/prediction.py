"""Class probabilities of images, from a trained run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

import torch
from torch import Tensor

from saddlescape.data.reader import pixels
from saddlescape.data.sources.features import read_rows
from saddlescape.data.sources.folder import images_below
from saddlescape.disk import expanded
from saddlescape.errors import InputError
from saddlescape.runs.opened import Opened

BATCH = 64  # images at a time: memory does not grow with their number


@torch.no_grad()
def probabilities(opened: Opened, images: Tensor) -> Tensor:
    """uint8 [N, C, S, S] -> float32 [N, num_classes], in float32 whatever the run was trained in."""
    device = next(opened.model.parameters()).device
    logits = opened.model(opened.preprocess.normalize(images.to(device)))
    return (opened.logit_scale * logits.float()).softmax(dim=1).cpu()


def images_of(names: Sequence[Path]) -> list[Path]:
    """The images that files, folders (at any depth) and patterns such as ``photos/**/*.jpg`` name, in their order.

    Raises:
        InputError: a folder or pattern without an image.
    """
    found: list[Path] = []
    for name in map(expanded, names):
        if os.path.isdir(name):  # noqa: PTH112  pathlib raises for a name that is too long
            below = images_below(name, [])
        elif has_magic(str(name)) and not os.path.exists(name):  # noqa: PTH110
            below = images_of([Path(path) for path in sorted(glob(str(name), recursive=True))])  # noqa: PTH207
        else:
            below = [name]
        if not below:
            raise InputError(f"{name}: no image there; name images, folders of images, or a pattern in quotes")
        found += below
    return found


Answer = list[tuple[str, float]]


def predict(opened: Opened, paths: Sequence[Path], top: int = 5) -> list[Answer | InputError]:
    """For each image the ``top`` classes with their probabilities, best first; the error of one that cannot be read."""
    made: list[Answer | InputError] = []
    for begin in range(0, len(paths), BATCH):
        found = [_pixels(opened, path) for path in paths[begin : begin + BATCH]]
        images = [image for image in found if isinstance(image, Tensor)]
        answers = iter(_best(opened, torch.stack(images), top) if images else ())
        made += [image if isinstance(image, InputError) else next(answers) for image in found]
    return made


def _best(opened: Opened, rows: Tensor, top: int) -> list[Answer]:
    best, order = probabilities(opened, rows).topk(min(top, len(opened.classes)))
    return [
        [(opened.classes[c], p) for c, p in zip(classes, values, strict=True)]
        for classes, values in zip(order.tolist(), best.tolist(), strict=True)
    ]


def predict_files(opened: Opened, names: Sequence[Path], top: int = 5) -> tuple[list[str], list[Answer | InputError]]:
    """``predict`` for what ``images_of`` names; for a run on features every row of the files that are named.

    Returns:
        What each image or row is called, and its answer or error.
    """
    if not opened.preprocess.features:
        files = images_of(names)
        return [str(file) for file in files], predict(opened, files, top)
    called: list[str] = []
    made: list[Answer | InputError] = []
    for path in map(expanded, names):
        try:
            rows = read_rows(path)
            if rows.shape[1] != opened.preprocess.channels:
                raise InputError(f"{path}: {rows.shape[1]} columns, the run takes {opened.preprocess.channels}")
        except InputError as error:
            called, made = [*called, str(path)], [*made, error]
            continue
        called += [f"{path} row {row}" for row in range(len(rows))]
        made += _best(opened, rows, top)
    return called, made


def _pixels(opened: Opened, path: Path) -> Tensor | InputError:
    try:
        return pixels(opened.preprocess, path)
    except InputError as error:
        return error
