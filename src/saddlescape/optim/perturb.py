"""Perturb and restore: move weights to ``w + eps`` for one pass and bring them back bit for bit.

Everything of the SAM family is built on the two halves of :class:`Perturbation`. The weights are copied before they
are moved and copied back afterwards; subtracting ``eps`` again would be cheaper but would not give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# Ascent directions exist only for as many tensors at a time as fit here, so that the peak beyond plain training
# stays at one copy of the weights even when the weights, and not the activations, fill the memory.
CHUNK_BYTES = 64 * 2**20
NORM_EPS = 1e-12  # added to the length of a direction

Pair = tuple[list[Tensor], list[Tensor]]


class Perturbation:
    """Weights that are away from home, and the copy that brings them back.

    ``save(params)`` copies them; then anything may change them in place (:func:`move` adds ``scale * direction``);
    ``restore()`` undoes it all, exactly, whatever gradients the parameters have by then. The copy is made before the
    first weight changes, so an exception at any moment leaves a state that ``restore()`` mends; restoring twice does
    no harm. Costs one copy of the saved weights while they are away, nothing in between.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def active(self) -> bool:
        """Whether weights are away from home."""
        return bool(self._kept)

    @torch.no_grad()
    def save(self, params: Sequence[Tensor]) -> None:
        """Copy ``params`` (any device and dtype), all before any is moved: two parameters may share storage.

        Parameters that are already away keep the copy they have.
        """
        new = {id(param): local(param) for param in params if id(param) not in self._kept}
        if new:
            home = list(new.values())
            copies = [torch.empty_like(tensor) for tensor in home]
            torch._foreach_copy_(copies, home)
            self._kept = self._kept | dict(zip(new, zip(home, copies, strict=True), strict=True))
            # Autocast keeps the narrow copies of weights it has made: without this a whole step under autocast would
            # make its second pass with those of the weights at home.
            torch.clear_autocast_cache()

    @torch.no_grad()
    def restore(self) -> None:
        """Bring every saved parameter back to the bits it had; does nothing when none is away."""
        if self._kept:
            torch._foreach_copy_([home for home, _ in self._kept.values()], [copy for _, copy in self._kept.values()])
            torch.clear_autocast_cache()
        self._kept = {}


def real(tensor: Tensor) -> Tensor:
    """``tensor`` detached, sharing its memory; a complex one as its real view [..., 2], as torch's optimisers do."""
    tensor = tensor.detach()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def local(tensor: Tensor) -> Tensor:
    """The part of ``real(tensor)`` that lives here: of a sharded parameter (DTensor, e.g. FSDP2) the local shard."""
    tensor = real(tensor)
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor; asked by its method, since importing the class takes half a second."""
    return hasattr(tensor, "to_local")


def with_gradients(params: Sequence[Tensor]) -> Pair:
    """Those of ``params`` that have a gradient, and their gradients; a sparse gradient is given as a dense tensor."""
    pairs = [(param, param.grad) for param in params if param.grad is not None]
    return [param for param, _ in pairs], [grad.to_dense() if grad.is_sparse else grad for _, grad in pairs]


def chunks(*columns: Sequence[Tensor]) -> Iterator[list[list[Tensor]]]:
    """Cut parallel lists of tensors into pieces of one device and dtype and at most ``CHUNK_BYTES`` (or one tensor)."""
    groups: dict[tuple[torch.device, torch.dtype], list[tuple[Tensor, ...]]] = {}
    for row in zip(*columns, strict=True):
        groups.setdefault((row[0].device, row[0].dtype), []).append(row)
    for rows in groups.values():
        piece: list[tuple[Tensor, ...]] = []
        size = 0
        for row in rows:
            if piece and size + row[0].nbytes > CHUNK_BYTES:
                yield [list(column) for column in zip(*piece, strict=True)]
                piece, size = [], 0
            piece.append(row)
            size += row[0].nbytes
        yield [list(column) for column in zip(*piece, strict=True)]


def global_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all ``tensors`` together, a 0-dim tensor (float64 if any of them is, else float32).

    Nothing is copied to the host. For sharded tensors (DTensor) it is the norm over all ranks.
    """
    parts = norms(tensors)
    device = parts[0].device
    return torch.linalg.vector_norm(torch.stack([part.to(device) for part in parts]))


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The norm of each of ``tensors``, 0-dim, all of one dtype; in no certain order."""
    tensors = [real(tensor) for tensor in tensors]
    dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    # A shard's norm is partial: full_tensor adds the ranks' shares.
    parts = [torch.linalg.vector_norm(t, dtype=dtype).full_tensor() for t in tensors if is_sharded(t)]  # type: ignore[attr-defined]
    whole = [tensor for tensor in tensors if not is_sharded(tensor)]
    for (piece,) in chunks(whole):
        parts += torch._foreach_norm(piece, 2, dtype)
    return parts


@torch.no_grad()
def move(params: Sequence[Tensor], directions: Sequence[Tensor], scale: float | Tensor) -> None:
    """Add ``scale * direction`` to each parameter in place. ``scale`` is a number or a 0-dim tensor on any device."""
    for targets, steps in chunks([local(p) for p in params], [local(d) for d in directions]):
        torch._foreach_add_(targets, torch._foreach_mul(steps, on_device(scale, targets[0])))


def on_device(scale: float | Tensor, like: Tensor) -> float | Tensor:
    """``scale`` where ``like`` is; a number stays a number.

    It takes the dtype of float32 and float64 tensors, for which foreach then runs as one kernel; beside narrower ones
    it stays wide, since ``rho / ||g||`` may not fit in them.
    """
    if not isinstance(scale, Tensor):
        return scale
    wide = like.dtype in (torch.float32, torch.float64)
    return scale.to(device=like.device, dtype=like.dtype if wide else scale.dtype)
