"""Parameters as one flat vector and back: curvature has no use for lists of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from saddlescape.errors import InputError

Selection: TypeAlias = (
    "str | nn.Module | Iterable[str | Tensor] | Mapping[str, Tensor] | Callable[[str, Tensor], bool] | None"
)


def select_parameters(model: nn.Module, params: Selection = None) -> dict[str, Tensor]:
    """The parameters that the curvature is taken over, by name, in the model's order.

    ``params``: ``None`` for all that require a gradient; a name, or several names or beginnings of names at a dot
    (``"layer3"`` takes ``layer3.0.conv1.weight``); parameters themselves or a submodule; a mapping name -> parameter;
    or a predicate ``(name, parameter) -> bool``. Frozen parameters are left out unless they are named.

    A parameter that is registered under several names has the first one; any of them selects it.

    Raises:
        InputError: a name that is not there, a parameter of another model, a complex parameter, or an empty selection.
    """
    everything: dict[str, Tensor] = {
        name: p for name, p in model.named_parameters() if p.is_floating_point() or p.is_complex()
    }
    if params is None:
        chosen = {name: p for name, p in everything.items() if p.requires_grad}
        reason = "no parameter requires a gradient: unfreeze some or pass params="
    elif callable(params) and not isinstance(params, nn.Module | Mapping):
        chosen = {name: p for name, p in everything.items() if params(name, p)}
        reason = "params= selects no parameter"
    else:
        if isinstance(params, nn.Module):
            params = list(params.parameters())
        elif isinstance(params, str | Tensor):
            params = [params]
        wanted: set[str] = set()
        names = {id(p): name for name, p in everything.items()}
        for item in params:
            if isinstance(item, Tensor):
                if id(item) not in names:
                    raise InputError(
                        f"params= holds a tensor of shape {tuple(item.shape)} that is not a parameter of this model"
                    )
                wanted.add(names[id(item)])
                continue
            hits = {
                names[id(p)]
                for name, p in model.named_parameters(remove_duplicate=False)
                if id(p) in names and (name == item or name.startswith(f"{item}."))
            }
            if not hits:
                raise InputError(
                    f"params= names {item!r}, which is not a parameter of this model; it has {_some(everything)}"
                )
            wanted |= hits
        chosen = {name: p for name, p in everything.items() if name in wanted}
        reason = "params= selects no parameter"
    if not chosen:
        raise InputError(reason)
    for name, p in chosen.items():
        if nn.parameter.is_lazy(p):
            raise InputError(f"parameter {name!r} has no shape yet: run one batch through the model first")
        if p.is_complex():
            raise InputError(f"parameter {name!r} is complex: curvature is of real parameters; leave it out by params=")
    return chosen


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """Tensors -> one vector [P], in the order given."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def unflatten(vector: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Vector [P] -> views of it with these shapes."""
    parts = vector.split([shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
