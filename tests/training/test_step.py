"""One step: accumulated parts equal the whole, SAM equals two passes by hand, the loss told is the one at w."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saddlescape.data.types import Batch
from saddlescape.losses.registry import build_loss
from saddlescape.optim import SAM
from saddlescape.training.objective import Classify
from saddlescape.training.precision import Precision
from saddlescape.training.step import train_step

FLOAT32 = Precision("float32", "cpu")
WEIGHT = torch.tensor([0.2, 0.5, 2.3])


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def batch(images: int = 32, seed: int = 1, dtype: torch.dtype = torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(images, 3, 2, 2, generator=generator).to(dtype)
    targets = torch.randint(3, (images,), generator=generator)
    return Batch(inputs, targets, torch.arange(images))


def cut(whole: Batch, sizes: Sequence[int]) -> list[Batch]:
    assert sum(sizes) == len(whole.targets)
    return [Batch(*parts) for parts in zip(*(tensor.split(list(sizes)) for tensor in whole[:3]), strict=True)]


def objective(normalization: str, weighted: bool = True) -> Classify:
    loss = build_loss("ce", [90, 30, 3], normalization=normalization)
    if weighted:
        loss.set_weight(WEIGHT)
    return Classify(loss)


def by_hand(logits: Tensor, targets: Tensor, normalization: str) -> Tensor:
    weight = WEIGHT.to(logits.dtype)
    if normalization == "weights":
        return F.cross_entropy(logits, targets, weight)  # torch's weighted mean
    return F.cross_entropy(logits, targets, weight, reduction="sum") / len(targets)


@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
@pytest.mark.parametrize("normalization", ["weights", "samples"])
@pytest.mark.parametrize("sizes", [[8, 8, 8, 8], [8, 8, 8, 5], [1, 20, 11], [32]])
def test_accumulated_parts_equal_the_whole(optimizer: str, normalization: str, sizes: list[int]) -> None:
    """With class weights and an uneven cut: means of means would be wrong here."""
    whole = batch(sum(sizes))
    results = []
    for parts in ([whole], cut(whole, sizes)):
        model = net()
        base: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        opt = SAM(base, rho=0.2) if optimizer == "sam" else base
        for _ in range(3):
            told = train_step(objective(normalization), model, opt, parts, FLOAT32, {})
        assert [len(part.per_sample) for part in told] == [len(part.targets) for part in parts]
        loss = sum(part.per_sample.sum() for part in told) / sum(part.normaliser for part in told)
        results.append((torch.cat([p.detach().flatten() for p in model.parameters()]), loss))
    (one, loss_one), (many, loss_many) = results
    torch.testing.assert_close(many, one, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss_many, loss_one)
    assert not torch.equal(one, torch.cat([p.detach().flatten() for p in net().parameters()]))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
@pytest.mark.parametrize("normalization", ["weights", "samples"])
def test_sam_equals_two_passes_by_hand(dtype: torch.dtype, tolerance: float, normalization: str) -> None:
    rho, lr, momentum, decay = 0.3, 0.2, 0.9, 0.01
    model, plain = net(dtype), net(dtype)
    base = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=decay)
    optimizer, goal = SAM(base, rho=rho), objective(normalization)
    velocity = [torch.zeros_like(p) for p in plain.parameters()]
    # The objective hands float32 logits to the loss, so float64 is compared through a loss of its own.
    if dtype is torch.float64:
        goal = InFloat64(goal.loss)
    for number in range(10):
        data = batch(16, seed=number, dtype=dtype)
        (told,) = train_step(goal, model, optimizer, [data], FLOAT32, {})
        parameters = list(plain.parameters())
        loss = by_hand(plain(data.inputs), data.targets, normalization)
        gradient = torch.autograd.grad(loss, parameters)
        norm = torch.sqrt(sum((g**2).sum() for g in gradient))
        home = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p, g in zip(parameters, gradient, strict=True):
                p += rho * g / norm
        gradient = torch.autograd.grad(by_hand(plain(data.inputs), data.targets, normalization), parameters)
        with torch.no_grad():
            for p, w, v, g in zip(parameters, home, velocity, gradient, strict=True):
                v.copy_(momentum * v + g + decay * w)
                p.copy_(w - lr * v)
        assert not told.per_sample.requires_grad and not told.logits.requires_grad
        torch.testing.assert_close(told.mean(), loss.detach(), rtol=100 * tolerance, atol=tolerance)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance)


class InFloat64(Classify):
    def forward(self, model, batch):  # type: ignore[no-untyped-def]
        from saddlescape.training.objective import Losses

        logits = model(batch.inputs)
        losses, weights = self.loss.terms(logits, batch.targets)
        return Losses(losses, weights.sum() if self.loss.normalization == "weights" else float(len(losses)), logits)


def test_bfloat16_is_close_to_float32_with_weights_and_losses_in_float32() -> None:
    results = []
    for name in ("float32", "bf16"):
        model = net()
        optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.1)
        for number in range(10):
            (told,) = train_step(
                objective("weights"), model, optimizer, [batch(seed=number)], Precision(name, "cpu"), {}
            )
        assert told.per_sample.dtype == torch.float32
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    start = torch.cat([p.detach().flatten() for p in net().parameters()])
    assert not torch.equal(*results)
    assert (results[1] - results[0]).norm() < 0.05 * (results[0] - start).norm()


def test_the_fp16_scale_moves_once_a_step_and_an_overflow_skips_the_step() -> None:
    """Two passes, one verdict; without the update the second step would be refused by the scaler."""
    model = net()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    precision, scales = Precision("fp16", "cpu"), []
    for number in range(4):
        train_step(objective("weights"), model, optimizer, [batch(seed=number)], precision, {"scaler": scaler})
        scales.append(scaler.get_scale())
    assert scales == [1024.0, 2048.0, 2048.0, 4096.0]
    home = copy.deepcopy(model.state_dict())
    data = batch()
    train_step(
        objective("weights"), model, optimizer, [data._replace(inputs=data.inputs * float("inf"))], precision,
        {"scaler": scaler},
    )  # fmt: skip
    assert scaler.get_scale() == 2048.0
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, home[name]), name


def test_an_objective_says_its_normaliser_before_the_forward_pass() -> None:
    data, model = batch(), net()
    for normalization in ("weights", "samples"):
        goal = objective(normalization)
        assert float(goal.normaliser(data)) == pytest.approx(float(goal(model, data).normaliser))
    assert float(objective("weights", weighted=False).normaliser(data)) == 32
