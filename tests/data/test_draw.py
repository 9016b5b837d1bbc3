"""Counts and positions against the published vectors, and against a second writing of the reference's algorithm."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from saddlescape.data import class_counts, longtail_indices
from saddlescape.errors import InputError

# Facts computed from the reference's algorithm with NumPy's legacy generator: first 16 hex digits of SHA-256 over all
# kept positions within their class (int64, little-endian), exp profile.
POSITION_HASHES = {
    (10, 10): "2b3a8656bec514c6",
    (10, 50): "7bb90363b243a944",
    (10, 100): "8a54f5b6fa972295",
    (10, 200): "334c2d61143b39bf",
    (100, 10): "5906ba7310b91b5e",
    (100, 50): "1bc82de2629e5cbd",
    (100, 100): "f123ec136d44ab1b",
    (100, 200): "36f76462dfbbe6f4",
}


@pytest.mark.parametrize(("classes", "imbalance"), POSITION_HASHES)
def test_kept_positions_are_the_published_draw(classes: int, imbalance: int) -> None:
    each = 50000 // classes
    # Interleaved labels: position p of class c is image p * C + c.
    labels = np.tile(np.arange(classes), each)
    counts = class_counts(classes, each, imbalance)
    kept = longtail_indices(labels, counts)
    assert (labels[kept] == np.repeat(np.arange(classes), counts)).all()
    positions = (kept - labels[kept]) // classes
    digest = hashlib.sha256(positions.astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == POSITION_HASHES[classes, imbalance]


@pytest.mark.parametrize(
    ("classes", "imbalance", "total", "counts"),
    [
        (10, 10, 20431, [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]),
        (10, 50, 13996, [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100]),
        (10, 100, 12406, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),
        (10, 200, 11203, [5000, 2775, 1540, 854, 474, 263, 146, 81, 45, 25]),
        (100, 10, 19573, [500, 488, 477, 466, 455]),
        (100, 50, 12608, [500, 480, 462, 444, 426]),
        (100, 100, 10847, [500, 477, 455, 434, 415]),
        (100, 200, 9502, [500, 473, 449, 425, 403]),
    ],
)
def test_published_counts(classes: int, imbalance: int, total: int, counts: list[int]) -> None:
    ours = class_counts(classes, 50000 // classes, imbalance)
    assert sum(ours) == total
    assert ours[: len(counts)] == counts


@pytest.mark.parametrize(
    ("classes", "imbalance", "total", "tail"),
    [(10, 10, 27500, 500), (10, 100, 25250, 50), (10, 200, 25125, 25), (100, 50, 25500, 10), (100, 200, 25100, 2)],
)
def test_published_step_profile(classes: int, imbalance: int, total: int, tail: int) -> None:
    ours = class_counts(classes, 50000 // classes, imbalance, "step")
    assert (sum(ours), ours[-1], ours[classes // 2 - 1]) == (total, tail, 50000 // classes)


def test_the_global_generator_gives_the_same_draw_and_is_left_alone() -> None:
    labels = np.random.default_rng(3).integers(0, 4, 200)
    counts = [20, 10, 5, 2]
    np.random.seed(7)  # noqa: NPY002  the reference seeds and uses the global generator
    expected = []
    for c, n in enumerate(counts):
        positions = np.where(labels == c)[0]
        np.random.shuffle(positions)  # noqa: NPY002
        expected += positions[:n].tolist()
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert longtail_indices(torch.from_numpy(labels), counts, seed=7).tolist() == expected
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_small_shapes() -> None:
    assert class_counts(1, 7, 100) == [7]
    assert class_counts(5, 100, 10, "step") == [100, 100, 100, 10, 10]
    assert class_counts(3, 5, 100)[-1] == 0
    assert longtail_indices([0, 1, 0, 1], [1, 0]).shape == (1,)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: class_counts(10, 100, 0.01), "imbalance is 0.01"),
        (lambda: class_counts(10, 100, float("nan")), "finite"),
        (lambda: class_counts(10, 100, 10, "linear"), "exp, step"),
        (lambda: class_counts(0, 100, 10), "at least 1"),
        (lambda: longtail_indices([0, 0, 1], [2, 2]), "class 1 .* 2 wanted, 1 present"),
        (lambda: longtail_indices([0, 0, 5], [2, 1]), "label 5 of image 2"),
        (lambda: longtail_indices([0, -1], [1, 1]), "label -1 of image 1"),
        (lambda: longtail_indices([0.0, 1.0], [1, 1]), "integers"),
        (lambda: longtail_indices([0, 1], [1, 1], seed=-1), "seed is -1"),
        (lambda: longtail_indices([[0, 1]], [1, 1]), "shape"),
        (lambda: longtail_indices([0, 1], [1, -1]), r"counts\[1\] is -1"),
    ],
)
def test_bad_input_is_one_line(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
