"""Calibration, precision and recall, from the predictions that a run kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saddlescape.records.predictions import Predictions

BINS = 15


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
        mean_confidence = np.bincount(which, weights=confidence, minlength=bins) / images
        accuracy = np.bincount(which, weights=correct, minlength=bins) / images
    gap = np.abs(np.nan_to_num(mean_confidence - accuracy)) * images
    error = float(gap.sum() / max(images.sum(), 1))
    return Calibration(np.linspace(0, 1, bins + 1), mean_confidence, accuracy, images, error)


def class_scores(found: Predictions, classes: int) -> np.ndarray:
    """Precision, recall and F1 in percent, float64 [classes, 3], as scikit-learn's with ``zero_division=0``; nan for a
    class without test images."""
    right = np.bincount(found.labels[found.labels == found.predictions], minlength=classes)
    true, taken = (np.bincount(of, minlength=classes) for of in (found.labels, found.predictions))
    parts = [(right, taken), (right, true), (2 * right, true + taken)]
    scores = np.stack([100 * above / np.maximum(below, 1) for above, below in parts], axis=1)
    scores[true == 0] = np.nan
    return scores
