"""``digits``: scikit-learn's 1,797 handwritten digits, 8 x 8 grey; the embedded default.

Source: UCI "Optical Recognition of Handwritten Digits" (its test part), as shipped with scikit-learn.
"""

from __future__ import annotations

import numpy as np
import torch

from saddlescape.data.sources.found import Found, SourceRequest
from saddlescape.data.types import ArraySplit, Preprocess

TRAIN_PER_CLASS = 120


def load_digits(request: SourceRequest) -> Found:
    """120 training images of every digit (1,200) and the other 597 for testing: a fixed draw, the same for all seeds.

    Grey levels 0..16 become 0..255 (rounded). Normalisation: mean and std of the 1,200 training images.
    """
    from sklearn.datasets import load_digits as read

    bunch = read()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    generator = np.random.default_rng(0)
    train = np.concatenate(
        [np.sort(generator.permutation(np.flatnonzero(labels == digit))[:TRAIN_PER_CLASS]) for digit in range(10)]
    )
    test = np.setdiff1d(np.arange(len(labels)), train)
    names = [f"digits image {i}" for i in range(len(labels))]
    split = ArraySplit(torch.from_numpy(images), torch.from_numpy(labels), names)
    scaled = images[train] / 255
    return Found(
        name="digits",
        kind="scikit-learn's digits, 8 x 8 grey",
        classes=[str(digit) for digit in range(10)],
        train=split.take(train),
        test=split.take(test),
        preprocess=Preprocess(
            image_size=8, channels=1, mean=(round(float(scaled.mean()), 4),), std=(round(float(scaled.std()), 4),)
        ),
        augment="crop",
        notes=[f"digits: fixed stratified split, {TRAIN_PER_CLASS} training images per class, the other 597 to test"],
    )
