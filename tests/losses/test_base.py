"""What holds of every loss: reductions, weights, soft labels, derivatives, precision, transforms."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from saddlescape.errors import InputError
from saddlescape.losses import LOSSES, ClassLoss, CrossEntropyLoss, FocalLoss, build_loss

COUNTS = [500, 60, 20, 7]
OPTIONS: dict[str, dict[str, Any]] = {"las": {"smooth_head": 0.3, "smooth_tail": 0.05}}
WEIGHT = torch.tensor([0.2, 0.5, 1.1, 2.2], dtype=torch.float64)
N, C, D = 6, len(COUNTS), 5

every_loss = pytest.mark.parametrize("name", LOSSES)


def build(name: str, **options: Any) -> ClassLoss:
    return build_loss(name, COUNTS, **OPTIONS.get(name, {}), **options)


def batch(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits in (-1, 1), so that LDAM is at home too; labels of all classes; features."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(N, C, generator=generator, dtype=torch.float64).tanh().to(dtype)
    labels = torch.tensor([0, 1, 2, 3, 0, 2])
    return logits, labels, torch.randn(N, D, generator=generator, dtype=torch.float64).to(dtype)


def soft_labels() -> Tensor:
    first, second = torch.tensor([0, 1, 2, 3, 0, 2]), torch.tensor([3, 1, 0, 2, 1, 2])
    eye = torch.eye(C, dtype=torch.float64)
    return 0.3 * eye[first] + 0.7 * eye[second]


@every_loss
def test_reductions_are_sums_over_the_same_losses_and_weights(name: str) -> None:
    z, y, h = batch()
    losses = build(name, weight=WEIGHT, reduction="none").per_sample(z, y, h)
    weights = WEIGHT[y]
    for reduction, normalization, expected in [
        ("none", "weights", weights * losses),
        ("sum", "weights", (weights * losses).sum()),
        ("mean", "weights", (weights * losses).sum() / weights.sum()),
        ("mean", "samples", (weights * losses).sum() / N),
    ]:
        loss = build(name, weight=WEIGHT, reduction=reduction, normalization=normalization)
        torch.testing.assert_close(loss(z, y, h), expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(loss.sample_weights(y, torch.float64), weights)
        terms = loss.terms(z, y, h)
        torch.testing.assert_close(terms, (weights * losses, weights), rtol=1e-12, atol=1e-12)


@every_loss
def test_terms_do_not_depend_on_the_cut_into_batches(name: str) -> None:
    z, y, h = batch()
    loss = build(name, weight=WEIGHT, normalization="weights")
    parts = [loss.terms(z[i:j], y[i:j], h[i:j]) for i, j in ((0, 1), (1, 5), (5, 6))]
    total = sum(part[0].sum() for part in parts) / sum(part[1].sum() for part in parts)
    torch.testing.assert_close(total, loss(z, y, h), rtol=1e-12, atol=1e-12)


@every_loss
def test_one_sample_cancels_its_weight_under_weights_but_not_under_samples(name: str) -> None:
    z, y, h = batch()
    z, y, h = z[3:4], y[3:4], h[3:4]  # a tail image, weight 2.2
    plain = build(name, reduction="sum")
    plain.set_weight(None)
    torch.testing.assert_close(build(name, weight=WEIGHT, normalization="weights")(z, y, h), plain(z, y, h))
    torch.testing.assert_close(build(name, weight=WEIGHT, normalization="samples")(z, y, h), 2.2 * plain(z, y, h))


@every_loss
def test_soft_labels_are_the_mixture_of_two_hard_losses(name: str) -> None:
    z, first, h = batch()
    second = torch.tensor([3, 1, 0, 2, 1, 2])
    soft = soft_labels()
    for options in ({"normalization": "samples"}, {"reduction": "sum"}, {"reduction": "none"}):
        loss = build(name, weight=WEIGHT, **options)
        expected = 0.3 * loss(z, first, h) + 0.7 * loss(z, second, h)
        torch.testing.assert_close(loss(z, soft, h), expected, rtol=1e-10, atol=1e-10)
    loss = build(name, normalization="weights")
    loss.set_weight(None)
    expected = 0.3 * loss(z, first, h) + 0.7 * loss(z, second, h)
    torch.testing.assert_close(loss(z, soft, h), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(loss.per_sample(z, soft, h).mean(), expected, rtol=1e-10, atol=1e-10)


@every_loss
def test_one_hot_soft_labels_are_hard_labels(name: str) -> None:
    z, y, h = batch()
    loss = build(name, weight=WEIGHT, normalization="weights")
    one_hot = torch.eye(C, dtype=torch.float64)[y]
    torch.testing.assert_close(loss(z, one_hot, h), loss(z, y, h), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(loss.sample_weights(one_hot, torch.float64), WEIGHT[y])


@every_loss
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_first_and_second_derivatives(name: str, soft: bool) -> None:
    z, y, h = batch()
    target = soft_labels() if soft else y
    loss = build(name, weight=WEIGHT)

    def value(logits: Tensor, features: Tensor) -> Tensor:
        return loss(logits, target, features)

    inputs = (z.requires_grad_(), h.requires_grad_(loss.needs_features))
    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs)


@every_loss
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_certain_predictions_stay_finite_to_the_second_derivative(name: str, soft: bool) -> None:
    """Probabilities that are 0 and 1 to the last bit, right and wrong."""
    logits = torch.tensor([[60.0, -60, -60, -60], [-60, -60, -60, 60], [0, 0, 0, 0], [500, -500, 0, 1]])
    y = torch.tensor([0, 0, 1, 3])
    target = torch.eye(C)[y] * 0.9 + 0.025 if soft else y
    extra = {"scale": 1.0} if name == "ldam" else {}
    loss = build(name, **extra)
    loss._looked_at_range = True  # LDAM: no warning wanted here
    logits.requires_grad_()
    value = loss(logits, target, torch.ones(4, D))
    (gradient,) = torch.autograd.grad(value, logits, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), logits)
    assert torch.isfinite(value) and torch.isfinite(gradient).all() and torch.isfinite(second).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_logits_give_float32_losses(name: str, dtype: torch.dtype) -> None:
    z, y, h = batch(dtype)
    loss = build(name)
    value = loss(z, y, h)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(z.float(), y, h.float()), rtol=0, atol=0)


@every_loss
def test_autocast_does_not_lower_the_precision(name: str) -> None:
    z, y, h = batch(torch.float32)
    loss = build(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(z, y, h)
    torch.testing.assert_close(value, loss(z, y, h), rtol=1e-6, atol=1e-6)
    assert value.dtype == torch.float32


@every_loss
def test_float32_agrees_with_float64(name: str) -> None:
    z, y, h = batch()
    loss = build(name, weight=WEIGHT)
    assert loss(z, y, h).dtype == torch.float64
    torch.testing.assert_close(loss(z.float(), y, h.float()).double(), loss(z, y, h), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "ib"])  # its default is a weighted loss
def test_float64_stays_exact_after_a_conversion_of_the_module(name: str) -> None:
    z, y, h = batch()
    expected = build(name, weight=None)(z, y, h)
    torch.testing.assert_close(build(name).float().double()(z, y, h), expected, rtol=0, atol=0)


@every_loss
def test_compiles_into_one_graph(name: str) -> None:
    z, y, h = batch(torch.float32)
    loss = build(name, weight=WEIGHT.float())
    compiled: Callable[..., Tensor] = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(z, y, h), loss(z, y, h))
    torch._dynamo.reset()


@every_loss
def test_per_sample_gradients_by_vmap(name: str) -> None:
    z, y, h = batch()
    loss = build(name, weight=WEIGHT, reduction="sum")

    def one(logits: Tensor, target: Tensor, features: Tensor) -> Tensor:
        return loss(logits[None], target[None], features[None])

    gradients = torch.func.vmap(torch.func.grad(one))(z, y, h)
    z.requires_grad_()
    (expected,) = torch.autograd.grad(loss(z, y, h), z)
    torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-12)


@every_loss
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_nothing_is_read_back_from_another_device(name: str, soft: bool) -> None:
    """A meta tensor has no values, so whatever would make the host wait for an accelerator fails on it."""
    z, y, h = batch(torch.float32)
    loss = build(name, weight=WEIGHT.float()).to("meta")
    target = soft_labels() if soft else y
    value = loss(z.to("meta").requires_grad_(), target.to("meta"), h.to("meta"))
    value.backward()
    assert value.is_meta
    assert value.shape == ()


@every_loss
def test_copies_and_pickles_and_has_an_empty_state_dict(name: str) -> None:
    z, y, h = batch()
    loss = build(name, weight=WEIGHT)
    assert loss.state_dict() == {}
    assert list(loss.parameters()) == []
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(copied(z, y, h), loss(z, y, h))


@every_loss
def test_set_weight_changes_the_weights_of_a_built_loss_in_place(name: str) -> None:
    z, y, h = batch()
    loss = build(name, weight=torch.ones(C, dtype=torch.float64))
    held = loss.weight
    loss.set_weight(WEIGHT)
    assert loss.weight is held
    assert torch.equal(loss(z, y, h), build(name, weight=WEIGHT)(z, y, h))
    before = WEIGHT.clone()
    loss.set_weight(torch.ones(C))
    assert torch.equal(WEIGHT, before), "the caller's tensor is not the loss's"
    loss.set_weight(None)
    assert loss.weight is None
    torch.testing.assert_close(loss.sample_weights(y), torch.ones(N))
    loss.set_weight(WEIGHT)
    assert torch.equal(loss(z, y, h), build(name, weight=WEIGHT)(z, y, h))


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.ones(3), r"one number for each of 4 classes, got shape \[3\]"),
        (torch.ones(4, 1), r"got shape \[4, 1\]"),
        (torch.tensor([1.0, -1, 1, 1]), r"weight\[1\] is -1"),
        (torch.tensor([1.0, 1, float("nan"), 1]), r"weight\[2\] is nan"),
    ],
)
def test_a_wrong_weight_is_refused(weight: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build("vs", weight=weight)


def test_integer_weights_are_numbers_too() -> None:
    z, y, _ = batch()
    loss = CrossEntropyLoss(weight=torch.tensor([1, 2, 3, 4]))
    torch.testing.assert_close(
        loss(z, y), torch.nn.functional.cross_entropy(z, y, weight=torch.tensor([1.0, 2, 3, 4], dtype=z.dtype))
    )


@pytest.mark.parametrize("option", [{"reduction": "max"}, {"normalization": "batch"}])
def test_an_unknown_reduction_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="it must be"):
        FocalLoss(**option)


def test_a_loss_of_ones_own_is_one_method() -> None:
    class SquaredLoss(ClassLoss):
        def class_losses(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
            return (1 - logits.softmax(dim=1)) ** 2

    z, y, _ = batch()
    expected = torch.stack([(1 - z[i].softmax(0)[y[i]]) ** 2 for i in range(N)])
    torch.testing.assert_close(SquaredLoss(reduction="none")(z, y), expected)
    torch.testing.assert_close(SquaredLoss()(z, torch.eye(C, dtype=z.dtype)[y]), expected.mean())


def test_the_base_alone_says_what_is_missing() -> None:
    z, y, _ = batch()
    with pytest.raises(TypeError, match="define class_losses"):
        ClassLoss()(z, y)
