"""Which parameters of a network belong to its normalisation layers, or to its classifier."""

from __future__ import annotations

from torch import Tensor, nn

from saddlescape.errors import InputError

NORMALISATIONS: tuple[type[nn.Module], ...] = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def is_normalisation(module: nn.Module) -> bool:
    """torch's own (Batch, Instance, Sync, Layer, Group, RMS), and others that are called so.

    A layer of another library counts when "norm" is in the name of its class and its own parameters are vectors: an
    ``LlamaRMSNorm`` does, a ``NormedLinear`` does not.
    """
    if isinstance(module, NORMALISATIONS):
        return True
    own = list(module.parameters(recurse=False))
    return "norm" in type(module).__name__.lower() and bool(own) and all(param.dim() <= 1 for param in own)


def parameters_of(layers: str, model: nn.Module | None, name: str) -> list[Tensor]:
    """The parameters of the "norm" or "head" layers of ``model``.

    Raises InputError, in the name of the optimiser ``name``: another word, no model, or no such layer in it.
    """
    if layers not in ("norm", "head"):
        raise InputError(f"{name}: layers must be 'all', 'norm' or 'head', got {layers!r}")
    if model is None:
        raise InputError(f"{name}: layers={layers!r} needs model=, in which to find them")
    if layers == "head":
        head = getattr(getattr(model, "module", model), "head", None)
        found = list(head.parameters()) if isinstance(head, nn.Module) else []
    else:
        found = [p for module in model.modules() if is_normalisation(module) for p in module.parameters(recurse=False)]
    if not found:
        what = "model.head with parameters" if layers == "head" else "normalisation layer with weights"
        raise InputError(f"{name}: layers={layers!r}, but {type(model).__name__} has no {what}")
    return found  # type: ignore[return-value]
