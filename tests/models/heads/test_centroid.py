from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from saddlescape.errors import InputError
from saddlescape.models import CentroidHead

LABELS = torch.tensor([0] * 9 + [1] * 4 + [2] * 6 + [3])  # class 3 has one image


def points(rows: int, seed: int) -> Tensor:
    return 2 + torch.randn(rows, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def transformed(h: np.ndarray, mode: str, mean: np.ndarray) -> np.ndarray:
    rows = []
    for row in h:
        if mode == "cl2n":
            row = row - mean
        rows.append(row if mode == "raw" else row / np.sqrt((row**2).sum()))
    return np.array(rows)


@pytest.mark.parametrize("mode", ["cl2n", "l2n", "raw"])
def test_against_numpy_and_scikit_learn(mode: str) -> None:
    train, test = points(20, 0), points(50, 1)
    head = CentroidHead(5, 4).double()
    head.set_mode(mode)  # type: ignore[arg-type]
    head.fit(train, LABELS)
    mean = train.numpy().mean(axis=0)
    f, g = (transformed(h.numpy(), mode, mean) for h in (train, test))
    centroids = np.array([f[LABELS.numpy() == c].mean(axis=0) for c in range(4)])
    np.testing.assert_allclose(head.centroids.numpy(), centroids, rtol=1e-12)
    squared = ((g[:, None] - centroids[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(head(test).numpy(), -squared, rtol=1e-9, atol=1e-12)
    expected = NearestCentroid().fit(f, LABELS.numpy()).predict(g)
    np.testing.assert_array_equal(head(test).argmax(dim=1).numpy(), expected)
    assert len(set(expected)) > 1


def test_the_default_is_cl2n_and_the_mode_travels_in_the_state_dict() -> None:
    head = CentroidHead(5, 4)
    assert head.mode == "cl2n"
    assert not list(head.parameters())
    for mode in ("raw", "l2n", "cl2n"):
        head.set_mode(mode)  # type: ignore[arg-type]
        head.fit(points(20, 0).float(), LABELS)
        other = CentroidHead(5, 4)
        other.load_state_dict(head.state_dict())
        assert other.mode == mode
        assert torch.equal(other(points(9, 2).float()), head(points(9, 2).float()))


def test_a_class_without_images_is_never_predicted() -> None:
    head = CentroidHead(5, 6).double()
    head.fit(points(20, 0), LABELS)  # none of 4 and 5
    z = head(points(500, 1))
    assert torch.equal(z[:, 4:], torch.full((500, 2), -torch.inf).double())
    assert z.argmax(dim=1).max() < 4
    probabilities = z.softmax(dim=1)
    assert torch.isfinite(probabilities).all()
    assert probabilities[:, 4:].max() == 0


def test_a_feature_on_the_mean_stays_zero() -> None:
    head = CentroidHead(2, 2)
    head.fit(torch.tensor([[1.0, 0.0], [1.0, 2.0], [1.0, 1.0]]), torch.tensor([0, 1, 1]))
    z = head(torch.tensor([[1.0, 1.0]]))  # the mean itself: f = 0, centroids (0, -1) and (0, 1/2)
    torch.testing.assert_close(z, torch.tensor([[-1.0, -0.25]]))


def test_autocast_and_half_precision_leave_the_distances_in_float32() -> None:
    head = CentroidHead(5, 4)
    head.fit(points(20, 0).half(), LABELS)
    h = points(7, 1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = head(h)
    assert z.dtype == torch.float32
    assert torch.equal(z, head(h.float()))


def test_far_from_the_origin_sums_keep_their_digits() -> None:
    head = CentroidHead(5, 4)
    far = points(20, 0) + 1e4
    head.fit(far.float(), LABELS)
    exact = CentroidHead(5, 4).double()
    exact.fit(far.float().double(), LABELS)
    torch.testing.assert_close(head.centroids.double(), exact.centroids, rtol=1e-6, atol=1e-7)


def test_mistakes_are_one_line() -> None:
    head = CentroidHead(5, 4)
    with pytest.raises(InputError, match="mode is 'cosine'; it must be one of cl2n, l2n, raw"):
        head.set_mode("cosine")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"\[N, 5\] and \[N\], got \[20, 6\] and \[20\]"):
        head.fit(torch.zeros(20, 6), LABELS)
    with pytest.raises(InputError, match="no images"):
        head.fit(torch.zeros(0, 5), LABELS[:0])
    with pytest.raises(InputError, match=r"from 0 to 4, outside 0\.\.3"):
        head.fit(torch.zeros(2, 5), torch.tensor([0, 4]))
    with pytest.raises(InputError, match=r"features\[1\] is not finite"):
        head.fit(torch.tensor([[0.0] * 5, [float("nan")] * 5]), torch.tensor([0, 1]))
