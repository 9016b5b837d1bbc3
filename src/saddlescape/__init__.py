"""saddlescape: train long-tailed classifiers, see the class-wise loss landscape, and escape its saddle points."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "SAM": "optim",
    "LDAMLoss": "losses",
    "VSLoss": "losses",
    "LogitAdjustedLoss": "losses",
    "BalancedSoftmaxLoss": "losses",
    "FocalLoss": "losses",
    "effective_number_weights": "losses",
    "class_counts": "data",
    "longtail_indices": "data",
    "class_spectra": "curvature",
    "Spectrum": "curvature",
    "LongTailClassifier": "runs.classifier",
    "open_run": "runs.opened",
    "train": "runs.train",
}

__all__ = [
    "SAM",
    "BalancedSoftmaxLoss",
    "FocalLoss",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "LongTailClassifier",
    "Spectrum",
    "VSLoss",
    "__version__",
    "class_counts",
    "class_spectra",
    "effective_number_weights",
    "longtail_indices",
    "open_run",
    "train",
]

if TYPE_CHECKING:
    from saddlescape.curvature import Spectrum, class_spectra
    from saddlescape.data import class_counts, longtail_indices
    from saddlescape.losses import (
        BalancedSoftmaxLoss,
        FocalLoss,
        LDAMLoss,
        LogitAdjustedLoss,
        VSLoss,
        effective_number_weights,
    )
    from saddlescape.optim import SAM
    from saddlescape.runs.classifier import LongTailClassifier
    from saddlescape.runs.opened import open_run
    from saddlescape.runs.train import train


def __getattr__(name: str) -> Any:
    """Import a public name from its room on first use, so that ``import saddlescape`` does not import torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"saddlescape.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'saddlescape' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
