"""The loss of a model as a function of its chosen parameters: what every curvature operator here is built on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_unflatten

from saddlescape.curvature.flat import Selection, flatten, select_parameters, unflatten
from saddlescape.curvature.guards import (
    check_symmetric,
    has_rnn,
    held_still,
    refuse_bad_weights,
    refuse_random_layers,
    to_computing_dtype,
    uses_batch_statistics,
)
from saddlescape.curvature.linearize import Linearized, trace
from saddlescape.curvature.mean_loss import MeanLoss
from saddlescape.curvature.samples import Samples
from saddlescape.errors import InputError


class LossFunction:
    """``model`` under ``loss_fn`` as a function of the parameters chosen by ``params``.

    The weights are read when ``refresh`` is called (once at construction); weights in bfloat16 or float16 are computed
    in float32, and ``notes`` says so. The model is never written to: parameters and buffers go in as copies.

    ``forward(model, inputs) -> logits [N, ...]`` replaces the plain call; by default a tuple of inputs is spread over
    positions and a dict over names, and logits are looked for in a tuple's first place, in ``output["logits"]`` and in
    ``output.logits``. ``mode``: ``"eval"``, or ``"train"`` for batch statistics (only with all data in one batch).
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[..., Any],
        *,
        params: Selection = None,
        forward: Callable[[nn.Module, Any], Any] | None = None,
        mode: str = "eval",
        dtype: torch.dtype | None = None,
    ) -> None:
        refuse_random_layers(model, mode)
        self.model, self.loss_fn, self.mode = model, loss_fn, mode
        self._shell = _Shell(model, forward)
        self._selected = select_parameters(model, params)
        self.names = list(self._selected)
        self.shapes = [p.shape for p in self._selected.values()]
        self.dim = sum(shape.numel() for shape in self.shapes)
        first = next(iter(self._selected.values()))
        self.device = first.device
        self.dtype = dtype or _computing_dtype(self._selected.values())
        self._convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
        self.notes: list[str] = []
        if dtype is None and any(p.dtype != self.dtype for p in self._selected.values()):
            self.notes.append(f"weights in {first.dtype} were computed in {self.dtype}")
        if model.training and mode == "eval":
            self.notes.append("the model was in train mode and was measured in eval mode")
        self._mean_loss: MeanLoss | None = None
        self._traces: dict[Any, Linearized | None] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the model's present weights and buffers."""
        refuse_bad_weights(self._selected)
        self.parameters = [p.detach().to(self.dtype).clone() for p in self._selected.values()]
        rest: dict[str, Tensor] = {name: p for name, p in self.model.named_parameters() if name not in self._selected}
        rest.update(self.model.named_buffers())
        self._constants = {name: _cast(value.detach(), self.dtype).clone() for name, value in rest.items()}

    def like(self) -> Tensor:
        """An empty tensor of the operator's dtype and device."""
        return torch.empty(0, dtype=self.dtype, device=self.device)

    def vector(self) -> Tensor:
        """The weights as one vector [P]."""
        return flatten(self.parameters)

    def state_tensors(self) -> list[Tensor]:
        """Weights, buffers and the loss's own tensors: all that the function depends on beside the data."""
        own = list(self.loss_fn.state_dict().values()) if isinstance(self.loss_fn, nn.Module) else []
        return [*self.parameters, *self._constants.values(), *(x for x in own if isinstance(x, Tensor))]

    def split(self, vector: Tensor) -> list[Tensor]:
        """A vector [P] as a tensor per parameter (views)."""
        return unflatten(vector, self.shapes)

    def prepare(self, samples: Samples) -> Samples:
        """A batch on the operator's device, floating tensors in its dtype, images laid out as is fastest there."""
        move = lambda x: to_computing_dtype(x, self.dtype, self.device)  # noqa: E731
        return Samples(self._channels_last(move(samples.inputs)), move(samples.targets))

    def _channels_last(self, inputs: Any) -> Any:
        """oneDNN's convolutions on a CPU are up to three times as fast with channels last; values stay the same."""
        on_cpu = self.device.type == "cpu" and self.dtype != torch.float64
        if not on_cpu or not isinstance(inputs, Tensor) or inputs.dim() != 4 or not self._convolves:
            return inputs
        return inputs.contiguous(memory_format=torch.channels_last)

    def logits(self, parameters: Sequence[Tensor], inputs: Any, *, constants: Sequence[Tensor] | None = None) -> Tensor:
        """``model(inputs)`` at these parameters; buffers are copied, so that train mode cannot change them."""
        values: dict[str, Tensor] = dict(zip(self.names, parameters, strict=True))
        if constants is None:
            constants = list(self._constants.values())
            if self.mode == "train":
                constants = [constant.clone() for constant in constants]
        values.update(zip(self._constants, constants, strict=True))
        return functional_call(self._shell, {f"model.{name}": value for name, value in values.items()}, (inputs,))

    def mean_loss(self, batch: Samples) -> MeanLoss:
        """The loss taken apart; looked into on the first batch that comes."""
        if self._mean_loss is None:
            with torch.no_grad():
                logits = self.logits(self.parameters, batch.inputs)
            if len(logits) != len(batch):
                raise InputError(
                    f"the model returns {len(logits)} rows for {len(batch)} samples: pass forward=(model, inputs) ->"
                    " logits"
                )
            self._mean_loss = MeanLoss(self.loss_fn, logits, batch.targets)
        return self._mean_loss

    def examine(self, samples: Samples, batch_size: int) -> None:
        """Look at the loss, and refuse what has no Hessian: a random, asymmetric or batch-dependent function.

        Costs three products of at most 32 samples.
        """
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        with held_still(self.model, self.mode):
            loss_fn = self.mean_loss(self.prepare(samples.take(slice(0, min(batch_size, len(samples))))))
            if uses_batch_statistics(self.model, self.mode) and len(samples) > batch_size:
                raise InputError(
                    f"batch normalisation uses batch statistics, so the loss depends on the batches: mode='eval', or"
                    f" batch_size >= {len(samples)} to take all samples as one batch"
                )
            few = self.prepare(samples.take(slice(0, 32)))
            ones = torch.full((len(few),), 1 / len(few), dtype=self.dtype, device=self.device)
            # A fresh graph for each product: a kept one would hold its random numbers still.
            with torch.no_grad():
                value = loss_fn.total(self.logits(self.parameters, few.inputs), few.targets, ones)
            rounding = loss_fn.eps / max(abs(float(value)), loss_fn.eps)
            check_symmetric(
                lambda v: DoubleBackward(self, few, ones).product(v), self.dim, self.like(), rounding=rounding
            )

    def linearized(self, batch: Samples) -> Linearized | None:
        """The network traced for this shape of batch, or ``None`` where it cannot be traced."""
        leaves, spec = tree_flatten(batch.inputs)
        if not all(isinstance(leaf, Tensor) for leaf in leaves) or has_rnn(self.model):
            return None
        key = (tuple((leaf.shape, leaf.dtype, leaf.stride()) for leaf in leaves), str(spec))
        if key not in self._traces:
            self._traces[key] = self._trace(leaves, spec)
        return self._traces[key]

    def primals(self, batch: Samples) -> list[Tensor]:
        """The arguments of the traced network for this batch."""
        return [*self.parameters, *self._constants.values(), *tree_flatten(batch.inputs)[0]]

    def _trace(self, leaves: list[Tensor], spec: Any) -> Linearized | None:
        n, k = len(self.parameters), len(self._constants)

        def network(*arguments: Tensor) -> Tensor:
            inputs = tree_unflatten(list(arguments[n + k :]), spec)
            return self.logits(arguments[:n], inputs, constants=arguments[n : n + k])

        constants = [*self._constants.values(), *leaves]
        with torch.no_grad():
            logits = network(*self.parameters, *constants)
        try:
            return trace(network, self.parameters, constants, logits)
        except Exception as problem:  # the tracer raises errors of many kinds; all mean: go the slower way
            self.notes.append(
                f"the network could not be traced ({type(problem).__name__}): products by double backward"
            )
            return None


class DoubleBackward:
    """Products of one batch by differentiating the gradient; the graph is kept between products."""

    def __init__(self, function: LossFunction, batch: Samples, weights: Tensor) -> None:
        self._leaves = [p.detach().requires_grad_() for p in function.parameters]
        self._function = function
        logits = function.logits(self._leaves, batch.inputs)
        self.loss = function.mean_loss(batch).total(logits, batch.targets, weights)
        self.gradient = _grads(self.loss, self._leaves, create_graph=True)

    def product(self, vector: Tensor) -> Tensor:
        pieces = self._function.split(vector)
        moving = [(g, v) for g, v in zip(self.gradient, pieces, strict=True) if g.requires_grad]
        if not moving:
            return torch.zeros_like(vector)
        gradient, direction = zip(*moving, strict=True)
        products = torch.autograd.grad(gradient, self._leaves, direction, retain_graph=True, allow_unused=True)
        return flatten(torch.zeros_like(p) if h is None else h for h, p in zip(products, self._leaves, strict=True))


def _grads(loss: Tensor, leaves: Sequence[Tensor], *, create_graph: bool = False) -> list[Tensor]:
    """Gradients; zeros for a parameter that the loss does not use."""
    if not loss.requires_grad:
        return [torch.zeros_like(p) for p in leaves]
    grads = torch.autograd.grad(loss, leaves, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(grads, leaves, strict=True)]


class _Shell(nn.Module):
    """The model with its way of being called, so that ``functional_call`` reaches a user's ``forward`` too."""

    def __init__(self, model: nn.Module, forward: Callable[[nn.Module, Any], Any] | None) -> None:
        super().__init__()
        self.model = model
        self.call = forward

    def forward(self, inputs: Any) -> Tensor:
        if self.call is not None:
            output = self.call(self.model, inputs)
        elif isinstance(inputs, Mapping):
            output = self.model(**inputs)
        elif isinstance(inputs, tuple | list):
            output = self.model(*inputs)
        else:
            output = self.model(inputs)
        return find_logits(output)


def find_logits(output: Any) -> Tensor:
    """Logits in what a model returned: a tensor, ``.logits``, ``["logits"]``, or the first entry of a tuple."""
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits
    if isinstance(output, Mapping) and isinstance(output.get("logits"), Tensor):
        return output["logits"]
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    keys = f" with keys {sorted(map(str, output))}" if isinstance(output, Mapping) else ""
    raise InputError(
        f"the model returns a {type(output).__name__}{keys} and no logits: pass forward=(model, inputs) -> logits"
    )


def _computing_dtype(parameters: Any) -> torch.dtype:
    return torch.float64 if all(p.dtype == torch.float64 for p in parameters) else torch.float32


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
