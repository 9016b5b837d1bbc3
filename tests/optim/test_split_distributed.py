"""The optimisers that split losses by class with two gloo processes under DistributedDataParallel."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from family import close, run_ranks
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
WORLD = 2
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


def train(name: str, model: nn.Module, part: slice = slice(None)) -> list[Tensor]:
    optimizer = build(name, model)
    for number in range(5):
        x, y = (tensor[part] for tensor in data(number))

        def closure(subset: Any = slice(None), x: Tensor = x, y: Tensor = y) -> Tensor:
            return F.cross_entropy(model(x[subset]), y[subset], reduction="none")

        def reclassify(subset: Tensor, y: Tensor = y) -> Tensor:
            inner: Any = getattr(model, "module", model)
            return F.cross_entropy(inner.head(inner.kept[subset]), y[subset], reduction="none")

        options = {"reclassify": reclassify} if name == "cc-sam" else {}
        optimizer.step(closure, targets=y, **options)
    return [p.detach().clone() for p in model.parameters()]


def worker(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=WORLD)
    half = slice(8 * rank, 8 * rank + 8)
    results = {}
    for views in (False, True):
        for name in NAMES:
            model = DistributedDataParallel(Net(), gradient_as_bucket_view=views)
            results[f"{name} {views}"] = train(name, model, half)
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Tensor]]]:
    return run_ranks(__file__, tmp_path_factory.mktemp("ranks"))


def test_ranks_agree_bit_for_bit(ranks: list[dict[str, list[Tensor]]]) -> None:
    for name, values in ranks[0].items():
        assert all(torch.equal(a, b) for a, b in zip(values, ranks[1][name], strict=True)), name


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
        for rank in range(WORLD):
            replica = Net()
            replica.load_state_dict(main.state_dict())
            probe = ClassConditionalSAM(
                torch.optim.SGD(replica.parameters(), lr=0.0), COUNTS, replica.head, kappa=0.2
            )
            x, y = (tensor[8 * rank : 8 * rank + 8] for tensor in data(number))
            probe.step(
                lambda replica=replica, x=x, y=y: F.cross_entropy(replica(x), y, reduction="none"),
                targets=y,
                reclassify=lambda s, replica=replica, y=y: F.cross_entropy(
                    replica.head(replica.kept[s]), y[s], reduction="none"
                ),
            )
            shares.append([p.grad for p in replica.parameters()])
        for p, *parts in zip(main.parameters(), *shares, strict=True):
            p.grad = torch.stack(parts).mean(0)
        base.step()
    for views in (False, True):
        assert close(ranks[0][f"cc-sam {views}"], [p.detach() for p in main.parameters()])


if __name__ == "__main__":
    worker(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    # Reference cycles and torch's caches still hold the group, whose threads can abort Python on its own way out.
    os._exit(0)
