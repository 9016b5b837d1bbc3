"""What is refused, what is held still, and that everything is left as it was found."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from saddlescape.curvature import (
    CurvatureTracker,
    FunctionOperator,
    build_operator,
    class_spectra,
    extreme_eigenpairs,
    extremes,
    hessian_vector_product,
    lanczos,
    loss_surface,
    rho_threshold,
    sam_gain,
    spectrum,
    trace,
)
from saddlescape.errors import InputError

X = torch.randn(18, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(18) % 3


def small(*extra):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), *extra, nn.Tanh(), nn.Linear(5, 3)).double()


def snapshot(model):
    return {
        "modes": [m.training for m in model.modules()],
        "flags": [p.requires_grad for p in model.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "weights": [p.detach().clone() for p in model.parameters()],
        "buffers": [b.clone() for b in model.buffers()],
        "rng": torch.get_rng_state(),
        "sdp": [
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
            torch.backends.mha.get_fastpath_enabled(),
            torch.backends.cudnn.enabled,
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.backends.mkldnn.enabled,
            torch.get_float32_matmul_precision(),
            torch.is_grad_enabled(),
        ],
    }


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        left, right = a[key], b[key]
        if isinstance(left, torch.Tensor):
            assert torch.equal(left, right), key
            continue
        for x, y in zip(left, right, strict=True):
            assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y, key


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_left_as_found(fails):
    model = small(nn.BatchNorm1d(5))
    model.train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    F.cross_entropy(model(X), Y).backward()
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.set_float32_matmul_precision("medium")
    calls = []

    def loss(z, t):
        calls.append(1)
        if fails and len(calls) > 8:
            raise RuntimeError("boom")
        return F.cross_entropy(z, t)

    try:
        before = snapshot(model)
        with torch.no_grad():
            before_no_grad = torch.is_grad_enabled()
            if fails:
                with pytest.raises(RuntimeError, match="boom"):
                    class_spectra(model, loss, (X, Y), lanczos_steps=5)
            else:
                class_spectra(model, loss, (X, Y), lanczos_steps=5)
            assert torch.is_grad_enabled() == before_no_grad
        assert_same(before, snapshot(model))
    finally:
        torch.backends.cuda.enable_mem_efficient_sdp(True)
        torch.set_float32_matmul_precision("highest")


def test_dropout_in_train_mode_is_refused_and_named():
    model = small(nn.Dropout(0.5))
    model.train()
    with pytest.raises(InputError, match=r"'1'.*Dropout\(p=0.5\)"):
        class_spectra(model, F.cross_entropy, (X, Y))
    class_spectra(model.eval(), F.cross_entropy, (X, Y), lanczos_steps=3)


@pytest.mark.parametrize(
    ("noise", "loss", "words"),
    [
        (lambda x: F.dropout(x, 0.5, training=True), F.cross_entropy, "halves|random"),
        (lambda x: x * torch.bernoulli(torch.full_like(x, 0.5)), nn.CrossEntropyLoss(), "random"),
    ],
)
def test_randomness_that_is_no_layer_is_found_out(noise, loss, words):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small()

        def forward(self, x):
            return self.inner(noise(x))

    with pytest.raises(InputError, match=words):
        build_operator(Noisy(), loss, (X, Y))


def test_augmenting_loader_is_refused():
    class Augmented(TensorDataset):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x + torch.randn_like(x), y

    with pytest.raises(InputError, match="other images"):
        class_spectra(small(), F.cross_entropy, DataLoader(Augmented(X, Y), batch_size=5))


def test_shuffling_loader_is_fine_but_drop_last_is_told():
    shuffled = class_spectra(
        small(), F.cross_entropy, DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=True), lanczos_steps=4
    )
    plain = class_spectra(small(), F.cross_entropy, (X, Y), lanczos_steps=4)
    for label in plain:
        assert shuffled[label].lambda_max == pytest.approx(plain[label].lambda_max, rel=1e-10)
    with pytest.warns(UserWarning, match="drop_last=True: 3 of 18"):
        class_spectra(
            small(), F.cross_entropy, DataLoader(TensorDataset(X, Y), batch_size=5, drop_last=True), lanczos_steps=2
        )
    with pytest.warns(UserWarning, match="drop_last"), pytest.raises(InputError, match="other images"):
        class_spectra(
            small(), F.cross_entropy, DataLoader(TensorDataset(X, Y), batch_size=7, drop_last=True, shuffle=True)
        )


def test_asymmetric_operator_is_found_out():
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * 3 * x**2 * (1 + x[:, [1, 0, 3, 2, 4]])

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 5).double(), nn.Linear(5, 3).double()

        def forward(self, x):
            return self.b(Wrong.apply(self.a(x)))

    with pytest.raises(InputError, match="not symmetric"):
        class_spectra(Net(), F.cross_entropy, (X, Y))


def test_a_class_fitted_to_the_last_digits_of_its_loss_is_measured():
    """Its slopes 1 - p are a few roundings of 1, so the products are no more symmetric than that allows."""
    model = small()
    with torch.no_grad():
        model[2].weight.mul_(100)
        fitted = model(X).argmax(dim=1)
        loss = F.cross_entropy(model(X), fitted, reduction="none")
    kept = (loss > 0) & (loss < 1e-13)
    assert kept.any()
    found = spectrum(model, F.cross_entropy, (X[kept], fitted[kept]), lanczos_steps=3)
    assert 0 <= found.lambda_max < 1e-6


def spoiled(tensor):
    """With a NaN in its first place."""
    with torch.no_grad():
        tensor.view(-1)[0] = float("nan")
    return tensor


def spoiled_model():
    model = small()
    spoiled(model[2].weight)
    return model


@pytest.mark.parametrize(
    ("model", "loss", "data", "options", "words"),
    [
        (spoiled_model, F.cross_entropy, (X, Y), {}, r"'2.weight'.*NaN"),
        (small, F.cross_entropy, (spoiled(X.clone()), Y), {}, "NaN|nan"),
        (small, F.cross_entropy, (X, Y), {"classes": [0, 7]}, r"class 7 has no sample.*0, 1, 2"),
        *((small, loss, (X, Y), {}, r"one number, but returned \(\d+,\)") for loss in (
            nn.CrossEntropyLoss(reduction="none"), lambda z, t: F.cross_entropy(z, t, reduction="none"))),
        (small, nn.CrossEntropyLoss(reduction="sum"), (X, Y), {}, "sum"),
        (small, lambda z, t: F.cross_entropy(z, t, reduction="sum"), (X, Y), {}, "halves"),
        (small, F.cross_entropy, (X, Y), {"dtype": torch.float16}, r"torch\.float32 or torch\.float64"),
        (small, F.cross_entropy, (X, Y), {"dtype": "float64"}, r"torch\.float32 or torch\.float64"),
        # Only one class fits into one batch here, and it comes first.
        (lambda: small(nn.BatchNorm1d(5)), F.cross_entropy, (X, torch.tensor([0] * 4 + [1] * 14)),
         {"mode": "train", "batch_size": 5}, "batch_size >= 14"),
        (small, F.cross_entropy, (X, Y[:5]), {}, "18.*5"),
        (small, F.cross_entropy, [], {}, "no batch"),
        (small, F.cross_entropy, 3, {}, "iterable"),
        (small, F.cross_entropy, (X, torch.randn(18, dtype=torch.float64)), {}, "class labels"),
        (small, F.cross_entropy, [{"x": X}], {}, "targets"),
        (small, F.cross_entropy, (X[:0], Y[:0]), {}, "no sample"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_one_line(model, loss, data, options, words):
    with pytest.raises(InputError, match=words) as caught:
        class_spectra(model(), loss, data, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["traced", "double_backward"])
def test_attention_equals_explicit_attention(dense, method):
    class Attention(nn.Module):
        def __init__(self, fused):
            super().__init__()
            self.fused = fused
            self.qkv, self.head = nn.Linear(4, 12), nn.Linear(4, 3)

        def forward(self, x):
            q, k, v = self.qkv(x).view(len(x), 5, 3, 2, 2).permute(2, 0, 3, 1, 4)
            if self.fused:
                out = F.scaled_dot_product_attention(q, k, v)
            else:
                out = (q @ k.transpose(-1, -2) / 2**0.5).softmax(-1) @ v
            return self.head(out.transpose(1, 2).reshape(len(x), 5, 4).mean(1))

    torch.manual_seed(0)
    fused, explicit = Attention(True).double(), Attention(False).double()
    explicit.load_state_dict(fused.state_dict())
    x, y = torch.randn(6, 5, 4, dtype=torch.float64), torch.arange(6) % 3
    operator = build_operator(fused, F.cross_entropy, (x, y), method=method)
    v = torch.randn(operator.dim, dtype=torch.float64)
    torch.testing.assert_close(operator(v), dense(explicit, x, y) @ v, rtol=1e-10, atol=1e-12)
    if method == "traced":
        assert not any("traced" in note for note in operator.function.notes)


def slope_difference(operator, v):
    """``Hv`` by central differences of gradients, which need no second derivative."""
    at, h = operator.function.vector(), 1e-5
    return (operator.loss_and_gradient(at + h * v)[1] - operator.loss_and_gradient(at - h * v)[1]) / (2 * h)


@pytest.mark.parametrize("method", ["traced", "double_backward"])
def test_transformer_encoder_layer(method):
    """Against differences: ``torch.func.hessian`` of layer norm is not symmetric in torch 2.13 (off by 0.06 here)."""

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1, batch_first=True), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.layer(x).mean(1))

    torch.manual_seed(0)
    model = Encoder().double().eval()
    x, y = torch.randn(6, 5, 4, dtype=torch.float64), torch.arange(6) % 3
    operator = build_operator(model, F.cross_entropy, (x, y), method=method)
    v = torch.randn(operator.dim, dtype=torch.float64)
    v = v / v.norm()
    torch.testing.assert_close(operator(v), slope_difference(operator, v), rtol=1e-6, atol=1e-8)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(kind):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = kind(3, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    torch.manual_seed(0)
    model = Recurrent().double()
    x, y = torch.randn(6, 5, 3, dtype=torch.float64), torch.arange(6) % 3
    operator = build_operator(model, F.cross_entropy, (x, y))
    v = torch.randn(operator.dim, dtype=torch.float64)
    v = v / v.norm()
    torch.testing.assert_close(operator(v), slope_difference(operator, v), rtol=1e-6, atol=1e-8)


def test_train_mode_model_is_measured_in_eval_and_says_so(net, dense):
    truth = dense(*net)
    net.model.train()
    net.model.register_buffer("counter", torch.tensor(3))
    net.model.register_buffer("phase", torch.tensor([1 + 2j]))
    before = [b.clone() for b in net.model.buffers()]
    found = spectrum(net.model, F.cross_entropy, net.data, lanczos_steps=80)
    assert found.lambda_max == pytest.approx(float(torch.linalg.eigvalsh(truth)[-1]), rel=1e-8)
    assert found.mode == "eval" and any("train mode" in note for note in found.notes)
    assert all(torch.equal(a, b) for a, b in zip(before, net.model.buffers(), strict=True))
    assert net.model.training


@pytest.mark.parametrize("method", ["traced", "double_backward"])
def test_batch_statistics_only_in_one_batch(method):
    model = small(nn.BatchNorm1d(5))
    model.train()
    before = [b.clone() for b in model.buffers()]
    operator = build_operator(model, F.cross_entropy, (X, Y), mode="train", method=method)
    v = torch.randn(operator.dim, dtype=torch.float64)
    v = v / v.norm()
    torch.testing.assert_close(operator(v), slope_difference(operator, v), rtol=1e-5, atol=1e-8)
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    with pytest.raises(InputError, match="batch statistics"):
        build_operator(model, F.cross_entropy, (X, Y), mode="train", batch_size=6)


class Wrapped(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.inner, self.how = small(), how

    def forward(self, x=None, scale=None):
        z = self.inner(x if scale is None else x * scale)
        return {
            "tuple": lambda: (z, "features"),
            "dict": lambda: {"logits": z, "loss": None},
            "object": lambda: SimpleNamespace(logits=z),
            "odd": lambda: {"scores": z},
        }[self.how]()


@pytest.mark.parametrize("how", ["tuple", "dict", "object"])
@pytest.mark.parametrize("method", ["traced", "double_backward"])
def test_logits_are_found(how, method):
    truth = build_operator(small(), F.cross_entropy, (X, Y), method="double_backward")
    v = torch.randn(truth.dim, dtype=torch.float64)
    operator = build_operator(Wrapped(how), F.cross_entropy, (X, Y), method=method)
    torch.testing.assert_close(operator(v), truth(v))


def test_unknown_output_asks_for_a_function():
    with pytest.raises(InputError, match=r"scores.*forward="):
        build_operator(Wrapped("odd"), F.cross_entropy, (X, Y))
    build_operator(Wrapped("odd"), F.cross_entropy, (X, Y), forward=lambda model, x: model(x)["scores"])


def test_dict_and_tuple_inputs_and_dict_batches():
    scale = torch.full((18, 1), 2.0, dtype=torch.float64)
    truth = build_operator(small(), F.cross_entropy, (X * 2, Y))
    v = torch.randn(truth.dim, dtype=torch.float64)
    batches = [{"x": X[i : i + 6], "scale": scale[i : i + 6], "labels": Y[i : i + 6]} for i in (0, 6, 12)]
    for data in (
        ({"x": X, "scale": scale}, Y),
        ((X, scale), Y),
        batches,
        [(X[:9] * 2, Y[:9], "names"), (X[9:] * 2, Y[9:], "names")],
    ):
        operator = build_operator(Wrapped("dict"), F.cross_entropy, data, method="traced")
        torch.testing.assert_close(operator(v), truth(v))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_weights_are_computed_in_float32_with_a_note(dtype):
    model = small().to(dtype)
    found = spectrum(model, F.cross_entropy, (X.to(dtype), Y), lanczos_steps=60)
    exact = spectrum(small().to(dtype).float(), F.cross_entropy, (X.to(dtype).float(), Y), lanczos_steps=60)
    assert found.dtype == "float32" and any(str(dtype) in note for note in found.notes)
    assert found.lambda_max == exact.lambda_max and found.lambda_min == exact.lambda_min
    assert model[0].weight.dtype == dtype


@pytest.mark.parametrize("targets", [Y.int(), Y.to(torch.uint8), Y[:, None]])
def test_odd_integer_targets_are_accepted(targets):
    plain = class_spectra(small(), F.cross_entropy, (X, Y), lanczos_steps=4)
    odd = class_spectra(small(), F.cross_entropy, (X, targets), lanczos_steps=4)
    assert [s.lambda_max for s in odd.values()] == [s.lambda_max for s in plain.values()]


PROBLEM = (F.cross_entropy, (X, Y))
ONES, NAN = (FunctionOperator(lambda v, by=by: v * by, 5, X[:0, 0]) for by in (1.0, float("nan")))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: class_spectra(small(), *PROBLEM, classes=[]), "no class"),
        (lambda: spectrum(small(), *PROBLEM, probes=0), "probes"),
        (lambda: spectrum(small(), *PROBLEM, lanczos_steps=0), "at least 1 step"),
        (lambda: spectrum(small(), *PROBLEM, mode="both"), "mode"),
        (lambda: build_operator(small(), *PROBLEM, method="magic"), "method"),
        (lambda: build_operator(small(), *PROBLEM, batch_size=0), "batch_size"),
        (lambda: build_operator(small(), *PROBLEM, params=["nowhere"]), "'nowhere'"),
        (lambda: build_operator(small(), *PROBLEM, params=[]), "no parameter"),
        (lambda: build_operator(small(), *PROBLEM)(torch.zeros(3)), "shape"),
        (lambda: trace(small(), *PROBLEM, probes=0), "at least 1 probe"),
        (lambda: CurvatureTracker(*PROBLEM, every=0), "every"),
        *((lambda rho=rho: sam_gain(small(), *PROBLEM, rho), "rho") for rho in (-0.1, float("nan"), [])),
        (lambda: sam_gain(small(), *PROBLEM, 0.1, label=9), "class 9"),
        (lambda: rho_threshold(-1.0, -1.0), "gradient norm"),
        (lambda: loss_surface(small(), *PROBLEM, directions="north"), "directions"),
        (lambda: loss_surface(small(), *PROBLEM, steps=1), "steps"),
        (lambda: loss_surface(small(), *PROBLEM, span=0), "span"),
        (lambda: loss_surface(small(), *PROBLEM, dims=3), "dims"),
        (lambda: loss_surface(small(), *PROBLEM, classes=[8]), "class 8"),
        (lambda: lanczos(ONES, torch.zeros(5), 3), "start"),
        (lambda: lanczos(ONES, torch.ones(5), 0), "at least 1 step"),
        (lambda: lanczos(NAN, torch.ones(5), 3), "NaN"),
        (lambda: extremes(NAN), "NaN"),
        (lambda: extremes(ONES, which="top"), "which"),
        (lambda: extremes(ONES, k=9), "k=9"),
        (lambda: extremes(ONES, stop="never"), "stop"),
    ],
)
def test_wrong_arguments_are_one_line(call, words):
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


# --- what has no Hessian, or not the one that was meant --------------------------------------------------------------


def entry_points():
    vector = torch.ones(43, dtype=torch.float64)
    return {
        "class_spectra": lambda *problem: class_spectra(*problem, lanczos_steps=3),
        "spectrum": lambda *problem: spectrum(*problem, lanczos_steps=3),
        "extreme_eigenpairs": extreme_eigenpairs,
        "hessian_vector_product": lambda *problem: hessian_vector_product(*problem, vector),
        "trace": trace,
        "sam_gain": lambda *problem: sam_gain(*problem, 0.1),
        "loss_surface": lambda *problem: loss_surface(*problem, steps=2),
        "CurvatureTracker": lambda model, loss, data: CurvatureTracker(loss, data)(model, 0),
    }


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = small()

    def forward(self, x):
        return self.inner(x).detach()


class ComplexWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.phase = small(), nn.Parameter(torch.ones(3, dtype=torch.complex128))

    def forward(self, x):
        return self.inner(x) * self.phase.abs()


WRONG = {
    "detached logits": (Detached, F.cross_entropy, Y, "no gradient flows"),
    "detached loss": (small, lambda z, t: F.cross_entropy(z.detach(), t), Y, "no gradient flows"),
    "complex parameters": (ComplexWeights, F.cross_entropy, Y, "'phase' is complex"),
    "label out of range": (small, F.cross_entropy, torch.where(torch.arange(18) == 17, 3, Y), "label 3 .* 3 outputs"),
    "negative label": (small, nn.CrossEntropyLoss(), torch.where(torch.arange(18) == 9, -1, Y), "label -1"),
    "parameters without a shape": (lambda: nn.Sequential(nn.LazyLinear(3)), F.cross_entropy, Y, "no shape yet"),
}


@pytest.mark.parametrize("entry", entry_points())
@pytest.mark.parametrize("what", WRONG)
def test_what_has_no_hessian_is_one_line_at_every_entry(what, entry):
    make, loss, targets, words = WRONG[what]
    torch.manual_seed(0)
    with pytest.raises(InputError, match=words):
        entry_points()[entry](make(), loss, (X, targets))


@pytest.mark.parametrize("entry", sorted(entry_points().keys() - {"class_spectra", "CurvatureTracker"}))
def test_weighted_loss_without_values_per_sample_is_refused_whatever_the_order(entry):
    """On data sorted by class a first batch of one class would look like a mean over samples."""
    order = torch.argsort(Y, stable=True)
    weight = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
    x, y = X[order].repeat_interleave(30, 0), Y[order].repeat_interleave(30)
    with pytest.raises(InputError, match="halves"):
        entry_points()[entry](small(), lambda z, t: F.cross_entropy(z, t, weight=weight), (x, y))


def test_ignored_labels_are_refused_and_not_counted():
    with pytest.raises(InputError, match="not a mean over samples"):
        spectrum(small(), F.cross_entropy, (X, torch.where(torch.arange(18) == 17, -100, Y)), lanczos_steps=3)


def test_a_compiled_loss_is_left_as_it_is(dense):
    model, loss = small(), nn.CrossEntropyLoss()
    v = torch.ones(43, dtype=torch.float64)
    product = build_operator(model, torch.compile(loss), (X, Y), batch_size=5)(v)
    torch.testing.assert_close(product, dense(model, X, Y) @ v, rtol=1e-10, atol=1e-12)
    assert loss.reduction == "mean"


@pytest.mark.parametrize("method", ["traced", "double_backward"])
def test_logits_that_are_not_contiguous(dense, method):
    class Sequences(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(2, 3)

        def forward(self, x):
            return self.head(x).tanh().transpose(1, 2)

    torch.manual_seed(0)
    model = Sequences().double().eval()
    x, y = torch.randn(9, 4, 2, dtype=torch.float64), torch.arange(36).reshape(9, 4) % 3
    operator = build_operator(model, F.cross_entropy, (x, y), method=method)
    v = torch.randn(2, operator.dim, dtype=torch.float64).t()[:, 0]  # nor is the vector
    torch.testing.assert_close(operator(v), dense(model, x, y) @ v, rtol=1e-10, atol=1e-12)
    assert operator.function.notes == []


def test_a_parameter_under_several_names_is_chosen_by_any():
    layer = nn.Linear(4, 4).double()
    model = nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(4, 3).double())
    chosen = [build_operator(model, F.cross_entropy, (X, Y), params=name).function.names for name in ("0", "2")]
    assert chosen[0] == chosen[1] == ["0.weight", "0.bias"]


def test_float32_is_proper_however_it_was_relaxed():
    backend = torch.backends.cuda.matmul
    before = backend.fp32_precision
    backend.fp32_precision = "tf32"  # after which torch refuses to read the older flag
    try:
        spectrum(small(), F.cross_entropy, (X, Y), lanczos_steps=3)
        assert backend.fp32_precision == "tf32"
    finally:
        backend.fp32_precision = before


def test_a_model_that_was_moved_is_read_anew(mlp):
    tracker = CurvatureTracker(F.cross_entropy, mlp.data, every=1, classes=[0])
    exact = tracker(mlp.model, 0)[0]
    for _, layer in mlp.model.named_children():
        for name, p in list(layer.named_parameters()):
            setattr(layer, name, nn.Parameter(2 * p.detach()))
    again = CurvatureTracker(F.cross_entropy, mlp.data, every=1, classes=[0])(mlp.model, 1)[0]
    assert tracker(mlp.model, 1)[0].lambda_max == pytest.approx(again.lambda_max, rel=1e-2) != exact.lambda_max
