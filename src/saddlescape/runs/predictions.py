"""What a run predicts on its test images, kept for the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from saddlescape.data.types import Dataset, Preprocess
from saddlescape.records.predictions import Predictions, TailErrors
from saddlescape.training.metrics import Scorer

KEPT = 48  # tail images that are wrong most confidently
THUMBNAIL = 96  # pixels a side at most


def keep_predictions(folder: Path, scorer: Scorer, dataset: Dataset, preprocess: Preprocess) -> None:
    """Write both files for the test split, whose images ``scorer`` has seen in order.

    Raises:
        InputError: the folder cannot be written, or an image cannot be read any more.
    """
    labels, predictions = scorer.predicted()
    confidences = np.nan_to_num(torch.cat(scorer.confidences).cpu().numpy().astype(np.float32))  # not finite: 0
    Predictions(labels, predictions, confidences).save(folder)
    tail = np.isin(labels, dataset.groups.get("tail", [])) & (labels != predictions)
    chosen = np.flatnonzero(tail)
    chosen = chosen[np.argsort(-confidences[chosen], kind="stable")][:KEPT]
    names = () if dataset.test.names is None else tuple(str(dataset.test.names[int(at)]) for at in chosen)
    images = _images(dataset, preprocess, chosen)
    TailErrors(images, labels[chosen], predictions[chosen], confidences[chosen], names).save(folder, chosen)


def _images(dataset: Dataset, preprocess: Preprocess, chosen: np.ndarray) -> np.ndarray:
    """uint8 [K, H, W, C] as the network saw them, before normalisation; large ones thinned out."""
    if preprocess.features:
        return np.zeros((len(chosen), 1, 1, 1), np.uint8)
    shown = [dataset.test.pixels(int(at), preprocess) for at in chosen]
    size = preprocess.image_size
    images = torch.stack(shown) if shown else torch.zeros((0, preprocess.channels, size, size), dtype=torch.uint8)
    stride = -(-max(images.shape[2:]) // THUMBNAIL)
    return images[:, :, ::stride, ::stride].permute(0, 2, 3, 1).cpu().numpy()
