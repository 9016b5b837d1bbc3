"""What must hold while a curvature is measured, and how everything is left as it was found.

A Hessian exists only of a deterministic, twice differentiable function. So, for the length of a call: eval mode (or
the mode asked for), no autocast, no inference mode, no TF32, nothing compiled, deterministic cuDNN algorithms,
attention by its mathematical definition (the fused kernels have no second derivative), recurrent layers without cuDNN
and oneDNN (theirs have none either). All of it, and the random state, is put back on leaving, also after an error.

The numerics hold for what is done with the products too (``exactly``): a Lanczos run whose sums autocast takes in
bfloat16 converges to a wrong eigenvalue, however exact its products are.
"""

from __future__ import annotations

import functools
import math
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from saddlescape.curvature.sums import dot, length, unit
from saddlescape.errors import InputError

_DROPOUTS = (nn.modules.dropout._DropoutNd,)
_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_P = ParamSpec("_P")
_R = TypeVar("_R")


class _Held(threading.local):
    """What this thread holds already, so that a guard inside another one costs next to nothing."""

    def __init__(self) -> None:
        self.modes: dict[int, str] = {}  # id of a model -> the mode that it is held in
        self.numerics = self.without_fused_rnn = False


_held = _Held()


@contextmanager
def held_still(model: nn.Module | None = None, mode: str = "eval") -> Iterator[None]:
    """Hold modes, flags and random state for the block; put all back afterwards, also after an error.

    ``mode``: ``"eval"`` or ``"train"`` (batch normalisation by the batch's own statistics; buffers stay untouched
    because the operator works on copies). Without a model, the numerics alone.
    """
    if _held.numerics and (model is None or _held.modes.get(id(model)) == mode):
        yield
        return
    with ExitStack() as stack:
        if model is not None:
            _hold_model(model, mode, stack)
        without_fused_rnn = has_rnn(model)
        if not _held.numerics or (without_fused_rnn and not _held.without_fused_rnn):
            _hold_numerics(without_fused_rnn, stack)
        stack.enter_context(torch.random.fork_rng(devices=_cuda_devices()))
        yield


def exactly(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """``function`` under the numerics of ``held_still``: what is done with products is as exact as they are.

    An operator that is the first argument holds its model too, once for all its products.
    """

    @functools.wraps(function)
    def held(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        hold: Callable[[], Any] = getattr(args[0], "held_still", held_still) if args else held_still
        with hold():
            return function(*args, **kwargs)

    return held


def _hold_model(model: nn.Module, mode: str, stack: ExitStack) -> None:
    modules = [(module, module.training, len(vars(module)), _plain_tensors(module)) for module in model.modules()]
    before = _held.modes.get(id(model))

    def restore() -> None:
        for module, training, size, tensors in modules:
            module.training = training
            if tensors or len(vars(module)) != size:
                for name in _plain_tensors(module).keys() - tensors.keys():
                    delattr(module, name)
                vars(module).update(tensors)
        _held.modes.pop(id(model)) if before is None else _held.modes.update({id(model): before})

    stack.callback(restore)
    _held.modes[id(model)] = mode
    model.train(mode == "train")


def _plain_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Tensors that a module keeps beside parameters and buffers, as ``torch.nn.utils.spectral_norm`` its weight."""
    return {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}


def _hold_numerics(without_fused_rnn: bool, stack: ExitStack) -> None:
    before = _held.numerics, _held.without_fused_rnn

    def restore() -> None:
        _held.numerics, _held.without_fused_rnn = before

    stack.callback(restore)
    _held.numerics, _held.without_fused_rnn = True, without_fused_rnn
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.enable_grad())
    for device in ("cpu", "cuda", "mps", "xpu"):
        if torch.is_autocast_enabled(device):
            stack.enter_context(torch.autocast(device, enabled=False))
    if "torch._dynamo" in sys.modules:  # something may be compiled: the model, a part of it, the loss
        stack.enter_context(torch.compiler.set_stance("force_eager"))
    stack.enter_context(sdpa_kernel(SDPBackend.MATH))
    cudnn = torch.backends.cudnn
    for flag, value in {"enabled": cudnn.enabled and not without_fused_rnn, "benchmark": False,
                        "deterministic": True}.items():  # fmt: skip
        stack.callback(setattr, cudnn, flag, getattr(cudnn, flag))
        setattr(cudnn, flag, value)
    if without_fused_rnn:
        stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
    _hold_float32(stack)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    stack.callback(torch.backends.mha.set_fastpath_enabled, fast_path)
    torch.backends.mha.set_fastpath_enabled(False)


def _hold_float32(stack: ExitStack) -> None:
    """float32 proper, whichever of torch's two ways to allow TF32 or bfloat16 was used: they may not be mixed."""
    try:
        precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:  # set by the newer way, which the older one refuses to read
        backends: Any = torch.backends
        for backend in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul,
                        backends.mkldnn.conv, backends.mkldnn.rnn):  # fmt: skip
            stack.callback(setattr, backend, "fp32_precision", backend.fp32_precision)
            backend.fp32_precision = "ieee"
        return
    stack.callback(torch.set_float32_matmul_precision, precision)
    torch.set_float32_matmul_precision("highest")
    stack.callback(setattr, torch.backends.cudnn, "allow_tf32", convolutions)
    torch.backends.cudnn.allow_tf32 = False


def has_rnn(model: nn.Module | None) -> bool:
    return model is not None and any(isinstance(module, nn.RNNBase) for module in model.modules())


def _cuda_devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_available() and torch.cuda.is_initialized() else []


def unwrapped(module: Any) -> Any:
    """The module behind ``torch.compile``, whose wrapper hands what is set on it on to the user's own; else itself."""
    while isinstance(module, nn.Module) and isinstance(getattr(module, "_orig_mod", None), nn.Module):
        module = module._orig_mod
    return module


def refuse_random_layers(model: nn.Module, mode: str) -> None:
    """Raise ``InputError`` where dropout is on: a random function has no Hessian."""
    if mode not in ("eval", "train"):
        raise InputError(f"mode must be 'eval' or 'train', not {mode!r}")
    for name, module in model.named_modules():
        on = module.training or mode == "train"
        if on and isinstance(module, _DROPOUTS) and module.p > 0:
            raise InputError(
                f"layer {name!r} is a {type(module).__name__}(p={module.p}) in train mode: a loss with dropout is"
                " random and has no Hessian; call model.eval() first"
            )


def refuse_bad_weights(parameters: Mapping[str, Tensor]) -> None:
    """Raise ``InputError`` naming the first parameter that holds NaN or infinity."""
    for name, parameter in parameters.items():
        if not bool(torch.isfinite(parameter.detach()).all()):
            count = int((~torch.isfinite(parameter.detach())).sum())
            raise InputError(
                f"parameter {name!r} holds {count} values that are NaN or infinite: curvature is not defined there"
            )


def uses_batch_statistics(model: nn.Module, mode: str) -> bool:
    """Whether some layer's output for one image depends on the other images of the batch."""
    return any(
        isinstance(module, _BATCH_NORM) and (mode == "train" or not module.track_running_stats)
        for module in model.modules()
    )


def check_symmetric(operator: Callable[[Tensor], Tensor], dim: int, like: Tensor, rounding: float = 0.0) -> None:
    """Test ``u'Hv = v'Hu`` and ``Hu = Hu`` (twice the same bits) on two random unit vectors; three products.

    ``rounding``: what the loss itself leaves uncertain of H, as a share of it; a loss that is fitted to its last digits
    has little else. Raises ``InputError`` if two products with the same vector differ by more than rounding (random
    data, dropout, a non-deterministic layer) or if the operator is not symmetric.
    """
    u, v = (unit(random_vector(dim, like, seed=0, stream=stream)) for stream in (101, 102))
    hu, hu_again, hv = operator(u), operator(u), operator(v)
    scale = max(length(hu), length(hv))
    if not math.isfinite(scale):
        raise InputError("a Hessian-vector product is NaN or infinite: look at the loss of this data at these weights")
    if scale == 0:
        return
    allowed = 1e4 * torch.finfo(like.dtype).eps
    drift = length(hu - hu_again) / scale
    if drift > allowed:
        raise InputError(
            f"two products with the same vector differ by {drift:.1e}: the loss is random (dropout, augmentation,"
            " noise in the model or the loss); fix its data and its mode first"
        )
    asymmetry = abs(dot(u, hv) - dot(v, hu)) / scale
    if asymmetry > allowed + 1e4 * rounding:
        raise InputError(
            f"the operator is not symmetric: |u'Hv - v'Hu| / ||H|| = {asymmetry:.1e}; a derivative of the model or"
            " the loss is wrong (a custom autograd function?) or the data changes between products"
        )


def random_vector(dim: int, like: Tensor, *, seed: int, stream: int = 0, kind: str = "normal") -> Tensor:
    """A random vector [dim] that depends on (seed, stream) only: not on the device, dtype or the global random state.

    ``kind``: ``"normal"`` (standard Gaussian) or ``"rademacher"`` (+1 or -1).
    """
    generator = torch.Generator().manual_seed((int(seed) * 1_000_003 + stream * 7_919 + 12_345) % (2**63))
    if kind == "rademacher":
        vector = torch.randint(0, 2, (dim,), generator=generator, dtype=torch.int8).to(torch.float32) * 2 - 1
    else:
        vector = torch.randn(dim, generator=generator, dtype=torch.float32)
    return vector.to(device=like.device, dtype=like.dtype)


def to_computing_dtype(tensor: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """Floating tensors (also inside tuples and dicts) to ``dtype``; everything to ``device``."""
    if isinstance(tensor, Tensor):
        moved = tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
        return moved.clone() if moved.is_inference() else moved  # autograd cannot save one of inference mode
    if isinstance(tensor, Mapping):
        return {key: to_computing_dtype(value, dtype, device) for key, value in tensor.items()}
    if isinstance(tensor, list | tuple):
        return tuple(to_computing_dtype(value, dtype, device) for value in tensor)
    return tensor
