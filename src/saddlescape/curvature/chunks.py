"""How many images to put through a convolutional network at once on a CPU.

A batch larger than the cache sends every activation to memory and back, and asks the system for fresh pages each time:
ResNet-32 takes 1.2 to 1.5 times as long with 250 images as with 25. The mean over all samples does not depend on the
cut, so the operator may cut finer than it was asked to, where nothing forbids it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saddlescape.curvature.function import LossFunction
from saddlescape.curvature.guards import uses_batch_statistics
from saddlescape.curvature.samples import Samples

_CACHE = 7 * 2**18  # bytes of the largest activation: about what the second-level cache of a server core holds
_LEAST = 8  # images: below it the cost of calling the operations shows


def chunk_size(function: LossFunction, samples: Samples, at_most: int) -> int:
    """Samples per batch: ``at_most``, or fewer where that is faster.

    Fewer only for a network with 2-D convolutions on a CPU whose rows do not depend on each other (tried out on the
    first samples) under a loss with values per sample. The largest activation then takes about as much as a cache
    holds, but the activations of a chunk stay larger than the weights, whose gradients are summed chunk by chunk.
    """
    few = min(at_most, len(samples), 2 * _LEAST)
    if (
        few <= _LEAST
        or function.device.type != "cpu"
        or function.mode != "eval"
        or not any(isinstance(module, nn.Conv2d) for module in function.model.modules())
        or uses_batch_statistics(function.model, function.mode)
    ):
        return at_most
    first = function.prepare(samples.take(slice(0, few)))
    if not function.mean_loss(samples, at_most).per_sample or not _rows_stand_alone(function, first):
        return at_most
    largest, total = _activation_bytes(function, function.prepare(samples.take(slice(0, 1))))
    if largest == 0:
        return at_most
    fits = torch.get_num_threads() * _CACHE // largest
    pays = 4 * function.dim * function.like().element_size() // total
    return max(1, min(at_most, max(fits, pays, _LEAST)))


def _rows_stand_alone(function: LossFunction, batch: Samples) -> bool:
    """Whether the logits of half a batch are those of the same rows in the whole batch."""
    half = len(batch) // 2
    with torch.no_grad():
        whole = function.logits(function.parameters, batch.inputs)[:half]
        part = function.logits(function.parameters, batch.take(slice(0, half)).inputs)
    allowed = 1e4 * torch.finfo(function.dtype).eps
    return bool((whole - part).abs().max() <= allowed * whole.abs().max())


def _activation_bytes(function: LossFunction, one: Samples) -> tuple[int, int]:
    """Bytes of the largest activation that one sample leaves for the backward pass, and of all of them."""
    own = {p.untyped_storage().data_ptr() for p in function.primals(one)}
    kept: dict[int, Tensor] = {}  # held until counted, so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        function.logits([p.detach().requires_grad_() for p in function.parameters], one.inputs)
    sizes = [tensor.numel() * tensor.element_size() for tensor in kept.values()]
    return max(sizes, default=0), sum(sizes)
