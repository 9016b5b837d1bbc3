"""SAM with two gloo processes: replicated (DDP), sharded weights (FSDP2), sharded state (ZeRO)."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from family import assert_ranks_agree, averaged, close, closure_of, run_ranks, run_worker
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from saddlescape.optim import ASAM, SAM, PerturbedGD, WrappedOptimizer, accumulated_closure

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this torch is built without gloo"
)
WORLD = 2


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3))


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(16, 6, generator=generator), torch.randint(0, 3, (16,), generator=generator)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def train(model: nn.Module, optimizer: WrappedOptimizer, x: Tensor, y: Tensor, steps: int = 10) -> list[Tensor]:
    for _ in range(steps):
        optimizer.step(closure_of(optimizer, model, x, y))
    return [p.full_tensor() if hasattr(p, "full_tensor") else p.detach().clone() for p in model.parameters()]


def results_of(rank: int) -> dict[str, list[Tensor]]:
    x, y = (part.chunk(WORLD)[rank] for part in data())
    results: dict[str, list[Tensor]] = {}

    model = DistributedDataParallel(net())
    results["ddp global"] = train(model, SAM(sgd(model), rho=0.3, model=model), x, y)
    model = DistributedDataParallel(net())
    results["ddp local"] = train(model, SAM(sgd(model), rho=0.3, model=model, sync_ascent=False), x, y)
    model = DistributedDataParallel(net())
    results["ddp local, rho 0"] = train(model, SAM(sgd(model), rho=0.0, model=model, sync_ascent=False), x, y)
    model = DistributedDataParallel(net())
    results["asam"] = train(model, ASAM(sgd(model), rho=0.5, model=model), x, y)
    model = DistributedDataParallel(net())
    results["pgd"] = train(model, PerturbedGD(sgd(model), 0.1, t_thr=3), x, y)

    model = DistributedDataParallel(net())
    optimizer = SAM(sgd(model), rho=0.3, model=model)
    parts = list(zip(x.split(3), y.split(3), strict=True))
    for _ in range(10):
        optimizer.step(
            accumulated_closure(optimizer, lambda p, m=model: F.cross_entropy(m(p[0]), p[1]), parts, model=model)
        )
    results["ddp accumulated"] = [p.detach() for p in model.parameters()]

    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = DistributedDataParallel(net())
    sharded = ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)
    results["zero"] = train(model, SAM(sharded, rho=0.3, model=model), x, y)

    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError:  # before torch 2.6
        pass
    else:
        for name, build in (
            ("fsdp", lambda m: SAM(sgd(m), rho=0.3, model=m)),
            ("fsdp asam", lambda m: ASAM(sgd(m), rho=0.5, model=m)),
        ):
            model = net()
            for layer in (model[0], model[2]):
                fully_shard(layer, mesh=dist.device_mesh.init_device_mesh("cpu", (WORLD,)))
            fully_shard(model, mesh=dist.device_mesh.init_device_mesh("cpu", (WORLD,)))
            results[name] = train(model, build(model), x, y)
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Tensor]]]:
    return run_ranks(__file__, tmp_path_factory.mktemp("ranks"))


def test_ranks_agree_bit_for_bit(ranks: list[dict[str, list[Tensor]]]) -> None:
    assert_ranks_agree(ranks)


def test_global_ascent_is_the_one_process_run(ranks: list[dict[str, list[Tensor]]]) -> None:
    model = net()
    one = train(model, SAM(sgd(model), rho=0.3), *data())
    for name in ("ddp global", "ddp accumulated", "zero", "fsdp"):
        assert close(ranks[0][name], one), name
    model = net()
    one = train(model, ASAM(sgd(model), rho=0.5, model=model), *data())
    for name in ("asam", "fsdp asam"):
        assert close(ranks[0][name], one), name
    model = net()
    assert close(ranks[0]["pgd"], train(model, PerturbedGD(sgd(model), 0.1, t_thr=3), *data()))


def test_local_ascent_is_each_ranks_own(ranks: list[dict[str, list[Tensor]]]) -> None:
    """Two replicas in this process: each climbs its own half's gradient; the descent takes the mean."""
    x, y = data()
    halves = list(zip(x.chunk(WORLD), y.chunk(WORLD), strict=True))
    main = net()
    base = sgd(main)
    for _ in range(10):
        gradients = []
        for half in halves:
            replica = net()
            replica.load_state_dict(main.state_dict())
            probe = SAM(torch.optim.SGD(replica.parameters(), lr=0.0), rho=0.3)
            probe.step(closure_of(probe, replica, *half))
            gradients.append([p.grad for p in replica.parameters()])
        averaged(list(main.parameters()), gradients)
        base.step()
    local = ranks[0]["ddp local"]
    assert close(local, [p.detach() for p in main.parameters()])
    assert not close(local, ranks[0]["ddp global"])


def test_rho_zero_under_local_ascent_still_exchanges_gradients(ranks: list[dict[str, list[Tensor]]]) -> None:
    model = net()
    assert close(ranks[0]["ddp local, rho 0"], train(model, SAM(sgd(model), rho=0.0), *data()))


if __name__ == "__main__":
    run_worker(results_of)
