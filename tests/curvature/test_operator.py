"""Hessian- and Gauss-Newton-vector products against the dense Hessian, for all the ways to a product."""

from __future__ import annotations

import gc
import resource

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, jacrev

from saddlescape.curvature import GaussNewtonOperator, build_operator, hessian_vector_product

METHODS = ["traced", "double_backward"]


def vector(dim, seed=0):
    return torch.randn(dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batch_size", [5, 100])
def test_equals_dense_hessian(net, dense, method, batch_size):
    truth = dense(*net)
    operator = build_operator(net.model, F.cross_entropy, net.data, batch_size=batch_size, method=method)
    v = vector(operator.dim)
    assert operator.function.notes == []
    torch.testing.assert_close(operator(v), truth @ v, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_gauss_newton_equals_jacobian_formula(net, method):
    names = [k for k, _ in net.model.named_parameters()]
    values = [p.detach() for p in net.model.parameters()]
    rows = jacrev(
        lambda *p: functional_call(net.model, dict(zip(names, p, strict=True)), (net.inputs,)), tuple(range(len(names)))
    )(*values)
    jacobian = torch.cat([r.flatten(2) for r in rows], 2)
    p = net.model(net.inputs).detach().softmax(1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    truth = torch.einsum("ncp,ncd,ndq->pq", jacobian, middle, jacobian) / len(p)
    operator = build_operator(
        net.model, F.cross_entropy, net.data, batch_size=10, method=method, operator=GaussNewtonOperator
    )
    v = vector(operator.dim)
    torch.testing.assert_close(operator(v), truth @ v, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_any_cut_into_batches_gives_the_same(net, method):
    v = vector(264)
    products = [
        hessian_vector_product(net.model, F.cross_entropy, net.data, v, batch_size=b, method=method, check=False)
        for b in ((1, 3, 7, 22, 23, 50) if method == "double_backward" else (12, 23))
    ]
    for product in products[1:]:
        torch.testing.assert_close(product, products[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_bit_equal_on_repeat_and_without_keeping(net, method):
    v = vector(264)
    operators = [
        build_operator(net.model, F.cross_entropy, net.data, batch_size=12, method=method, keep_bytes=keep, check=False)
        for keep in (2**30, 0)
    ]
    first = operators[0](v)
    assert torch.equal(first, operators[0](v))
    assert torch.equal(first, operators[1](v))
    assert not operators[1]._kept


def test_linear_in_float32_too(net):
    model = net.model.float()
    operator = build_operator(model, F.cross_entropy, (net.inputs.float(), net.targets), method="traced")
    u, v = vector(264).float(), vector(264, 1).float()
    torch.testing.assert_close(operator(2 * u - 3 * v), 2 * operator(u) - 3 * operator(v), rtol=1e-4, atol=1e-5)


def test_convolution_with_bias_and_transposed_convolution(dense):
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv1d(2, 3, 3),
        nn.BatchNorm1d(3),
        nn.ConvTranspose1d(3, 2, 2),
        nn.BatchNorm1d(2, affine=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(14, 2),
    ).double()
    x, y = torch.randn(9, 2, 8, dtype=torch.float64), torch.arange(9) % 2
    model(x)
    model.eval()
    operator = build_operator(model, F.cross_entropy, (x, y), method="traced")
    v = vector(operator.dim)
    assert operator.function.notes == []
    torch.testing.assert_close(operator(v), dense(model, x, y) @ v, rtol=1e-10, atol=1e-12)


def test_weighted_whole_set_divides_by_the_sum_of_weights(net, dense):
    weight = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    loss = nn.CrossEntropyLoss(weight=weight)
    truth = dense(*net, loss)
    operator = build_operator(net.model, loss, net.data, batch_size=4)
    assert operator.normaliser == "class weights"
    v = vector(264)
    torch.testing.assert_close(operator(v), truth @ v, rtol=1e-10, atol=1e-12)


def test_weighted_loss_that_divides_by_samples(net, dense):
    weight = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)

    class SampleMean(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", weight)
            self.reduction = "mean"

        def forward(self, logits, target):
            values = F.cross_entropy(logits, target, weight=self.weight, reduction="none")
            return values.mean() if self.reduction == "mean" else values

    loss = SampleMean()
    operator = build_operator(net.model, loss, net.data, batch_size=4)
    assert operator.normaliser == "samples" and loss.reduction == "mean"
    v = vector(264)
    torch.testing.assert_close(operator(v), dense(*net, loss) @ v, rtol=1e-10, atol=1e-12)


def test_regression_with_float_targets(mlp, dense):
    y = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    operator = build_operator(mlp.model, nn.MSELoss(), (mlp.inputs, y), batch_size=7, method="traced")
    v = vector(operator.dim)
    torch.testing.assert_close(operator(v), dense(mlp.model, mlp.inputs, y, nn.MSELoss()) @ v, rtol=1e-10, atol=1e-12)


def test_loss_that_looks_at_its_targets_is_traced_all_the_same(mlp, dense):
    def careful(z, t):
        if int(t.max()) >= z.shape[1]:
            raise ValueError("label out of range")
        return F.cross_entropy(z, t)

    operator = build_operator(mlp.model, careful, mlp.data, method="traced")
    v = vector(operator.dim)
    assert not any("traced" in note for note in operator.function.notes)
    torch.testing.assert_close(operator(v), dense(*mlp) @ v, rtol=1e-10, atol=1e-12)


def test_loss_and_gradient_at_other_weights(mlp):
    operator = build_operator(mlp.model, F.cross_entropy, mlp.data, batch_size=6)
    before = [p.detach().clone() for p in mlp.model.parameters()]
    loss = F.cross_entropy(mlp.model(mlp.inputs), mlp.targets)
    grads = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(mlp.model.parameters()))])
    ours, gradient = operator.loss_and_gradient()
    torch.testing.assert_close(ours, loss.detach())
    torch.testing.assert_close(gradient, grads)
    away = operator.function.vector() + 0.1
    with torch.no_grad():
        for p in mlp.model.parameters():
            p.add_(0.1)
        there = F.cross_entropy(mlp.model(mlp.inputs), mlp.targets)
        for p, old in zip(mlp.model.parameters(), before, strict=True):
            p.copy_(old)
    torch.testing.assert_close(operator.loss(away), there)
    torch.testing.assert_close(operator.loss_and_gradient(away)[0], there)


@pytest.mark.parametrize("method", METHODS)
def test_refresh_reads_new_weights(mlp, dense, method):
    operator = build_operator(mlp.model, F.cross_entropy, mlp.data, method=method)
    v = vector(operator.dim)
    old = operator(v)
    with torch.no_grad():
        for p in mlp.model.parameters():
            p.mul_(1.5)
    assert torch.equal(operator(v), old)
    operator.refresh()
    torch.testing.assert_close(operator(v), dense(*mlp) @ v, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_unused_layer_has_zero_rows_and_frozen_is_left_out(dense, method):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.unused, self.head = nn.Linear(4, 5), nn.Linear(7, 7), nn.Linear(5, 3)

        def forward(self, x):
            return self.head(self.body(x).tanh())

    torch.manual_seed(0)
    model = Net().double()
    x, y = torch.randn(8, 4, dtype=torch.float64), torch.arange(8) % 3
    operator = build_operator(model, F.cross_entropy, (x, y), method=method)
    assert operator.dim == 25 + 56 + 18
    product = operator(vector(operator.dim))
    assert torch.equal(product[25:81], torch.zeros(56, dtype=torch.float64)) and product[:25].abs().min() > 0
    model.body.requires_grad_(False)
    model.unused.requires_grad_(False)
    operator = build_operator(model, F.cross_entropy, (x, y), method=method)
    assert operator.dim == 18
    v = vector(18)
    torch.testing.assert_close(operator(v), dense(model, x, y) @ v, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("params", ["2", ["2.weight", "2.bias"], lambda name, p: name.startswith("2")])
def test_parameter_subsets(mlp, dense, params):
    operator = build_operator(mlp.model, F.cross_entropy, mlp.data, params=params)
    v = vector(21)
    truth = dense(*mlp, names=["2.weight", "2.bias"])
    torch.testing.assert_close(operator(v), truth @ v, rtol=1e-10, atol=1e-12)


def test_subset_given_as_tensors(mlp):
    by_tensor = build_operator(mlp.model, F.cross_entropy, mlp.data, params=list(mlp.model[2].parameters()))
    assert by_tensor.function.names == ["2.weight", "2.bias"]


def test_network_that_cannot_be_traced_goes_the_slower_way(mlp, dense):
    class Branching(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            z = self.inner(x)
            return z * 2 if float(z.detach().sum()) > 1e9 else z

    operator = build_operator(Branching(mlp.model), F.cross_entropy, mlp.data, method="traced")
    v = vector(operator.dim)
    torch.testing.assert_close(operator(v), dense(*mlp) @ v, rtol=1e-10, atol=1e-12)
    assert any("could not be traced" in note for note in operator.function.notes)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_memory_is_flat(mlp, method):
    wide = nn.Sequential(nn.Linear(9, 100), nn.Tanh(), nn.Linear(100, 3))
    operator = build_operator(
        wide, F.cross_entropy, (mlp.inputs.float().repeat(20, 1), mlp.targets.repeat(20)), method=method
    )
    v = torch.randn(operator.dim)
    for _ in range(20):
        operator(v)
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tensors = sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())
    for _ in range(200):
        operator(v)
    gc.collect()
    assert sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()) <= tensors
    # A leak of one product's activations (400 x 100 floats) would be 32 MB per tensor kept.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 25_000


@pytest.mark.parametrize("method", METHODS)
def test_inplace_relu_and_inplace_add(dense, method):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            out = F.relu(self.a(x), inplace=True)
            out = self.b(out)
            out += x
            return self.head(F.relu_(out))

    torch.manual_seed(0)
    model = Block().double()
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 3
    operator = build_operator(model, F.cross_entropy, (x, y), method=method)
    v = vector(operator.dim)
    torch.testing.assert_close(operator(v), dense(model, x, y) @ v, rtol=1e-10, atol=1e-12)
