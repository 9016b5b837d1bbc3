"""Rewrites of a traced graph that make it cheaper and leave what it computes as it is.

``fold_batch_norm``: batch normalisation in eval mode after a convolution becomes part of the convolution's weights.
``hold_padding``: the padding row of an embedding is a constant for every derivative.
``drop_idle``: additions of zero, copies onto the same shape and casts to the same dtype, which forward-mode
differentiation leaves behind by the dozen, each of them a pass over activations.
``fuse_sums``: ``conv(x, V) + conv(dx, W)``, the product rule of a convolution, by a convolution that adds onto the
other's output (oneDNN's sum). The gradient with respect to the input of a convolution of stride 1 is a convolution
with the flipped kernel, so it takes part. Only for float32 and bfloat16 on a CPU.

Each is an identity of real numbers; the first and the last round differently. ``-0.0`` may turn into ``0.0``, and a
zero times an infinite activation is taken for zero.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

ops: Any = torch.ops.aten
_ONEDNN: Any = torch.ops.mkldnn

_BATCH_NORMS = {
    # target -> position of eps; all of them take (input, weight, bias, running_mean, running_var, ...)
    ops._native_batch_norm_legit_no_training.default: 6,
    ops.native_batch_norm.default: 7,
    ops.cudnn_batch_norm.default: 7,
}
_CONVOLUTION: Any = ops.convolution.default
_CONVOLUTION_BACKWARD: Any = ops.convolution_backward.default
_ZEROS = {ops.zeros.default, ops.zeros_like.default, ops.new_zeros.default}
# A zero in the first place makes these zero.
_CARRIES_ZERO = {
    ops.alias.default, ops.expand.default, ops.view.default, ops.neg.default, ops.threshold_backward.default,
    ops._to_copy.default, ops.clone.default, ops.slice.Tensor, ops.permute.default, ops.t.default,
}  # fmt: skip


def fold_batch_norm(module: fx.GraphModule) -> int:
    """Rewrite ``batch_norm(conv(x, W, b))`` in eval mode as one convolution; returns how many were rewritten.

    With ``s = gamma / sqrt(var + eps)``: ``conv(x, W * s, (b - mean) * s + beta)``. ``gamma``, ``beta``, ``W`` and
    ``b`` stay the free variables, so all derivatives with respect to them are those of the original.
    """
    graph, folded = module.graph, 0
    for node in list(graph.nodes):
        if node.target not in _BATCH_NORMS or not _only_output_used(node):
            continue
        arguments: Any = node.args
        source, gamma, beta, mean, variance = arguments[:5]
        if node.target is not ops._native_batch_norm_legit_no_training.default and node.args[5]:
            continue  # batch statistics: not affine in the input
        if not isinstance(source, fx.Node) or source.target is not _CONVOLUTION or len(source.users) != 1:
            continue
        if source.args[6]:  # transposed: output channels are the second dimension of the weight
            continue
        eps = node.args[_BATCH_NORMS[node.target]]
        x, weight, bias = source.args[:3]
        dims = source.args[1].meta["val"].dim()  # type: ignore[union-attr]
        with graph.inserting_before(node):
            scale = graph.call_function(ops.rsqrt.default, (graph.call_function(ops.add.Scalar, (variance, eps)),))
            if gamma is not None:
                scale = graph.call_function(ops.mul.Tensor, (scale, gamma))
            column = graph.call_function(ops.view.default, (scale, [-1] + [1] * (dims - 1)))
            new_weight = graph.call_function(ops.mul.Tensor, (weight, column))
            if bias is None:
                centred = graph.call_function(ops.neg.default, (mean,))
            else:
                centred = graph.call_function(ops.sub.Tensor, (bias, mean))
            new_bias = graph.call_function(ops.mul.Tensor, (centred, scale))
            if beta is not None:
                new_bias = graph.call_function(ops.add.Tensor, (new_bias, beta))
            fused = graph.call_function(ops.convolution.default, (x, new_weight, new_bias, *source.args[3:]))
        for user in list(node.users):
            user.replace_all_uses_with(fused)
            graph.erase_node(user)
        graph.erase_node(node)
        graph.erase_node(source)
        folded += 1
    module.recompile()
    return folded


def hold_padding(module: fx.GraphModule) -> int:
    """Make the padding row of an embedding a constant, as its gradient has it; returns how many were rewritten.

    The derivative in forward mode would move that row, and the product would not be symmetric.
    """
    graph, held = module.graph, 0
    for node in list(graph.nodes):
        padding = node.args[2] if node.target is ops.embedding.default and len(node.args) > 2 else -1
        if padding == -1:
            continue
        weight, indices = node.args[:2]
        with graph.inserting_before(node):
            still = graph.call_function(ops.detach.default, (weight,))
            is_padding = graph.call_function(
                ops.unsqueeze.default, (graph.call_function(ops.eq.Scalar, (indices, padding)), -1)
            )
            rows = [graph.call_function(ops.embedding.default, (table, indices)) for table in (still, weight)]
            new = graph.call_function(ops.where.self, (is_padding, *rows))
        node.replace_all_uses_with(new)
        graph.erase_node(node)
        held += 1
    module.recompile()
    return held


def drop_idle(module: fx.GraphModule) -> int:
    """Replace what only hands a tensor on, and what is zero; returns how many nodes went."""
    graph, zeros, dropped = module.graph, set[fx.Node](), 0
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if _is_zero(node, zeros):
            zeros.add(node)
            continue
        same = _handed_on(node, zeros)
        if same is not None and _alike(same, node):
            node.replace_all_uses_with(same)
            graph.erase_node(node)
            dropped += 1
    graph.eliminate_dead_code()
    module.recompile()
    return dropped


def fuse_sums(module: fx.GraphModule) -> int:
    """Let a convolution add its output onto another one's in place; returns how many sums went.

    The sum's first operand must be a convolution's fresh output that nobody else reads, so overwriting it is unseen.
    """
    if not hasattr(_ONEDNN, "_convolution_pointwise_"):
        return 0
    graph, fused = module.graph, 0
    fresh = set[fx.Node]()
    for node in list(graph.nodes):
        if _convolves(node):
            fresh.add(node)
        if node.target is not ops.add.Tensor or node.kwargs or len(node.args) != 2:
            continue
        a, b = node.args
        if not (isinstance(a, fx.Node) and isinstance(b, fx.Node) and a is not b):
            continue
        if not (_alike(a, node) and _alike(b, node)):
            continue
        into, last = (a, b) if a < b else (b, a)
        if into not in fresh or len(into.users) != 1 or len(last.users) != 1 or not _fusible(last):
            continue
        with graph.inserting_before(node):
            x, weight, padding, stride, dilation, groups = _as_convolution(graph, last)
            total = graph.call_function(
                _ONEDNN._convolution_pointwise_.binary,
                (into, x, weight, None, padding, stride, dilation, groups, "add", None, None, [], None),
            )
        total.meta = dict(node.meta)
        node.replace_all_uses_with(total)
        graph.erase_node(node)
        fresh.add(total)
        fused += 1
    graph.eliminate_dead_code()
    module.recompile()
    return fused


def _value(node: Any) -> Any:
    return node.meta.get("val") if isinstance(node, fx.Node) else None


def _alike(a: fx.Node, b: fx.Node) -> bool:
    """Whether one may stand for the other: strides count, since a view made of it may need them."""
    x, y = _value(a), _value(b)
    if not isinstance(x, torch.Tensor) or not isinstance(y, torch.Tensor):
        return False
    return (x.shape, x.stride(), x.dtype, x.device) == (y.shape, y.stride(), y.dtype, y.device)


def _is_zero(node: fx.Node, zeros: set[fx.Node]) -> bool:
    if node.target in _ZEROS or getattr(node.target, "__name__", "").startswith("_new_zeros_with_same_feature_meta"):
        return True
    arguments: Any = node.args
    if node.target in _CARRIES_ZERO:
        return arguments[0] in zeros
    if node.target is ops.mul.Tensor:
        return arguments[0] in zeros or arguments[1] in zeros
    if node.target is ops.add.Tensor:
        return arguments[0] in zeros and arguments[1] in zeros
    if node.target is _CONVOLUTION:
        return arguments[2] is None and (arguments[0] in zeros or arguments[1] in zeros)
    if node.target is operator.getitem:
        source = arguments[0]
        if isinstance(source, fx.Node) and source.target is _CONVOLUTION_BACKWARD:
            gradient, x, weight = source.args[:3]
            return gradient in zeros or (arguments[1] == 0 and weight in zeros) or (arguments[1] == 1 and x in zeros)
    return False


def _handed_on(node: fx.Node, zeros: set[fx.Node]) -> fx.Node | None:
    """The argument that this node's value equals, if it is one."""
    arguments: Any = node.args
    found = None
    if node.target is ops.add.Tensor and not node.kwargs:
        found = arguments[1] if arguments[0] in zeros else arguments[0] if arguments[1] in zeros else None
    elif node.target is ops.sub.Tensor and not node.kwargs:
        found = arguments[0] if arguments[1] in zeros else None
    elif node.target is ops.copy.default:
        found = arguments[1]
    elif node.target in (ops.expand.default, ops._to_copy.default, ops.alias.default):
        found = arguments[0]
    return found if isinstance(found, fx.Node) else None


def _convolves(node: fx.Node) -> bool:
    """A convolution, or the gradient of one with respect to its input."""
    if node.target is _CONVOLUTION:
        return True
    source = node.args[0] if node.args else None
    return bool(
        node.target is operator.getitem
        and node.args[1] == 0
        and isinstance(source, fx.Node)
        and source.target is _CONVOLUTION_BACKWARD
    )


def _fusible(node: fx.Node) -> bool:
    value = _value(node)
    if not _convolves(node) or value.dim() != 4 or value.device.type != "cpu":
        return False
    if value.dtype not in (torch.float32, torch.bfloat16):
        return False
    if node.target is _CONVOLUTION:
        return node.args[2] is None and not node.args[6]
    source: Any = node.args[0]
    _, _, weight, _, stride, padding, dilation, transposed, _, groups, wanted = source.args
    kernel = _value(weight).shape[2:]
    return (
        not transposed
        and groups == 1
        and all(s == 1 for s in stride)
        and all((k - 1) * d - p >= 0 for p, k, d in zip(padding, kernel, dilation, strict=True))
        and list(wanted) == [True, False, False]
    )


def _as_convolution(graph: fx.Graph, node: fx.Node) -> tuple[Any, ...]:
    """(input, weight, padding, stride, dilation, groups)"""
    if node.target is _CONVOLUTION:
        x, weight, _, stride, padding, dilation, _, _, groups = node.args
        return x, weight, padding, stride, dilation, groups
    source: Any = node.args[0]
    gradient, _, weight, _, stride, padding, dilation, *_ = source.args
    kernel = _value(weight).shape[2:]
    flipped = graph.call_function(ops.flip.default, (weight, [2, 3]))
    turned = graph.call_function(ops.transpose.int, (flipped, 0, 1))
    padding = [(k - 1) * d - p for p, k, d in zip(padding, kernel, dilation, strict=True)]
    return gradient, turned, padding, stride, dilation, 1


def _only_output_used(node: fx.Node) -> bool:
    """Whether of (output, saved mean, saved deviation) only the output has a reader; readers without readers go."""
    for user in list(node.users):
        if not user.users:
            node.graph.erase_node(user)
    return all(user.target is operator.getitem and user.args[1] == 0 for user in node.users)
