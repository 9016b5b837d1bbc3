"""Number formats: which one a device does fast, the autocast around a forward pass, the scaler that fp16 needs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch

from saddlescape.errors import InputError

NAMES = ("float32", "bf16", "fp16")


@dataclass(frozen=True)
class Precision:
    """``dtype`` of the forward pass; weights, gradients and losses stay float32 ("float32 masters")."""

    name: str
    device_type: str

    @property
    def dtype(self) -> torch.dtype:
        return {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.name == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler | None:
        """A gradient scaler for fp16, whose small numbers would vanish; None for the others, which need none."""
        return torch.amp.GradScaler(self.device_type) if self.name == "fp16" else None


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is native to the device (AVX512-BF16 or AMX on a CPU, Ampere or later on a GPU)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)
    return False


def resolve_device(name: str) -> torch.device:
    """ "auto" | "cpu" | "cuda" | "cuda:1" | "mps" -> a device that is there.

    Raises:
        InputError: the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name}: not a device; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        present = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= present:
            raise InputError(f"--device {name}: this machine has {present} CUDA devices; use --device cpu or auto")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"--device {name}: no MPS device here; use --device cpu or auto")
    elif device.type not in ("cpu", "mps"):
        raise InputError(f"--device {name}: not supported; use auto, cpu, cuda or cuda:N")
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """ "auto" -> "bf16" where it is native, else "float32"; an explicit name is checked."""
    if name == "auto":
        return "bf16" if has_fast_bf16(device) else "float32"
    if name not in NAMES:
        raise InputError(f"--precision {name}: unknown; use auto, {', '.join(NAMES)}")
    return name
