"""The loss of a model as a function of its chosen parameters: what every curvature operator here is built on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_unflatten

from saddlescape.curvature.flat import Selection, flatten, select_parameters, unflatten
from saddlescape.curvature.guards import (
    check_symmetric,
    exactly,
    has_rnn,
    held_still,
    refuse_bad_weights,
    refuse_random_layers,
    to_computing_dtype,
    unwrapped,
)
from saddlescape.curvature.linearize import Linearized, trace
from saddlescape.curvature.mean_loss import MeanLoss
from saddlescape.curvature.samples import Samples
from saddlescape.errors import InputError


class LossFunction:
    """``model`` under ``loss_fn`` as a function of the parameters chosen by ``params``.

    The weights are read when ``refresh`` is called (once at construction); weights in bfloat16 or float16 are computed
    in float32, and ``notes`` says so. The model is never written to: parameters and buffers go in as copies. A model or
    loss under ``torch.compile`` is measured uncompiled.

    ``forward(model, inputs) -> logits [N, ...]`` replaces the plain call; by default a tuple of inputs is spread over
    positions and a dict over names, and logits are looked for in a tuple's first place, in ``output["logits"]`` and in
    ``output.logits``. ``mode``: ``"eval"``, or ``"train"`` for batch statistics (only with all data in one batch).
    """

    @exactly
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
        if dtype not in (None, torch.float32, torch.float64):
            raise InputError(f"dtype must be torch.float32 or torch.float64, not {dtype}: others are too coarse")
        model, loss_fn = unwrapped(model), unwrapped(loss_fn)
        refuse_random_layers(model, mode)
        self.model, self.loss_fn, self.mode = model, loss_fn, mode
        self._shell = _Shell(model, forward)
        self._selected = select_parameters(model, params)
        self.names = list(self._selected)
        self.shapes = [p.shape for p in self._selected.values()]
        self.dim = sum(shape.numel() for shape in self.shapes)
        first = next(iter(self._selected.values()))
        self.device = first.device
        exact = all(p.dtype == torch.float64 for p in self._selected.values())
        self.dtype = dtype or (torch.float64 if exact else torch.float32)
        self._convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
        self.notes: list[str] = []
        if dtype is None and any(p.dtype != self.dtype for p in self._selected.values()):
            self.notes.append(f"weights in {first.dtype} were computed in {self.dtype}")
        if model.training and mode == "eval":
            self.notes.append("the model was in train mode and was measured in eval mode")
        self.trusts_traces: bool | None = None  # None: no trace has been compared with double backward yet
        self._places = _places(model)
        self._mean_loss: MeanLoss | None = None
        self._outputs = 0
        self._traces: dict[Any, Linearized | None] = {}
        self.refresh()

    @exactly
    def refresh(self) -> None:
        """Read the model's present weights and buffers."""
        refuse_bad_weights(self._selected)
        # In rows, whatever the memory format of the model: a product hands in its vector's pieces laid out like this.
        self.parameters = [
            p.detach().to(self.dtype).clone(memory_format=torch.contiguous_format) for p in self._selected.values()
        ]
        rest: dict[str, Tensor] = {name: p for name, p in self.model.named_parameters() if name not in self._selected}
        rest.update((name, buffer) for name, buffer in self.model.named_buffers() if name in self._places)
        self._constants = {
            name: value.detach().to(self.dtype if value.is_floating_point() else None).clone()
            for name, value in rest.items()
        }

    def is_of(self, model: nn.Module) -> bool:
        """Whether this is the function of ``model`` as it is now: it may have been moved, or given new parameters."""
        model = unwrapped(model)
        present = dict(model.named_parameters())
        return self.model is model and all(
            present.get(name) is p and p.device == self.device for name, p in self._selected.items()
        )

    def like(self) -> Tensor:
        """An empty tensor of the operator's dtype and device."""
        return torch.empty(0, dtype=self.dtype, device=self.device)

    def vector(self) -> Tensor:
        """The weights as one vector [P]."""
        return flatten(self.parameters)

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
        if constants is None:
            constants = list(self._constants.values())
            if self.mode == "train":
                constants = [constant.clone() for constant in constants]
        values = zip((*self.names, *self._constants), (*parameters, *constants), strict=True)
        # Each place once: functional_call itself would fill one that has two names twice, and leave the copy there.
        filled = {place: value for name, value in values for place in self._places[name]}
        return functional_call(self._shell, filled, (inputs,), tie_weights=False)

    def mean_loss(self, samples: Samples, batch_size: int = 256) -> MeanLoss:
        """The loss taken apart; looked into once, on samples from all classes of the first set that comes."""
        if self._mean_loss is None:
            batch = self.prepare(samples.spread(batch_size))
            with torch.no_grad():
                logits = self.logits(self.parameters, batch.inputs)
            if logits.dim() == 0 or len(logits) != len(batch):
                raise InputError(
                    f"the model returns {len(logits) if logits.dim() else 'a scalar'} rows for {len(batch)} samples:"
                    " pass forward=(model, inputs) -> logits"
                )
            self._outputs = logits.shape[1] if logits.dim() > 1 else 0
            self.check_labels(samples)
            mean_loss = MeanLoss(self.loss_fn, logits, batch.targets)
            self._refuse_detached(mean_loss, batch.take(slice(0, 2)))
            self._mean_loss = mean_loss
        return self._mean_loss

    def _refuse_detached(self, mean_loss: MeanLoss, few: Samples) -> None:
        leaves = [p.detach().requires_grad_() for p in self.parameters]
        ones = torch.ones(len(few), dtype=self.dtype, device=self.device)
        if not mean_loss.total(self.logits(leaves, few.inputs), few.targets, ones).requires_grad:
            raise InputError(
                "no gradient flows from the loss to the chosen parameters: look for detach(), torch.no_grad() or argmax"
                " in the model and the loss"
            )

    def check_labels(self, samples: Samples) -> None:
        """Raise ``InputError`` for a label beyond the model's outputs that the loss does not take (as an ignored one).

        On a CUDA device such a label ends the process.
        """
        targets = samples.targets
        if targets.is_floating_point() or not self._outputs:
            return
        for label in torch.unique(targets[(targets < 0) | (targets >= self._outputs)]).tolist():
            loss_fn = copy.deepcopy(self.loss_fn).cpu() if isinstance(self.loss_fn, nn.Module) else self.loss_fn
            rest = (1,) * (targets.dim() - 1)
            try:
                loss_fn(torch.zeros(1, self._outputs, *rest), torch.full((1, *rest), label))
            except Exception:
                raise InputError(
                    f"label {label} is out of range: the model has {self._outputs} outputs, so labels are 0 to"
                    f" {self._outputs - 1}"
                ) from None

    def examine(self, samples: Samples, batch_size: int) -> None:
        """Look at the loss, and refuse what has no Hessian: a random, asymmetric or batch-dependent function.

        Costs three products of at most 32 samples.
        """
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        with held_still(self.model, self.mode):
            loss_fn = self.mean_loss(samples, batch_size)
            few = self.prepare(samples.spread(32))
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
        if self.trusts_traces is False or not all(isinstance(leaf, Tensor) for leaf in leaves) or has_rnn(self.model):
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
            return self.logits(arguments[:n], inputs, constants=arguments[n : n + k]).contiguous()

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
        found: Any = [None] * len(self._leaves)
        if self.loss.requires_grad:
            found = torch.autograd.grad(self.loss, self._leaves, create_graph=True, allow_unused=True)
        # Zeros for a parameter that the loss does not use.
        self.gradient = [torch.zeros_like(p) if g is None else g for g, p in zip(found, self._leaves, strict=True)]

    def product(self, vector: Tensor) -> Tensor:
        pieces = self._function.split(vector)
        moving = [(g, v) for g, v in zip(self.gradient, pieces, strict=True) if g.requires_grad]
        if not moving:
            return torch.zeros_like(vector)
        gradient, direction = zip(*moving, strict=True)
        products = torch.autograd.grad(gradient, self._leaves, direction, retain_graph=True, allow_unused=True)
        return flatten(torch.zeros_like(p) if h is None else h for h, p in zip(products, self._leaves, strict=True))


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


def _places(model: nn.Module) -> dict[str, list[str]]:
    """First name of each parameter and buffer -> where it lies in the shell: one place per module and attribute.

    Tied weights lie in several places; a module that is registered under several names has one.
    """
    found: dict[int, tuple[str, list[str]]] = {}
    for kind in ("_parameters", "_buffers"):
        for prefix, module in model.named_modules():
            for key, tensor in getattr(module, kind).items():
                if tensor is not None:
                    name = f"{prefix}.{key}" if prefix else key
                    found.setdefault(id(tensor), (name, []))[1].append(f"model.{name}")
    return dict(found.values())


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
