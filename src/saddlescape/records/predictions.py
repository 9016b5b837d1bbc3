"""What a run predicted on its test images: ``test_predictions.npz`` and ``tail_errors.npz``.

RUN/test_predictions.npz   format "saddlescape-predictions-1"; labels, predictions, indices int64 [N];
                           confidences float32 [N], the probability of the predicted class
RUN/tail_errors.npz        format "saddlescape-tail-errors-1"; images uint8 [K, H, W, C] (C is 1 or 3), labels,
                           predictions, indices int64 [K], confidences float32 [K], and names str [K] where images
                           have names: images of tail classes that are wrong, the most confident first
RUN/training_samples.npz   format "saddlescape-training-samples-1"; images uint8 [K, H, W, C], labels int64 [K]: a few
                           training images of some classes
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saddlescape import disk
from saddlescape.errors import InputError

PREDICTIONS, PREDICTIONS_FORMAT = "test_predictions.npz", "saddlescape-predictions-1"
TAIL_ERRORS, TAIL_ERRORS_FORMAT = "tail_errors.npz", "saddlescape-tail-errors-1"

SAMPLES, SAMPLES_FORMAT = "training_samples.npz", "saddlescape-training-samples-1"


@dataclass(frozen=True)
class Predictions:
    """``labels``, ``predictions`` int64 [N]; ``confidences`` float [N] in [0, 1]."""

    labels: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray

    def save(self, folder: Path) -> None:
        """Raises InputError where the folder cannot be written."""
        self._write(folder / PREDICTIONS, PREDICTIONS_FORMAT, np.arange(len(self.labels)))

    def _write(self, path: Path, form: str, indices: np.ndarray, **more: np.ndarray) -> None:
        arrays = {"labels": self.labels, "predictions": self.predictions, "indices": indices,
                  "confidences": self.confidences.astype(np.float32), **more}  # fmt: skip
        disk.write_npz(path, form, arrays, compressed=True)


@dataclass(frozen=True)
class TailErrors(Predictions):
    """Of K images of tail classes; ``images`` uint8 [K, H, W, C]; ``names`` K or ()."""

    images: np.ndarray
    names: tuple[str, ...]

    def save(self, folder: Path, indices: np.ndarray) -> None:  # type: ignore[override]
        """``indices`` int64 [K]: positions in the test set. Raises InputError where the folder cannot be written."""
        names = {"names": np.array(self.names, dtype=np.str_)} if self.names else {}
        self._write(folder / TAIL_ERRORS, TAIL_ERRORS_FORMAT, indices, images=self.images, **names)


def read_predictions(path: Path, classes: int) -> Predictions:
    """Raises InputError for a damaged file or labels outside the ``classes``."""
    arrays, _ = disk.read_npz(path, PREDICTIONS_FORMAT)
    return Predictions(*_checked(path, arrays, classes))


def read_tail_errors(path: Path, classes: int) -> TailErrors:
    """Raises InputError as ``read_predictions``, and for images that are not uint8 [K, H, W, 1 or 3]."""
    arrays, _ = disk.read_npz(path, TAIL_ERRORS_FORMAT)
    found = _checked(path, arrays, classes)
    images = _images(path, arrays, len(found[0]))
    names = tuple(str(name) for name in arrays.get("names", np.zeros(0)))
    return TailErrors(*found, images, names if len(names) == len(images) else ())


def read_samples(path: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Training images uint8 [K, H, W, C] and labels int64 [K]. Raises InputError as ``read_tail_errors``."""
    arrays, _ = disk.read_npz(path, SAMPLES_FORMAT)
    labels = arrays.get("labels", np.zeros(0))
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not all(0 <= label < classes for label in labels):
        raise InputError(f"{path.name}: labels must be whole numbers from 0 to {classes - 1}; write it again")
    return _images(path, arrays, len(labels)), labels


def _images(path: Path, arrays: dict[str, np.ndarray], count: int) -> np.ndarray:
    images = arrays.get("images", np.zeros(0))
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or len(images) != count:
        raise InputError(f"{path.name}: images must be uint8 [K, H, W, 1 or 3], not {images.dtype} {images.shape}")
    return images


def _checked(path: Path, arrays: dict[str, np.ndarray], classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        labels, predictions = arrays["labels"], arrays["predictions"]
        confidences = arrays["confidences"].astype(float)
    except (KeyError, ValueError) as problem:
        raise InputError(f"{path.name} is incomplete: {problem}; delete it and write it again") from None
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
