"""PLDA as a head: SciPy's Gaussian densities, scikit-learn's LDA where the two are the same, and what may go wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from scipy.stats import multivariate_normal
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from saddlescape.errors import InputError
from saddlescape.models import CentroidHead, PLDAHead
from saddlescape.models.heads import plda

LABELS = torch.tensor([0] * 30 + [1] * 9 + [2] * 4 + [3] * 2 + [4])  # class 4 has one image
WIDTH, CLASSES = 5, 5


def points(labels: Tensor, seed: int) -> Tensor:
    """Classes around means of their own, in a space that is stretched."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(CLASSES, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(len(labels), WIDTH, dtype=torch.float64, generator=generator)
    return 2 + (means[labels] + noise) * torch.tensor([1.0, 3.0, 0.5, 1.0, 2.0], dtype=torch.float64)


def fitted(labels: Tensor = LABELS, shrinkage: float = 0.1, classes: int = CLASSES) -> tuple[PLDAHead, Tensor]:
    head = PLDAHead(WIDTH, classes).double()
    return head, head.fit(points(labels, 0), labels, shrinkage)


def length_one(h: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return np.array([(row - mean) / np.sqrt(((row - mean) ** 2).sum()) for row in h])


def test_shrinkage_is_chosen_on_every_fifth_image_of_each_class() -> None:
    labels = torch.arange(4).repeat_interleave(torch.tensor([40, 20, 10, 5]))
    noise = torch.randn(len(labels), 60, generator=torch.Generator().manual_seed(1))
    features = noise + 0.3 * torch.randn(4, 60, generator=torch.Generator().manual_seed(2))[labels]
    held = torch.arange(len(labels)) % 5 == 4
    reached = []
    for shrinkage in plda.SHRINKAGES:
        head = PLDAHead(60, 4)
        head.fit(features[~held], labels[~held], shrinkage)
        right = head(features[held]).argmax(dim=1) == labels[held]
        reached.append(sum(float(right[labels[held] == label].float().mean()) for label in range(4)))
    assert len(set(reached)) > 1
    assert PLDAHead(60, 4).choose(features, labels) == plda.SHRINKAGES[reached.index(max(reached))]


@pytest.mark.parametrize("shrinkage", [0.01, 0.1, 1.0])
def test_against_densities_of_scipy(shrinkage: float) -> None:
    head, between = fitted(shrinkage=shrinkage)
    train, test, labels = points(LABELS, 0).numpy(), points(LABELS, 1).numpy(), LABELS.numpy()
    f, g = length_one(train, train.mean(axis=0)), length_one(test, train.mean(axis=0))
    counts = np.bincount(labels)
    means = np.array([f[labels == c].mean(axis=0) for c in range(CLASSES)])
    within = sum(np.outer(row - means[c], row - means[c]) for row, c in zip(f, labels, strict=True))
    within = within / (len(f) - CLASSES)
    covariance = (1 - shrinkage) * within + shrinkage * np.trace(within) / WIDTH * np.eye(WIDTH)
    middle = means.mean(axis=0)
    apart = (means - middle).T @ (means - middle) / (CLASSES - 1)
    # Directions in which classes lie apart, from the generalised problem: T = S Q diag(B) Q' S with Q' S Q = 1.
    values, q = eigh(apart, covariance)
    expected = np.clip(values - np.mean(1 / counts), 0, None)
    np.testing.assert_allclose(between.numpy(), expected[::-1][: CLASSES - 1], rtol=1e-9, atol=1e-12)
    assert (expected > 0).sum() >= 2
    prior = covariance @ q @ np.diag(expected) @ q.T @ covariance
    # Bayes' rule with a mean that is known as well as its images tell: prior N(mu, T), n images of covariance S.
    logits = []
    for c in range(CLASSES):
        gain = prior @ np.linalg.inv(prior + covariance / counts[c])
        centre = middle + gain @ (means[c] - middle)
        logits.append(multivariate_normal(centre, covariance + prior - gain @ prior).logpdf(g))
    wanted = np.stack(logits, axis=1)
    z = head(torch.from_numpy(test)).numpy()
    np.testing.assert_allclose(z - z[:, :1], wanted - wanted[:, :1], rtol=1e-8, atol=1e-8)


def test_with_many_images_of_each_class_it_is_linear_discriminant_analysis() -> None:
    labels = torch.arange(CLASSES).repeat_interleave(2000)
    train, test = points(labels, 0), points(labels, 1)
    head = PLDAHead(WIDTH, CLASSES).double()
    head.fit(train, labels, shrinkage=1e-12)
    mean = train.numpy().mean(axis=0)
    peer = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / CLASSES] * CLASSES)
    peer.fit(length_one(train.numpy(), mean), labels.numpy())
    expected = peer.predict(length_one(test.numpy(), mean))
    assert np.mean(head(test).argmax(dim=1).numpy() == expected) > 0.999
    assert np.mean(expected == labels.numpy()) > 0.5


def test_a_rare_class_is_uncertain_and_drawn_to_the_middle() -> None:
    head, between = fitted()
    first = head.variance[:, 0]
    assert first.diff().gt(0).all() and first[0] < 1.04 and first[4] > 1.3  # from 30 images to one
    flat = between == 0
    assert flat.any() and head.variance[:, flat].eq(1).all() and head.centroids[:, flat].eq(0).all()


def test_the_covariance_of_the_head_helps_the_tail() -> None:
    """Nearest class mean and PLDA on the same features, whose widest direction says nothing about the class."""

    def images(labels: Tensor, seed: int) -> Tensor:
        noise = torch.randn(len(labels), WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        wide = torch.tensor([0.3, 0.3, 0.3, 0.3, 3.0], dtype=torch.float64)
        return torch.nn.functional.one_hot(labels.clamp(max=3), WIDTH) * (labels < 4)[:, None] + wide * noise

    head, nearest = PLDAHead(WIDTH, CLASSES).double(), CentroidHead(WIDTH, CLASSES).double()
    labels = torch.arange(CLASSES).repeat_interleave(400)
    right = []
    for one in (head, nearest):
        one.fit(images(LABELS, 0), LABELS)
        hits = (one(images(labels, 1)).argmax(1) == labels).double().view(CLASSES, 400).mean(1)
        right.append((float(hits.mean()), float(hits[2:].mean())))
    assert right[0][0] > right[1][0] + 0.1 and right[0][1] > right[1][1]


def test_all_of_it_travels_in_the_state_dict_and_nothing_is_trained() -> None:
    head = PLDAHead(WIDTH, CLASSES)
    assert not list(head.parameters())
    z = head(points(LABELS, 1).float())
    assert torch.isfinite(z).all() and torch.equal(z, z[:, :1].expand_as(z))  # level before fitting
    head.fit(points(LABELS, 0).float(), LABELS)
    other = PLDAHead(WIDTH, CLASSES)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(points(LABELS, 1).float()), head(points(LABELS, 1).float()))


def test_a_class_without_images_is_never_predicted() -> None:
    head, _ = fitted(classes=7)
    z, without = head(points(LABELS, 1)), fitted()[0](points(LABELS, 1))
    assert torch.equal(z[:, 5:], torch.full((len(LABELS), 2), -torch.inf).double())
    torch.testing.assert_close(z.softmax(dim=1)[:, :5], without.softmax(dim=1))


def test_autocast_and_half_precision_leave_it_in_float32() -> None:
    head = PLDAHead(WIDTH, CLASSES)
    head.fit(points(LABELS, 0).half(), LABELS)
    h = points(LABELS, 1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = head(h)
    assert z.dtype == torch.float32
    assert torch.equal(z, head(h.float()))
    exact = PLDAHead(WIDTH, CLASSES).double()
    exact.load_state_dict(head.state_dict())
    torch.testing.assert_close(z.double(), exact(h.double()), rtol=1e-4, atol=1e-4)


def test_classes_no_further_apart_than_chance_all_lie_in_the_middle() -> None:
    labels = torch.arange(CLASSES).repeat(8)
    h = points(labels * 0, 0)  # one class under five names
    head = PLDAHead(WIDTH, CLASSES).double()
    between = head.fit(h, labels)
    assert between.max() < 0.4  # the largest of four, by chance
    z = head(points(labels * 0, 1)).softmax(dim=1)
    assert z.max() < 0.7


def test_mistakes_are_one_line() -> None:
    head = PLDAHead(WIDTH, CLASSES)
    for shrinkage in (0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match=r"shrinkage is .*above 0 and at most 1"):
            head.fit(points(LABELS, 0), LABELS, shrinkage)
    with pytest.raises(InputError, match=r"\[N, 5\] and \[N\], got \[46, 6\] and \[46\]"):
        head.fit(torch.zeros(46, 6), LABELS)
    with pytest.raises(InputError, match="no images"):
        head.fit(torch.zeros(0, WIDTH), LABELS[:0])
    with pytest.raises(InputError, match=r"from 0 to 5, outside 0\.\.4"):
        head.fit(torch.zeros(2, WIDTH), torch.tensor([0, 5]))
    with pytest.raises(InputError, match=r"features\[1\] is not finite"):
        head.fit(torch.tensor([[0.0] * WIDTH, [float("nan")] * WIDTH]), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="no class has two different images"):
        head.fit(points(torch.arange(CLASSES), 0), torch.arange(CLASSES))
