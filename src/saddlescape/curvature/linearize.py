"""The network traced once: what knows no vector is run once per batch and kept, the rest once per product.

For a network ``z = f(w)`` under a loss ``L(z)`` with ``g = dL/dz``, a Hessian-vector product is linear in ``v``:

    dz = J v                              forward tangent
    dg = (d2L/dz2) dz                     the loss alone, a matter of [N, C] numbers
    Hv = J' dg + sum_k g_k (d2z_k) v      backward tangent

Traced to a graph, most nodes (the forward pass, the backward pass, all masks) depend on no vector. ``trace`` cuts the
graph in three:

    residuals:  parameters, buffers, inputs, g  ->  what the products need     once per batch and weights
    forward:    v                               ->  dz                         once per product
    backward:   v, dg                           ->  Hv                         once per product

The loss stays outside the graph, so any loss will do. With g = 0 the same graph gives the Gauss-Newton product J' dg.

Rewrites of the graph (``rewrites.py``) make the products cheaper, all of them identities: batch normalisation in eval
mode that directly follows a convolution is folded into its weights, as a differentiable function of the same
parameters, so that no pass over activations remains of it; additions of zero and copies are dropped; on a CPU the two
convolutions of the product rule add up in one place.

Deviations from ``torch.func.linearize``, which does the like for one function at one point:

1. the graph is traced on fake tensors, so tracing costs no arithmetic, and serves every batch of the same shape and
   every later state of the weights;
2. parameters are inputs, not constants, so residuals can be thrown away and made again: memory has a bound;
3. batch normalisation is folded, idle passes are dropped, sums of convolutions are fused;
4. the loss is not part of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functionalize, jvp, vjp
from torch.fx.experimental.proxy_tensor import make_fx

from saddlescape.curvature.rewrites import drop_idle, fold_batch_norm, fuse_sums, hold_padding


class Linearized:
    """The three graphs of a network for one shape of batch (see the module's text)."""

    def __init__(self, residuals: fx.GraphModule, forward: fx.GraphModule, backward: fx.GraphModule) -> None:
        self._residuals, self._forward, self._backward = residuals, forward, backward

    @torch.no_grad()
    def residuals(self, primals: Sequence[Tensor], cotangent: Tensor) -> tuple[Tensor, ...]:
        """All that the products need of one batch at one state of the weights; ``cotangent`` is g [N, C]."""
        return tuple(self._residuals(*primals, cotangent))

    @torch.no_grad()
    def forward(self, residuals: Sequence[Tensor], tangents: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """``v`` (a tensor per parameter) -> ``dz`` [N, C] and what ``backward`` will need of the way there."""
        dz, *shared = self._forward(*residuals, *tangents)
        return dz, tuple(shared)

    @torch.no_grad()
    def backward(
        self, residuals: Sequence[Tensor], shared: Sequence[Tensor], tangents: Sequence[Tensor], dg: Tensor
    ) -> list[Tensor]:
        """``v``, ``dg`` [N, C] -> ``Hv``, a tensor per parameter."""
        return list(self._backward(*residuals, *shared, *tangents, dg))


def trace(
    network: Callable[..., Tensor], parameters: Sequence[Tensor], constants: Sequence[Tensor], logits: Tensor
) -> Linearized:
    """Trace and split ``network(*parameters, *constants) -> logits``; the tensors given serve as examples of shapes.

    Raises whatever the tracer raises where the network cannot be traced (control flow that depends on data,
    operations without forward-mode derivative): the caller has a slower way.
    """
    n, k = len(parameters), len(constants)

    def products(*arguments: Tensor) -> tuple[Tensor, ...]:
        weights, fixed, g = arguments[:n], arguments[n : n + k], arguments[n + k]
        v, dg = arguments[n + k + 1 : -1], arguments[-1]

        def pulled_back(g: Tensor, *w: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
            z, pull = vjp(lambda *w: plain(*w, *fixed), *w)[:2]
            return pull(g), z

        (product, dz) = jvp(pulled_back, (g, *weights), (dg, *v))[1]
        return dz, *product

    with torch.no_grad():
        plain = _make_fx(network, [*parameters, *constants])
    hold_padding(plain)
    fold_batch_norm(plain)
    # Each argument an object of its own: the tracer takes two uses of one tensor for one variable.
    examples = [torch.empty_like(x) for x in (logits, *parameters, logits)]
    graph = _make_fx(products, [*parameters, *constants, *examples])
    drop_idle(graph)
    return _split(graph, n + k + 1, n)


def _make_fx(function: Callable[..., Any], arguments: Sequence[Tensor]) -> fx.GraphModule:
    # Written without mutation: a node moved to another graph must not depend on what another one overwrote.
    module = make_fx(functionalize(function), tracing_mode="fake", _allow_non_fake_inputs=True)(*arguments)
    module.graph.eliminate_dead_code()
    return module


def _split(module: fx.GraphModule, num_primals: int, num_tangents: int) -> Linearized:
    nodes = list(module.graph.nodes)
    output, nodes = nodes[-1], nodes[:-1]
    dz, product = output.args[0][0], list(output.args[0][1:])
    placeholders = [node for node in nodes if node.op == "placeholder"]
    tangents = placeholders[num_primals : num_primals + num_tangents]
    dg = placeholders[-1]

    moving = {*tangents, dg}  # everything that depends on a vector
    for node in nodes:
        if any(parent in moving for parent in node.all_input_nodes):
            moving.add(node)
    towards_dz = {dz}
    for node in reversed(nodes):
        if node in towards_dz:
            towards_dz.update(node.all_input_nodes)

    still = [node for node in nodes if node not in moving]
    first = [node for node in nodes if node in moving and node in towards_dz and node.op != "placeholder"]
    taken = {*first, *placeholders}
    second = [node for node in nodes if node in moving and node not in taken]

    wanted_first, wanted_second = ([parent for node in part for parent in node.all_input_nodes]
                                   for part in (first, second))  # fmt: skip
    wanted_second += [x for x in product if isinstance(x, fx.Node)]
    wanted = dict.fromkeys([*wanted_first, dz, *wanted_second])
    carried = [x for x in wanted if isinstance(x, fx.Node) and x not in moving]
    shared = [x for x in dict.fromkeys(wanted_second) if x in taken and x in moving and x.op != "placeholder"]
    return Linearized(
        _subgraph(module, placeholders[:num_primals], still, carried),
        _subgraph(module, [*carried, *tangents], first, [dz, *shared]),
        _subgraph(module, [*carried, *shared, *tangents, dg], second, product),
    )


def _subgraph(
    module: fx.GraphModule, inputs: Sequence[fx.Node], body: Sequence[fx.Node], outputs: Sequence[Any]
) -> fx.GraphModule:
    graph, images = fx.Graph(), {}
    for i, node in enumerate(inputs):
        images[node] = graph.placeholder(f"x{i}")
        images[node].meta = dict(node.meta)
    for node in body:
        if node.op != "placeholder":
            images[node] = graph.node_copy(node, lambda n: images[n])
    graph.output(tuple(fx.node.map_arg(x, lambda n: images[n]) for x in outputs))
    graph.eliminate_dead_code()
    part = fx.GraphModule(module, graph)
    fuse_sums(part)
    return part
