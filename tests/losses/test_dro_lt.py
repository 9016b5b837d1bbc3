from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from saddlescape.errors import InputError
from saddlescape.losses import DROLTLoss

COUNTS = [50, 20, 5, 1, 1]


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(9, 3, dtype=torch.float64, generator=generator)
    centroids = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    return features, torch.tensor([2, 0, 0, 4, 0, 2, 1, 0, 4]), centroids  # none of class 3, one of class 1


def slow(features: Tensor, target: Tensor, centroids: Tensor, eps: Tensor, temperature: float, form: str) -> float:
    """Centroid by centroid over the whole batch, as the method is described."""
    labels, n = target.tolist(), len(target)
    radius = [2 * float(eps[y]) for y in labels]
    if form == "code":
        # What a boolean [C, N] mask enumerates, row by row, against what it is paired with.
        entries = [i for c in range(len(eps)) for i in range(n) if labels[i] == c]
        for k, i in enumerate(entries):
            radius[i] = float(eps[labels[k]])
    per_class = []
    for c in sorted(set(labels)):
        u = []
        for i in range(n):
            distance = math.sqrt(sum(float(centroids[c, k] - features[i, k]) ** 2 for k in range(features.shape[1])))
            u.append(-(distance + (radius[i] if labels[i] == c else 0.0)) / temperature)
        log_sum = math.log(sum(math.exp(v) for v in u))
        own = [u[i] - log_sum for i in range(n) if labels[i] == c]
        per_class.append(-sum(own) / len(own))
    return sum(per_class) / len(per_class)


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_against_loops(form: str, temperature: float) -> None:
    for seed in range(3):
        features, target, centroids = batch(seed)
        loss = DROLTLoss(COUNTS, temperature, form).double()  # type: ignore[arg-type]
        torch.nn.init.uniform_(loss.eps, 0.2, 2.0, generator=torch.Generator().manual_seed(seed))
        expected = slow(features, target, centroids, loss.eps.detach(), temperature, form)
        assert loss(features, target, centroids).item() == pytest.approx(expected, rel=1e-12)


def test_with_equal_eps_the_code_is_the_paper_at_half_the_radius() -> None:
    features, target, centroids = batch()
    paper = DROLTLoss(COUNTS, radius=0.5).double()
    code = DROLTLoss(COUNTS, form="code", radius=1.0).double()
    torch.testing.assert_close(paper(features, target, centroids), code(features, target, centroids))
    assert torch.equal(DROLTLoss(COUNTS).eps, torch.ones(5))


def test_terms_make_the_loss() -> None:
    features, target, centroids = batch()
    loss = DROLTLoss(COUNTS).double()
    losses, weights = loss.terms(features, target, centroids)
    assert losses.shape == weights.shape == (9,)
    torch.testing.assert_close(weights.sum(), torch.tensor(4.0).double())  # classes in the batch
    torch.testing.assert_close(losses.sum() / weights.sum(), loss(features, target, centroids))


def test_gradients() -> None:
    features, target, centroids = batch()
    loss = DROLTLoss(COUNTS).double()
    features.requires_grad_()
    centroids.requires_grad_()
    loss(features, target, centroids).backward()
    assert centroids.grad is None
    assert features.grad.abs().sum(dim=1).min() > 0
    assert loss.eps.grad[3] == 0  # absent from the batch
    assert (loss.eps.grad[[0, 1, 2, 4]] > 0).all()  # a larger radius is a harder problem

    def value(h: Tensor, eps: Tensor) -> Tensor:
        return torch.func.functional_call(loss, {"eps": eps}, (h, target, centroids.detach()))

    inputs = (features.detach().requires_grad_(), loss.eps.detach().requires_grad_())
    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs)


def test_extremes() -> None:
    loss = DROLTLoss([3, 1])
    on_it = torch.tensor([[1.0, 2.0], [5.0, 6.0]], requires_grad=True)
    value = loss(on_it, torch.tensor([0, 1]), torch.tensor([[1.0, 2.0], [0.0, 0.0]]))  # distance 0
    value.backward()
    assert torch.isfinite(on_it.grad).all()
    assert loss(torch.randn(1, 2), torch.tensor([1]), torch.randn(2, 2)).item() == 0  # a batch of one image
    far = loss(1e6 * torch.randn(4, 2), torch.tensor([0, 0, 1, 1]), torch.randn(2, 2))
    assert torch.isfinite(far)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = loss(torch.randn(4, 2).bfloat16(), torch.tensor([0, 0, 1, 1]), torch.randn(2, 2))
    assert half.dtype == torch.float32


def test_eps_resumes() -> None:
    loss = DROLTLoss(COUNTS)
    torch.nn.init.normal_(loss.eps)
    other = DROLTLoss(COUNTS)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.eps, loss.eps)


def test_mistakes_are_one_line() -> None:
    features, target, centroids = batch()
    loss = DROLTLoss(COUNTS)
    with pytest.raises(InputError, match=r"\[N, d\] and \[5, d\], got \[9, 3\] and \[4, 3\]"):
        loss(features, target, centroids[:4])
    with pytest.raises(InputError, match="outside 0"):
        loss(features, target + 1, centroids)
    with pytest.raises(InputError, match="not soft labels"):
        loss(features, torch.full((9, 5), 0.2, dtype=torch.float64), centroids)
    with pytest.raises(InputError, match="temperature is 0"):
        DROLTLoss(COUNTS, 0.0)
    with pytest.raises(InputError, match="form is 'published'"):
        DROLTLoss(COUNTS, form="published")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="class 1 has no training images"):
        DROLTLoss([3, 0])
