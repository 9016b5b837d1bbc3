"""Running statistics after a SAM step are those of one plain pass at w."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable

import pytest
import torch
from family import closure_over
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from saddlescape.optim import SAM
from saddlescape.optim.batchnorm import KeptStatistics


class OwnNorm(nn.Module):
    """A norm layer that is nobody's subclass but names its buffers as everyone does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_var", torch.ones(5))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.running_var.mul_(0.9).add_(x.detach().var(0).mean(), alpha=0.1)
            self.count += 1
        return x / self.running_var.mean().sqrt()


def nets() -> dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]:
    return {
        "bn1d": (lambda: nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5)), (16, 5)),
        "bn2d": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (4, 3, 6, 6)),
        "bn cumulative": (lambda: nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5, momentum=None)), (16, 5)),
        "bn without statistics": (
            lambda: nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5, track_running_stats=False)),
            (16, 5),
        ),
        "instance norm": (
            lambda: nn.Sequential(nn.Conv1d(3, 4, 1), nn.InstanceNorm1d(4, affine=True, track_running_stats=True)),
            (8, 3, 7),
        ),
        "own": (lambda: nn.Sequential(nn.Linear(5, 5), OwnNorm()), (16, 5)),
    }


def loss_closure(optimizer: torch.optim.Optimizer, model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    return closure_over(optimizer, lambda: (model(x) ** 3).mean())


def build(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, shape = nets()[name]
    return make(), torch.randn(shape) * 2 + 1


@pytest.mark.parametrize("given", [True, False], ids=["model given", "found by hook"])
@pytest.mark.parametrize("name", list(nets()))
def test_one_step_counts_one_pass(name: str, given: bool) -> None:
    model, x = build(name)
    plain = copy.deepcopy(model)
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5, model=model if given else None)
    optimizer.step(loss_closure(optimizer, model, x))
    plain(x)
    for ours, one_pass in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, one_pass)


def test_sync_batch_norm_is_kept_too() -> None:
    layer = nn.SyncBatchNorm(5)  # its forward pass runs on accelerators only, so the pass is played here
    kept = KeptStatistics(layer)
    kept.keep()
    for buffer in layer.buffers():
        buffer.add_(3)
    kept.restore()
    fresh = nn.SyncBatchNorm(5)
    assert all(torch.equal(a, b) for a, b in zip(layer.buffers(), fresh.buffers(), strict=True))
    assert len(list(layer.buffers())) == 3


def test_compiled_model_without_a_handle() -> None:
    model, x = build("bn1d")
    plain = copy.deepcopy(model)
    compiled = torch.compile(model, backend="eager")
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5)
    with pytest.warns(UserWarning, match="global hooks"):
        optimizer.step(loss_closure(optimizer, compiled, x))
    plain(x)
    for ours, one_pass in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, one_pass)


def test_the_hook_goes_away_after_a_step_an_error_and_with_its_optimiser() -> None:
    model, x = build("bn1d")
    hooks = torch_module._global_forward_pre_hooks
    assert not hooks
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5)
    closure = loss_closure(optimizer, model, x)
    optimizer.step(closure)
    assert not hooks
    calls = []

    def broken() -> Tensor:
        calls.append(1)
        loss = closure()
        if len(calls) == 2:
            assert hooks
            raise RuntimeError("stop")
        return loss

    with pytest.raises(RuntimeError, match="stop"):
        optimizer.step(broken)
    assert not hooks
    assert model[1].num_batches_tracked.item() == 2
    # dropped between ascend and descend
    dropped = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5)
    loss_closure(dropped, model, x)()
    dropped.ascend()
    assert hooks
    del dropped
    gc.collect()
    assert not hooks


def test_eval_layers_and_other_buffers_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5).eval(), nn.Linear(5, 5))
    nn.utils.parametrizations.spectral_norm(model[2])
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5, model=model)
    power_vector = model[2].parametrizations.weight[0]._u.clone()
    optimizer.step(loss_closure(optimizer, model, torch.randn(8, 5)))
    assert model[1].num_batches_tracked.item() == 0
    assert not torch.equal(model[2].parametrizations.weight[0]._u, power_vector)
