"""The optimisers that split losses by class with two gloo processes under DistributedDataParallel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from family import assert_ranks_agree, averaged, close, run_ranks, run_worker
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from saddlescape.optim import SSESAM, ClassConditionalSAM, FocalSAM, ImbSAM, PartialSAM

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (dist.is_available() and dist.is_gloo_available()), reason="this torch is built without gloo"
    ),
]
COUNTS = [200, 50, 8, 3]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Linear(6, 10), nn.Tanh())
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.features(x)
        return self.head(self.kept)


def data(step: int) -> tuple[Tensor, Tensor]:
    """16 images; the tail is in one rank's half only, in step 1 nowhere, in step 2 everywhere."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 6, generator=generator)
    y = torch.randint(0, 4, (16,), generator=generator)
    if step == 1:
        y = y % 2
    elif step == 2:
        y = y % 2 + 2
    else:
        y[:8] %= 2
    return x, y


def build(name: str, model: nn.Module) -> Any:
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if name == "cc-sam":
        head = getattr(model, "module", model).head
        return ClassConditionalSAM(base, COUNTS, head, kappa=0.2, model=model)
    if name == "sse-sam":
        return SSESAM(base, COUNTS, 0.3, threshold=20, model=model)
    if name == "partial-sam":
        return PartialSAM(base, COUNTS, 0.3, share=1.0, model=model)
    return {"imbsam": ImbSAM, "focal-sam": FocalSAM}[name](base, COUNTS, 0.3, model=model)


NAMES = ("imbsam", "focal-sam", "sse-sam", "cc-sam", "partial-sam")


def train_step(optimizer: Any, model: nn.Module, x: Tensor, y: Tensor) -> None:
    def closure(subset: Any = slice(None)) -> Tensor:
        return F.cross_entropy(model(x[subset]), y[subset], reduction="none")

    def reclassify(subset: Tensor) -> Tensor:
        inner: Any = getattr(model, "module", model)
        return F.cross_entropy(inner.head(inner.kept[subset]), y[subset], reduction="none")

    options = {"reclassify": reclassify} if isinstance(optimizer, ClassConditionalSAM) else {}
    optimizer.step(closure, targets=y, **options)


def train(name: str, model: nn.Module, part: slice = slice(None)) -> list[Tensor]:
    optimizer = build(name, model)
    for number in range(5):
        train_step(optimizer, model, *(tensor[part] for tensor in data(number)))
    return [p.detach().clone() for p in model.parameters()]


def results_of(rank: int) -> dict[str, list[Tensor]]:
    half = slice(8 * rank, 8 * rank + 8)
    return {
        f"{name} {views}": train(name, DistributedDataParallel(Net(), gradient_as_bucket_view=views), half)
        for views in (False, True)
        for name in NAMES
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Tensor]]]:
    return run_ranks(__file__, tmp_path_factory.mktemp("ranks"))


def test_ranks_agree_bit_for_bit(ranks: list[dict[str, list[Tensor]]]) -> None:
    assert_ranks_agree(ranks)


@pytest.mark.parametrize("name", ["imbsam", "focal-sam", "sse-sam", "partial-sam"])
@pytest.mark.parametrize("views", [False, True])
def test_it_is_the_run_of_one_process(name: str, views: bool, ranks: list[dict[str, list[Tensor]]]) -> None:
    """Also where the tail is in one rank's half only, or nowhere."""
    assert close(ranks[0][f"{name} {views}"], train(name, Net()))


def test_cc_sam_climbs_by_each_ranks_own_images(ranks: list[dict[str, list[Tensor]]]) -> None:
    main = Net()
    base = torch.optim.SGD(main.parameters(), lr=0.1, momentum=0.9)
    for number in range(5):
        shares = []
        for half in (slice(8), slice(8, 16)):
            replica = Net()
            replica.load_state_dict(main.state_dict())
            probe = ClassConditionalSAM(torch.optim.SGD(replica.parameters(), lr=0.0), COUNTS, replica.head, kappa=0.2)
            train_step(probe, replica, *(tensor[half] for tensor in data(number)))
            shares.append([p.grad for p in replica.parameters()])
        averaged(list(main.parameters()), shares)
        base.step()
    for views in (False, True):
        assert close(ranks[0][f"cc-sam {views}"], [p.detach() for p in main.parameters()])


if __name__ == "__main__":
    run_worker(results_of)
