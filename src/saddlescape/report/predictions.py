"""What a run answered on its test images: confusion and calibration, from ``test_predictions.npz``.

RUN/test_predictions.npz   format "saddlescape-predictions-1"; labels, predictions, indices int64 [N];
                           confidences float32 [N], the probability of the predicted class
RUN/tail_errors.npz        format "saddlescape-tail-errors-1"; images uint8 [K, H, W, C] (C is 1 or 3), labels,
                           predictions, indices int64 [K], confidences float32 [K], and names str [K] where images
                           have names: images of tail classes that are wrong, the most confident first
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saddlescape import disk
from saddlescape.errors import InputError

PREDICTIONS, PREDICTIONS_FORMAT = "test_predictions.npz", "saddlescape-predictions-1"
TAIL_ERRORS, TAIL_ERRORS_FORMAT = "tail_errors.npz", "saddlescape-tail-errors-1"
BINS = 15


@dataclass(frozen=True)
class Predictions:
    """``labels``, ``predictions`` int64 [N]; ``confidences`` float64 [N] in [0, 1]."""

    labels: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray


@dataclass(frozen=True)
class TailErrors:
    """``images`` uint8 [K, H, W, C]; ``labels``, ``predictions`` int64 [K]; ``confidences`` [K]; ``names`` K or ()."""

    images: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray
    names: tuple[str, ...]


def read_npz(path: Path, wanted: str, *, in_meta: bool = False) -> dict[str, np.ndarray]:
    """The arrays of a file of ours; nothing in it is executed. ``in_meta``: the format's name is in a JSON ``meta``.

    Raises:
        InputError: unreadable, or of another format.
    """
    arrays = disk.read_npz(path)
    found = str(arrays.pop("meta" if in_meta else "format", ""))
    if wanted not in found:
        raise InputError(f"{path.name} is no file of format {wanted}; delete it and write it again")
    return arrays


def read_predictions(path: Path, classes: int) -> Predictions:
    """Raises InputError for a damaged file or labels outside the ``classes``."""
    arrays = read_npz(path, PREDICTIONS_FORMAT)
    labels, predictions, confidences = _answers(path, arrays, classes)
    return Predictions(labels, predictions, confidences)


def read_tail_errors(path: Path, classes: int) -> TailErrors:
    """Raises InputError as ``read_predictions``, and for images that are not uint8 [K, H, W, 1 or 3]."""
    arrays = read_npz(path, TAIL_ERRORS_FORMAT)
    labels, predictions, confidences = _answers(path, arrays, classes)
    images = arrays.get("images", np.zeros(0))
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or len(images) != len(labels):
        raise InputError(f"{path.name}: images must be uint8 [K, H, W, 1 or 3], not {images.dtype} {images.shape}")
    names = tuple(str(name) for name in arrays.get("names", np.zeros(0)))
    return TailErrors(images, labels, predictions, confidences, names if len(names) == len(labels) else ())


def _answers(path: Path, arrays: dict[str, np.ndarray], classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        labels, predictions = arrays["labels"], arrays["predictions"]
        confidences = arrays["confidences"].astype(float)
    except (KeyError, ValueError) as problem:
        raise InputError(f"{path.name} is not whole: {problem}; delete it and write it again") from None
    if not labels.ndim == 1 or not labels.shape == predictions.shape == confidences.shape:
        raise InputError(f"{path.name}: labels, predictions and confidences differ in length; write it again")
    if labels.dtype.kind not in "iu" or predictions.dtype.kind not in "iu":
        raise InputError(f"{path.name}: labels and predictions must be whole numbers; write it again")
    both = np.concatenate([labels, predictions])
    if len(both) and not (both.min() >= 0 and both.max() < classes):
        raise InputError(f"{path.name} names classes outside 0 to {classes - 1}; it belongs to another run")
    if not np.all((confidences >= 0) & (confidences <= 1 + 1e-6)):
        raise InputError(f"{path.name}: confidences must lie between 0 and 1; write it again")
    return labels.astype(np.int64), predictions.astype(np.int64), confidences


def confusion(found: Predictions, classes: int) -> np.ndarray:
    """Counts int64 [classes, classes]: row true, column predicted."""
    flat = np.bincount(found.labels * classes + found.predictions, minlength=classes * classes)
    return flat.reshape(classes, classes)


@dataclass(frozen=True)
class Calibration:
    """Of equal-width bins (lo, hi]: ``confidence`` and ``accuracy`` are means (nan where empty), ``images`` counts,
    all [bins]; ``error`` is the expected calibration error, all in 0..1."""

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    images: np.ndarray
    error: float


def calibration(found: Predictions, chosen: np.ndarray | None = None, bins: int = BINS) -> Calibration:
    """Reliability of the images where ``chosen`` [N] is true (default: all); bins as in ``training.metrics``."""
    mask = np.ones(len(found.labels), bool) if chosen is None else chosen
    confidence = found.confidences[mask]
    correct = (found.labels == found.predictions)[mask].astype(float)
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    images = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        said = np.bincount(which, weights=confidence, minlength=bins) / images
        right = np.bincount(which, weights=correct, minlength=bins) / images
    gap = np.abs(np.nan_to_num(said - right)) * images
    return Calibration(np.linspace(0, 1, bins + 1), said, right, images, float(gap.sum() / max(images.sum(), 1)))
