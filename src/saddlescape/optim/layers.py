"""Which parameters of a network belong to its normalisation layers."""

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


def normalisation_parameters(model: nn.Module | None, name: str) -> list[Tensor]:
    """The parameters of the normalisation layers of ``model``.

    Raises:
        InputError: in the name of the optimiser ``name``: no model, or no such layer in it.
    """
    if model is None:
        raise InputError(f"{name}: layers='norm' needs model=, in which to find them")
    found = [p for module in model.modules() if is_normalisation(module) for p in module.parameters(recurse=False)]
    if not found:
        raise InputError(f"{name}: layers='norm', but {type(model).__name__} has no normalisation layer with weights")
    return list(found)
