"""What a run predicts on its test images, kept for the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from saddlescape.data.types import Dataset, Preprocess, Split
from saddlescape.disk import write_npz
from saddlescape.records.predictions import SAMPLES, SAMPLES_FORMAT, Predictions, TailErrors
from saddlescape.training.metrics import Scorer

KEPT = 48  # tail images that are wrong most confidently
THUMBNAIL = 96  # pixels a side at most
SAMPLED_CLASSES, SAMPLES_OF_A_CLASS = 12, 3


def keep_predictions(folder: Path, scorer: Scorer, dataset: Dataset, preprocess: Preprocess) -> None:
    """Write what the report shows of the test split, whose images ``scorer`` has seen in order, and of training images.

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
    images = _images(dataset.test, preprocess, chosen)
    TailErrors(labels[chosen], predictions[chosen], confidences[chosen], images, names).save(folder, chosen)
    if not preprocess.features:
        sampled = _sampled(dataset)
        labels = np.asarray(dataset.train.labels)[sampled]
        arrays = {"images": _images(dataset.train, preprocess, sampled), "labels": labels}
        write_npz(folder / SAMPLES, SAMPLES_FORMAT, arrays, compressed=True)


def _sampled(dataset: Dataset) -> np.ndarray:
    """Positions int64 [K] of the first training images of each class; of many classes, of those evenly over the ranks
    of frequency."""
    order = sorted(range(dataset.num_classes), key=lambda c: (-dataset.class_counts[c], c))
    ranks = np.linspace(0, len(order) - 1, min(len(order), SAMPLED_CLASSES)).round().astype(int)
    labels = np.asarray(dataset.train.labels)
    return np.concatenate([np.flatnonzero(labels == order[rank])[:SAMPLES_OF_A_CLASS] for rank in ranks])


def _images(split: Split, preprocess: Preprocess, chosen: np.ndarray) -> np.ndarray:
    """uint8 [K, H, W, C] as the network saw them, before normalisation; large ones thinned out."""
    if preprocess.features:
        return np.zeros((len(chosen), 1, 1, 1), np.uint8)
    shown = [split.pixels(int(at), preprocess) for at in chosen]
    size = preprocess.image_size
    images = torch.stack(shown) if shown else torch.zeros((0, preprocess.channels, size, size), dtype=torch.uint8)
    stride = -(-max(images.shape[2:]) // THUMBNAIL)
    return images[:, :, ::stride, ::stride].permute(0, 2, 3, 1).cpu().numpy()
