"""What a run answers on its test images, kept for the report: ``test_predictions.npz`` and ``tail_errors.npz``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from saddlescape.data.reader import pixels
from saddlescape.data.types import ArraySplit, Dataset, Preprocess
from saddlescape.disk import write_npz
from saddlescape.training.metrics import Scorer

PREDICTIONS, PREDICTIONS_FORMAT = "test_predictions.npz", "saddlescape-predictions-1"
TAIL_ERRORS, TAIL_ERRORS_FORMAT = "tail_errors.npz", "saddlescape-tail-errors-1"
KEPT = 48  # tail images that are wrong most confidently
THUMBNAIL = 96  # pixels a side at most


def write_answers(folder: Path, scorer: Scorer, dataset: Dataset, preprocess: Preprocess) -> None:
    """Write both files for the test split, whose images ``scorer`` has seen in order.

    Raises:
        InputError: the folder cannot be written, or an image cannot be read any more.
    """
    labels, predictions = scorer.predicted()
    confidences = np.nan_to_num(torch.cat(scorer.confidences).cpu().numpy().astype(np.float32))  # not finite: 0
    write_npz(
        folder / PREDICTIONS, compressed=True, format=PREDICTIONS_FORMAT, labels=labels, predictions=predictions,
        indices=np.arange(len(labels)), confidences=confidences,
    )  # fmt: skip
    tail = np.isin(labels, dataset.groups.get("tail", [])) & (labels != predictions)
    chosen = np.flatnonzero(tail)
    chosen = chosen[np.argsort(-confidences[chosen], kind="stable")][:KEPT]
    names = dataset.test.names
    write_npz(
        folder / TAIL_ERRORS, compressed=True, format=TAIL_ERRORS_FORMAT,
        images=_pictures(dataset, preprocess, chosen), labels=labels[chosen], predictions=predictions[chosen],
        indices=chosen, confidences=confidences[chosen],
        **({} if names is None else {"names": np.array([str(names[int(at)]) for at in chosen], dtype=np.str_)}),
    )  # fmt: skip


def _pictures(dataset: Dataset, preprocess: Preprocess, chosen: np.ndarray) -> np.ndarray:
    """uint8 [K, H, W, C] as the network saw them, before normalisation; large ones thinned out."""
    split = dataset.test
    if isinstance(split, ArraySplit):
        images = split.images[torch.from_numpy(chosen)]
    else:
        shown = [pixels(preprocess, split.paths[int(at)]) for at in chosen]
        size = preprocess.image_size
        images = torch.stack(shown) if shown else torch.zeros((0, preprocess.channels, size, size), dtype=torch.uint8)
    stride = -(-max(images.shape[2:]) // THUMBNAIL)
    return images[:, :, ::stride, ::stride].permute(0, 2, 3, 1).cpu().numpy()
