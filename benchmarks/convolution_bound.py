"""The roofline of a training step: the network's convolutions alone, forward and backward, as fast as torch does them.

A network whose other layers cost nothing would take this long for one pass over a batch, so a SAM step (two passes)
cannot take less than twice as long without better convolutions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from common import Timing, interleave, synchronizer, warm_up
from torch import Tensor, nn

FORMATS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True)
class Cost:
    """Of one forward and backward pass: operations (a multiply-add is two) and bytes that must move at least."""

    operations: int
    bytes: int

    def as_json(self, seconds: float) -> dict[str, Any]:
        return {
            "operations": self.operations,
            "bytes": self.bytes,
            "operations_per_s": self.operations / seconds,
            "bytes_per_s": self.bytes / seconds,
        }


def convolutions(model: nn.Module) -> nn.Sequential:
    """The convolutions of ``model`` in order, with new weights; each must take what the one before gives."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for before, after in itertools.pairwise(layers):
        if before.out_channels != after.in_channels:
            raise ValueError("the convolutions of this network are no chain: use one of resnet20/32/44/56")
    return nn.Sequential(*(_like(layer) for layer in layers))


def _like(layer: nn.Conv2d) -> nn.Conv2d:
    shape: tuple[Any, ...] = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
    new = nn.Conv2d(*shape, bias=False)
    nn.init.kaiming_normal_(new.weight, nonlinearity="linear")  # keeps values of order one without normalisation
    return new


def cost(chain: nn.Sequential, shape: tuple[int, int, int, int], itemsize: int) -> Cost:
    """Count one pass over a batch of ``shape`` [N, C, H, W], numbers of ``itemsize`` bytes.

    Forward reads input and weight and writes output; the gradient of the weight reads input and output gradient and
    writes its own; the gradient of the input, which the first layer does not need, reads output gradient and weight
    and writes its own. Each of the three costs N * H' * W' * C' * C * k * k multiply-adds.
    """
    operations = numbers = 0
    count, _, height, width = shape
    for index, layer in enumerate(chain):
        assert isinstance(layer, nn.Conv2d)
        read = count * layer.in_channels * height * width
        height, width = (
            (size + 2 * int(pad) - kernel) // stride + 1
            for size, pad, kernel, stride in zip(
                (height, width), layer.padding, layer.kernel_size, layer.stride, strict=True
            )
        )
        written, weight = count * layer.out_channels * height * width, layer.weight.numel()
        products = 3 if index else 2
        operations += products * 2 * count * height * width * weight
        numbers += products * (read + weight + written)
    return Cost(operations, numbers * itemsize)


def chain_pass(
    model: nn.Module, batch: int, size: int, dtype: torch.dtype, layout: torch.memory_format, device: torch.device
) -> Callable[[], object]:
    """One forward and backward pass of the convolutions; on CUDA replayed from a graph: launches then cost nothing."""
    chain = convolutions(model).to(device=device, dtype=dtype)
    chain = chain.to(memory_format=layout)  # type: ignore[call-overload]
    weights = list(chain.parameters())
    shape = (batch, weights[0].shape[1], size, size)
    images = torch.randn(shape, device=device).to(dtype).contiguous(memory_format=layout)
    with torch.no_grad():
        slope: Tensor = torch.ones_like(chain(images))

    def once() -> tuple[Tensor, ...]:
        return torch.autograd.grad(chain(images), weights, slope)

    if device.type != "cuda":
        return once
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            once()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        once()
    return graph.replay


def fastest_pass(
    model: nn.Module, batch: int, size: int, dtype: torch.dtype, device: torch.device, rounds: int
) -> tuple[str, Callable[[], object], dict[str, Timing]]:
    """The memory format in which the pass is fastest, the pass, and what each format took."""
    synchronize = synchronizer(device)
    passes = {name: chain_pass(model, batch, size, dtype, layout, device) for name, layout in FORMATS.items()}
    warm_up(passes, 2, synchronize)
    timings = interleave(passes, rounds, synchronize=synchronize)
    best = min(timings, key=lambda name: timings[name].median)
    return best, passes[best], timings
