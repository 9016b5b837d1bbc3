"""Leave running statistics (BatchNorm and its kin) as one plain pass would, although SAM makes two.

The second pass sees perturbed weights; what it adds to ``running_mean``, ``running_var`` and ``num_batches_tracked``
is taken back by copying the buffers out before it and in again after it. Setting ``momentum`` to 0 for that pass, as
is often done, still counts ``num_batches_tracked`` up, does nothing for ``momentum=None`` and makes a compiled model
compile again; copies of the buffers have none of these faults and can be captured in a CUDA graph.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook


def has_running_statistics(module: nn.Module) -> bool:
    """BatchNorm, SyncBatchNorm, InstanceNorm with statistics, and any layer that names its buffers like them."""
    return module._buffers.get("running_mean") is not None or module._buffers.get("running_var") is not None


class KeptStatistics:
    """``keep()`` before the perturbed pass, ``restore()`` after it (also after an exception; idempotent).

    With ``model`` its layers are walked. Without, the modules that run between ``keep`` and ``restore`` are found by
    a forward hook on all modules of the process; give the model where it is compiled, since such a hook makes
    ``torch.compile`` compile a second version.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self.model = model
        self._seen: set[int] = set()
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._remove_hook: weakref.finalize | None = None

    @torch.no_grad()
    def keep(self) -> None:
        if self.model is not None:
            self._keep(self.model)
        elif self._remove_hook is None:
            # The hook must not outlive us: an optimiser dropped between ascend() and descend() takes it along.
            this = weakref.ref(self)

            def before_forward(module: nn.Module, args: Any) -> None:
                kept = this()
                if kept is not None:
                    kept._before_forward(module)

            handle = register_module_forward_pre_hook(before_forward)
            self._remove_hook = weakref.finalize(self, handle.remove)

    @torch.no_grad()
    def restore(self) -> None:
        if self._remove_hook is not None:
            self._remove_hook()
            self._remove_hook = None
        for buffers, copies in _by_dtype(self._kept):
            torch._foreach_copy_(buffers, copies)
        self._kept = []
        self._seen = set()

    def _before_forward(self, module: nn.Module) -> None:
        # The outermost module comes first and its whole tree is walked at once: inside a compiled model hooks may
        # not be heard. Outermost calls of several models are all met.
        if id(module) not in self._seen and not torch.compiler.is_compiling():
            self._keep(module)

    @torch.no_grad()
    def _keep(self, root: nn.Module) -> None:
        found: list[Tensor] = []
        for module in root.modules():
            if id(module) in self._seen:
                continue
            self._seen.add(id(module))
            if has_running_statistics(module):
                found += [buffer for buffer in module._buffers.values() if buffer is not None]
        copies = [torch.empty_like(buffer) for buffer in found]
        self._kept += zip(found, copies, strict=True)
        for buffers, saved in _by_dtype(list(zip(found, copies, strict=True))):
            torch._foreach_copy_(saved, buffers)


def _by_dtype(pairs: list[tuple[Tensor, Tensor]]) -> list[tuple[list[Tensor], list[Tensor]]]:
    # One fused copy each for the float statistics and for the integer counters.
    groups: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
    for buffer, copy in pairs:
        lists = groups.setdefault((buffer.device, buffer.dtype), ([], []))
        lists[0].append(buffer)
        lists[1].append(copy)
    return list(groups.values())
