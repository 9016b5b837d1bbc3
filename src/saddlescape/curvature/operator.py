"""Hessian-vector products of a mean loss over any number of batches: ``H v`` with ``H = d2/dw2 (1/n) sum_i loss_i``.

Every sample carries a weight ``1/n`` (or what the caller and the loss say), so any cut into batches gives the same
operator; means of batch means, where a short last batch counts too much, are never formed.

Two ways to a product. *Traced* (``linearize.py``): the network is traced once per shape of batch; what does not
depend on the vector is kept for as many batches as ``keep_bytes`` allows and made again for the others. *Double
backward*: for networks that cannot be traced and for work so small that tracing would not pay; the graph is kept if
all is one batch.

``batch_size`` bounds the memory; where smaller batches are faster (``chunks.py``), traced products take smaller ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from saddlescape.curvature.chunks import chunk_size
from saddlescape.curvature.flat import Selection, flatten
from saddlescape.curvature.function import DoubleBackward, LossFunction
from saddlescape.curvature.guards import held_still, random_vector, to_computing_dtype, uses_batch_statistics
from saddlescape.curvature.linearize import Linearized
from saddlescape.curvature.samples import Samples, gather, split_by_class
from saddlescape.curvature.sums import length, unit
from saddlescape.errors import InputError

ALL = -1  # label of the mean over everything

# Below this many parameters x samples a trace (seconds for a deep network) costs more than it saves in 100 products.
_WORTH_TRACING = 20_000_000
_FEW = 32  # samples at once where double backward is only asked for comparison
_TRUSTED = 2e-3  # how far a traced product may be off; float32 and a ReLU at its kink leave 1e-5 or so


class HessianOperator:
    """``operator(v)``: vector [P] -> ``H v`` [P], in the dtype and on the device of ``operator.like``.

    Built from a ``LossFunction`` and samples. ``method``: ``"auto"``, ``"traced"`` or ``"double_backward"``.
    ``keep_bytes`` bounds what is kept between products; beyond it, batches are recomputed. With ``process_group``, each
    process takes every world_size-th batch and products are summed over the group, so every process gets the same
    vector. The operator holds the group, so let it go before ``destroy_process_group``, which else leaves its threads
    running.

    The weights are those at the time of the last ``refresh``.
    """

    kind = "hessian"

    def __init__(
        self,
        function: LossFunction,
        samples: Samples,
        *,
        batch_size: int = 256,
        method: str = "auto",
        keep_bytes: int = 2 * 1024**3,
        process_group: Any = None,
    ) -> None:
        if method not in ("auto", "traced", "double_backward"):
            raise InputError(f"method must be 'auto', 'traced' or 'double_backward', not {method!r}")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        if uses_batch_statistics(function.model, function.mode) and len(samples) > batch_size:
            raise InputError(
                f"batch normalisation uses batch statistics, so the loss depends on the batches: mode='eval', or"
                f" batch_size >= {len(samples)} to take all samples as one batch"
            )
        self.function, self.samples, self.batch_size = function, samples, batch_size
        self.dim, self.like = function.dim, function.like()
        self.num_products = 0
        self._group = process_group
        self._keep_bytes = keep_bytes
        self._traced = method == "traced" or (method == "auto" and self.dim * len(samples) >= _WORTH_TRACING)
        self._kept: dict[int, Any] = {}
        self._kept_bytes = 0
        with held_still(function.model, function.mode):
            loss = function.mean_loss(samples, batch_size)
            function.check_labels(samples)
            self.normaliser = loss.name
            shares = loss.normalisers(samples.targets.cpu(), len(samples), self.like.cpu()).double()
            if shares.sum() == 0:
                raise InputError("the weights of these samples sum to zero: their mean loss is not defined")
            self._weights = torch.full_like(shares, 1 / float(shares.sum())).to(self.like.dtype)
            if self._traced and process_group is None:
                self.batch_size = chunk_size(function, samples, batch_size)
            self._cuts = cuts(len(samples), self.batch_size, alike=self._traced and loss.per_sample)

    def facts(self) -> dict[str, Any]:
        """What a ``Spectrum`` says of its operator; ``normaliser``: what the mean divides by."""
        loss, gradient = self.loss_and_gradient()
        return {
            "num_samples": len(self.samples), "loss": float(loss), "gradient_norm": length(gradient),
            "normaliser": self.normaliser, "mode": self.function.mode, "kind": self.kind,
            "notes": tuple(self.function.notes),
        }  # fmt: skip

    def held_still(self) -> AbstractContextManager[None]:
        """What every product holds, for many of them."""
        return held_still(self.function.model, self.function.mode)

    def __call__(self, vector: Tensor) -> Tensor:
        """``H v``; raises ``InputError`` for a vector of the wrong length."""
        if vector.shape != (self.dim,):
            raise InputError(f"the vector has shape {tuple(vector.shape)}, the parameters chosen number {self.dim}")
        self.num_products += 1
        with self.held_still():
            vector = to_computing_dtype(vector, self.like.dtype, self.like.device).contiguous()
            total = torch.zeros_like(vector)
            for index, batch, weights in self._batches():
                total += self._product(index, batch, weights, vector).detach()
        return self._reduce(total)

    def loss_and_gradient(self, vector: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The mean loss and its gradient [P], at the weights or at the weights ``vector`` [P] instead."""
        with self.held_still():
            loss, gradient = self.like.new_zeros(()), self.like.new_zeros(self.dim)
            source = self._weights_at(vector)
            for _, batch, weights in self._batches():
                leaves = [p.detach().requires_grad_() for p in source]
                part = self._total(leaves, batch, weights)
                grads = (
                    torch.autograd.grad(part, leaves, allow_unused=True) if part.requires_grad else [None] * len(leaves)
                )
                gradient += flatten(torch.zeros_like(p) if g is None else g for g, p in zip(grads, leaves, strict=True))
                loss += part.detach()
        return self._reduce(loss), self._reduce(gradient)

    def loss(self, vector: Tensor | None = None) -> Tensor:
        """The mean loss, at the weights or at the weights ``vector`` [P] instead."""
        with self.held_still(), torch.no_grad():
            total, source = self.like.new_zeros(()), self._weights_at(vector)
            for _, batch, weights in self._batches():
                total += self._total(source, batch, weights)
        return self._reduce(total)

    def refresh(self) -> None:
        """Go on at the model's present weights."""
        self.function.refresh()
        self._kept.clear()
        self._kept_bytes = 0

    def _weights_at(self, vector: Tensor | None) -> list[Tensor]:
        if vector is None:
            return self.function.parameters
        return self.function.split(to_computing_dtype(vector, self.like.dtype, self.like.device))

    def _total(self, parameters: Any, batch: Samples, weights: Tensor) -> Tensor:
        batch = self.function.prepare(batch)
        logits = self.function.logits(parameters, batch.inputs)
        return self.function.mean_loss(batch).total(logits, batch.targets, weights)

    def _batches(self) -> Iterator[tuple[int, Samples, Tensor]]:
        """This process's batches, as they came, with the weight of each sample."""
        rank, world = 0, 1
        if self._group is not None:
            rank, world = torch.distributed.get_rank(self._group), torch.distributed.get_world_size(self._group)
        for index, (start, fresh, stop) in enumerate(self._cuts):
            if index % world == rank:
                batch = self.samples.take(slice(start, stop))
                weights = self._weights[start:stop]
                if fresh > start:
                    weights = torch.cat([weights.new_zeros(fresh - start), self._weights[fresh:stop]])
                yield index, batch, weights.to(self.like.device)

    def _reduce(self, tensor: Tensor) -> Tensor:
        if self._group is not None:
            torch.distributed.all_reduce(tensor, group=self._group)
        return tensor

    def _product(self, index: int, batch: Samples, weights: Tensor, vector: Tensor) -> Tensor:
        state = self._kept.get(index)
        if state is None:
            state, size = self._linearize(self.function.prepare(batch), weights)
            if self._kept_bytes + size <= self._keep_bytes:
                self._kept[index] = state
                self._kept_bytes += size
        return state.product(vector)

    def _linearize(self, batch: Samples, weights: Tensor) -> tuple[Any, int]:
        """What products of one batch need, and its size in bytes (unknown for a kept autograd graph: only one is
        kept)."""
        graph = self.function.linearized(batch) if self._traced else None
        if graph is not None:
            make = partial(
                TracedBatch, self.function, graph, batch, weights, gauss_newton=self.kind == "gauss_newton"
            )
            state = make() if self.function.trusts_traces else self._first_traced(make, batch, weights)
            if state is not None:
                return state, state.num_bytes
        one_batch = len(batch) == len(self.samples)
        return self._eager(batch, weights), 0 if one_batch else self._keep_bytes + 1

    def _eager(self, batch: Samples, weights: Tensor) -> Any:
        return DoubleBackward(self.function, batch, weights)

    def _first_traced(self, make: Callable[[], TracedBatch], batch: Samples, weights: Tensor) -> TracedBatch | None:
        """The batch traced, and traces trusted from now on, if a product is that by double backward; else None.

        A trace knows no ``torch.no_grad()`` of the network, and an operation's derivative in forward mode may be
        another one than in reverse mode. Double backward takes a few samples at a time, for the memory.
        """
        vector = unit(random_vector(self.dim, self.like, seed=0, stream=103))
        whole = uses_batch_statistics(self.function.model, self.function.mode)
        size = len(batch) if whole or not self.function.mean_loss(batch).per_sample else _FEW
        exact = torch.zeros_like(vector)
        for start in range(0, len(batch), size):
            piece = slice(start, start + size)
            exact += self._eager(batch.take(piece), weights[piece]).product(vector).detach()
        try:
            traced = make()
            error, scale = length(traced.product(vector) - exact), length(exact)
            problem = "" if error <= _TRUSTED * scale else f"a product differs by {error / max(scale, 1e-300):.0e}"
        except Exception as failure:  # as when tracing: of many kinds, and all mean the slower way
            problem = type(failure).__name__
        self.function.trusts_traces = not problem
        if not problem:
            return traced
        self.function.notes.append(f"the traced network is another function ({problem}): products by double backward")
        return None


def cuts(number: int, at_most: int, *, alike: bool) -> list[tuple[int, int, int]]:
    """``number`` samples in as few batches as ``at_most`` allows: (start, fresh, stop) each.

    Batches differ by one sample at most. ``alike``: they are all of one size, so that one trace serves them all, and
    where it costs little that size is ``at_most``, so that it serves other sets too. For that a batch begins early,
    before ``fresh``, with samples that were in the one before and weigh nothing now.

    >>> cuts(7, 3, alike=False), cuts(7, 3, alike=True)
    ([(0, 0, 3), (3, 3, 5), (5, 5, 7)], [(0, 0, 3), (2, 3, 5), (4, 5, 7)])
    """
    pieces = max(1, -(-number // at_most))
    size = -(-number // pieces)
    if not alike or pieces == 1:
        edges = [-(-i * number // pieces) for i in range(pieces + 1)]
        return [(start, start, stop) for start, stop in pairwise(edges)]
    if pieces * at_most <= 1.1 * number:
        size = at_most
    starts = [i * (number - size) // (pieces - 1) for i in range(pieces)]
    return [(start, start if i == 0 else starts[i - 1] + size, start + size) for i, start in enumerate(starts)]


class TracedBatch:
    """Products of one batch by the traced network, its residuals and the loss's own second derivative kept."""

    def __init__(
        self, function: LossFunction, graph: Linearized, batch: Samples, weights: Tensor, *, gauss_newton: bool
    ) -> None:
        self._function, self._graph = function, graph
        with torch.no_grad():
            logits = function.logits(function.parameters, batch.inputs).contiguous()
        self._logits = logits.requires_grad_()
        loss = function.mean_loss(batch).total(self._logits, batch.targets, weights)
        (self._slope,) = torch.autograd.grad(loss, self._logits, create_graph=True)
        slope = self._slope.detach().contiguous()
        # The Hessian is J' L'' J plus the curvature of the network weighted by the slope: without slope, Gauss-Newton.
        self._residuals = graph.residuals(function.primals(batch), torch.zeros_like(slope) if gauss_newton else slope)
        own = {p.untyped_storage().data_ptr() for p in function.primals(batch)}
        storages = {r.untyped_storage().data_ptr(): r.untyped_storage().nbytes() for r in self._residuals}
        self.num_bytes = sum(size for pointer, size in storages.items() if pointer not in own)

    def product(self, vector: Tensor) -> Tensor:
        tangents = self._function.split(vector)
        dz, shared = self._graph.forward(self._residuals, tangents)
        if self._slope.requires_grad:
            (dg,) = torch.autograd.grad(self._slope, self._logits, dz, retain_graph=True)
        else:  # a loss linear in the logits
            dg = torch.zeros_like(dz)
        return flatten(self._graph.backward(self._residuals, shared, tangents, dg.contiguous()))


def operators(
    model: nn.Module,
    loss_fn: Callable[..., Any],
    data: Any,
    *,
    classes: Iterable[int] | None = None,
    params: Selection = None,
    batch_size: int = 256,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    mode: str = "eval",
    dtype: torch.dtype | None = None,
    check: bool = True,
    operator: type[HessianOperator] = HessianOperator,
    **options: Any,
) -> dict[int, Callable[[], HessianOperator]]:
    """How to build the operator of each class (None: of all in the data; ``(ALL,)``: one of all samples): read, check.

    The operators share one ``LossFunction``, which takes ``params``, ``forward``, ``mode`` and ``dtype``. With
    ``check`` data, model and loss are looked through for what has no Hessian. ``options`` go to the operator
    (``method``, ``keep_bytes``, ``process_group``).
    """
    samples = gather(data, check=check)
    sets = {ALL: samples} if classes == (ALL,) else split_by_class(samples, classes)
    function = LossFunction(model, loss_fn, params=params, forward=forward, mode=mode, dtype=dtype)
    if check:
        function.examine(samples, batch_size)
    return {
        label: partial(operator, function, members, batch_size=batch_size, **options)
        for label, members in sets.items()
    }


def build_operator(model: nn.Module, loss_fn: Callable[..., Any], data: Any, **options: Any) -> HessianOperator:
    """The operator of ``model`` under ``loss_fn`` on all of ``data``, in one call; ``options`` as ``operators``."""
    return operators(model, loss_fn, data, classes=(ALL,), **options)[ALL]()


def hessian_vector_product(
    model: nn.Module, loss_fn: Callable[..., Any], data: Any, vector: Tensor, **options: Any
) -> Tensor:
    """``H v`` [P] for one vector [P] (order of the chosen parameters, flattened); options as ``operators``.

    For many products of the same loss, build the operator once: it keeps what they share.
    """
    return build_operator(model, loss_fn, data, **options)(vector)
