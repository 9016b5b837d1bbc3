"""Optimisers that split losses by class, inside the training step: weights, micro-batches and mixed labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saddlescape.data.types import Batch
from saddlescape.losses.registry import build_loss
from saddlescape.optim import SAM, FocalSAM, ImbSAM, PartialSAM
from saddlescape.optim.registry import build_optimizer
from saddlescape.training.objective import Classify, Objective
from saddlescape.training.objectives import OBJECTIVES
from saddlescape.training.precision import Precision
from saddlescape.training.step import select, train_step

COUNTS = [90, 30, 3]
WEIGHT = torch.tensor([0.2, 0.5, 2.3], dtype=torch.float64)
FLOAT = Precision("float32", "cpu")
LR, RHO = 0.3, 0.2


class Net(nn.Module):
    """Float64, without layers that look across the batch, so that a batch and its parts give the same numbers."""

    feature_dim = 5

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh())
        self.head = nn.Linear(5, 3)
        self.double()

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))  # type: ignore[no-any-return]


def batch(images: int = 24, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(images, 3, 2, 2, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (images,), generator=generator)
    return Batch(inputs, targets, torch.arange(images), (inputs + 1,), Batch(inputs + 2, targets, torch.arange(images)))


def cut(whole: Batch, sizes: Sequence[int]) -> list[Batch]:
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [select(whole, torch.arange(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


def objective(normalization: str = "weights", weighted: bool = True) -> Objective:
    loss = build_loss("ce", COUNTS, normalization=normalization)
    if weighted:
        loss.set_weight(WEIGHT)
    return Classify(loss)


def losses_of(model: nn.Module, data: Batch, normalization: str) -> Tensor:
    """Per-sample losses whose mean is the loss of the batch."""
    weight = WEIGHT[data.targets]
    losses = weight * F.cross_entropy(model(data.inputs), data.targets, reduction="none")
    return losses * len(losses) / weight.sum() if normalization == "weights" else losses


def gradient(value: Tensor, model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(value, list(model.parameters())))


def climb(model: nn.Module, uphill: list[Tensor], sign: float) -> None:
    length = torch.sqrt(sum((g**2).sum() for g in uphill))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter, g in zip(model.parameters(), uphill, strict=True):
            parameter.add_(sign * RHO * g / length)


def step_of_imbsam(model: nn.Module, data: Batch, normalization: str) -> list[Tensor]:
    factor = torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)[data.targets]
    return by_parts(model, data, normalization, 1 - factor.clamp(max=1), factor)


def step_of_focal_sam(model: nn.Module, data: Batch, normalization: str) -> list[Tensor]:
    share = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    factor = (0.8 * (1 - share) ** 2.0)[data.targets]
    return by_parts(model, data, normalization, 1 - factor, factor)


def by_parts(model: nn.Module, data: Batch, normalization: str, still: Tensor, climbing: Tensor) -> list[Tensor]:
    """The gradient of the part that stays at w, and that of the part that climbs, where it has climbed to."""
    first = gradient((still * losses_of(model, data, normalization)).mean(), model)
    uphill = gradient((climbing * losses_of(model, data, normalization)).mean(), model)
    climb(model, uphill, 1.0)
    second = gradient((climbing * losses_of(model, data, normalization)).mean(), model)
    climb(model, uphill, -1.0)
    return [one + two for one, two in zip(first, second, strict=True)]


MAKERS: dict[str, tuple[Callable[[Any], Any], Callable[[nn.Module, Batch, str], list[Tensor]]]] = {
    "imbsam": (lambda base: ImbSAM(base, COUNTS, RHO, threshold=20), step_of_imbsam),
    "focal-sam": (lambda base: FocalSAM(base, COUNTS, RHO, lam=0.8, gamma=2.0), step_of_focal_sam),
}


@pytest.mark.parametrize("normalization", ["weights", "samples"])
@pytest.mark.parametrize("sizes", [[24], [8, 8, 8], [5, 1, 18]])
@pytest.mark.parametrize("name", MAKERS)
def test_weighted_and_accumulated_steps_equal_the_formula(name: str, sizes: list[int], normalization: str) -> None:
    make, formula = MAKERS[name]
    model, plain = Net(), Net()
    optimizer = make(torch.optim.SGD(model.parameters(), lr=LR))
    for number in range(3):
        whole = batch(seed=number)
        told = train_step(objective(normalization), model, optimizer, cut(whole, sizes), FLOAT, {})
        before = losses_of(plain, whole, normalization).mean().detach()
        moves = formula(plain, whole, normalization)
        with torch.no_grad():
            for parameter, g in zip(plain.parameters(), moves, strict=True):
                parameter.sub_(LR * g)
        assert [len(part.per_sample) for part in told] == sizes
        mean = sum(part.per_sample.sum() for part in told) / sum(part.normaliser for part in told)
        torch.testing.assert_close(mean, before)  # at w
        assert not told[0].per_sample.requires_grad
    for one, two in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=2e-7)  # weights of classes are float32


@pytest.mark.parametrize("sizes", [[24], [10, 14]])
def test_partial_sam_on_everything_is_sam(sizes: list[int]) -> None:
    """Whatever the cut: a subset that goes across micro-batches is gathered in the order of the batch."""
    results = []
    for make in (lambda base: PartialSAM(base, COUNTS, RHO, share=1.0), lambda base: SAM(base, RHO)):
        model = Net()
        optimizer = make(torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9))
        for number in range(3):
            train_step(objective(), model, optimizer, cut(batch(seed=number), sizes), FLOAT, {})
        results.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=2e-7)


def test_a_part_goes_through_the_eager_model_and_the_whole_through_the_compiled_one() -> None:
    model, seen = Net(), []

    def compiled(x: Tensor) -> Tensor:
        seen.append(("whole", len(x)))
        return model(x)  # type: ignore[no-any-return]

    def eager(x: Tensor) -> Tensor:
        seen.append(("part", len(x)))
        return model(x)  # type: ignore[no-any-return]

    optimizer = PartialSAM(torch.optim.SGD(model.parameters(), lr=LR), COUNTS, RHO, share=0.25)
    (told,) = train_step(objective(), compiled, optimizer, [batch()], FLOAT, {}, eager=eager)
    assert [kind for kind, _ in seen] == ["part", "whole"]
    assert seen[0][1] < 24 == seen[1][1] == len(told.per_sample)


@pytest.mark.parametrize("name", ["imbsam", "focal-sam", "partial-sam", "sse-sam", "cc-sam"])
def test_mixed_labels_and_a_radius_of_zero_are_plain_sgd(name: str) -> None:
    results = []
    for radius in (0.0, None):
        model = Net()
        goal = OBJECTIVES["mixup"](build_loss("ce", COUNTS))
        base: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
        if radius is not None:
            options = {"tail_weight": 1.0} if name == "imbsam" else {}  # the published 2 also weights the tail
            base = build_optimizer(base, name, rho=radius, model=model, class_counts=COUNTS, **options)
        torch.manual_seed(5)
        for number in range(3):
            train_step(goal, model, base, [goal.prepare(batch(seed=number))], FLOAT, {})
        results.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=2e-7)


def test_cc_sam_reclassifies_kept_features() -> None:
    """One pass through the backbone a step, and the same weights as with a pass for each class."""
    results = []
    for kept in (True, False):
        model, passes = Net(), []
        model.body.register_forward_hook(lambda module, args, out, passes=passes: passes.append(len(out)))
        base = torch.optim.SGD(model.parameters(), lr=LR)
        optimizer: Any = build_optimizer(base, "cc-sam", rho=0.05, model=model, class_counts=COUNTS, phi=0.4)
        if not kept:
            optimizer.reclassifies = False
        for number in range(3):
            train_step(objective(), model, optimizer, [batch(seed=number)], FLOAT, {})
        assert len(passes) == (3 if kept else 12)
        results.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=2e-7)
    model = Net()
    plain = torch.optim.SGD(model.parameters(), lr=LR)
    for number in range(3):
        train_step(objective(), model, plain, [batch(seed=number)], FLOAT, {})
    assert not torch.allclose(results[0], torch.cat([p.detach().flatten() for p in model.parameters()]))


def test_the_fp16_scale_moves_once_a_step_and_an_overflow_skips_the_step() -> None:
    model = Net().float()
    optimizer = ImbSAM(torch.optim.SGD(model.parameters(), lr=0.1), COUNTS, RHO, threshold=20)
    scaler, precision = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1), Precision("fp16", "cpu")
    data = batch()
    data = data._replace(inputs=data.inputs.float())
    train_step(objective(), model, optimizer, [data], precision, {"scaler": scaler})
    assert scaler.get_scale() == 2048.0
    home = [parameter.detach().clone() for parameter in model.parameters()]
    infinite = data._replace(inputs=data.inputs * torch.inf)
    train_step(objective(), model, optimizer, [infinite], precision, {"scaler": scaler})
    assert scaler.get_scale() == 1024.0
    assert all(torch.equal(one, two) for one, two in zip(home, model.parameters(), strict=True))


def test_select_takes_everything_of_an_image_along() -> None:
    whole = batch(6)
    part = select(whole, torch.tensor([4, 1]))
    for one, two in ((part.inputs, whole.inputs), (part.views[0], whole.views[0]), (part.targets, whole.targets)):
        assert torch.equal(one, two[[4, 1]])
    assert part.partner is not None and whole.partner is not None
    assert torch.equal(part.partner.inputs, whole.partner.inputs[[4, 1]])
    assert part.indices.tolist() == [4, 1]
