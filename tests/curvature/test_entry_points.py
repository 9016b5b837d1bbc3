"""Every way into the curvature, in every situation of model, data and torch, against the dense Hessian."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saddlescape.curvature import (
    CurvatureTracker,
    build_operator,
    class_spectra,
    extreme_eigenpairs,
    extremes,
    hessian_vector_product,
    lanczos,
    loss_surface,
    sam_gain,
    spectrum,
    trace,
)

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 1, 2] * 4)
Problem = tuple[nn.Module, nn.Module, tuple[Any, Tensor], Callable[[], Any]]


def by_rows(model: nn.Module, x: Any, y: Tensor) -> Tensor:
    """The dense Hessian of the cross-entropy by double backward through the model's own parameters, [P, P]."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(F.cross_entropy(model(x), y), parameters, create_graph=True)
    gradient = torch.cat([g.reshape(-1) for g in grads])
    rows = [torch.autograd.grad(g, parameters, retain_graph=True, materialize_grads=True) for g in gradient]
    return torch.stack([torch.cat([h.reshape(-1) for h in row]) for row in rows]).detach()


# --- situations: (model, the same in float64 and plain, data, context) ----------------------------------------------


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return make().double().eval()


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))


def registered_twice() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(3, 3))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


class Words(nn.Module):
    """Sequences of words, 0 being padding."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(5, 3, padding_idx=0), nn.Linear(3, 3)
        nn.init.normal_(self.table.weight)  # the padding row too

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x).tanh().mean(1))


class StopsGradients(nn.Module):
    """What is a constant for backward is one for every derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x).tanh()
        with torch.no_grad():
            size = hidden.norm(dim=1, keepdim=True)
        return self.head(hidden / size + hidden.detach() ** 2)


class Remembers(nn.Module):
    """Keeps its last activation, as hooks and old-style weight norms do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.inner[0](x)
        return self.inner[2](self.last.tanh())


def normalised(norm: Callable[..., nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 3))


def plain(make: Callable[[], nn.Module], x: Any = X, y: Tensor = Y, context: Any = nullcontext) -> Problem:
    return seeded(make), seeded(make), (x, y), context


def strided_weights() -> Problem:
    model = seeded(mlp)
    model[0].weight = nn.Parameter(model[0].weight.detach().t().contiguous().t())
    return model, seeded(mlp), (X, Y), nullcontext


def compiled(how: str) -> Problem:
    model: Any = seeded(mlp)
    if how == "whole":
        return torch.compile(model), seeded(mlp), (X, Y), nullcontext  # type: ignore[return-value]
    if how == "a part":
        model[0] = torch.compile(model[0])
    elif how == "in place":
        model.compile()
    else:
        model[0].forward = torch.compile(model[0].forward)
    return model, seeded(mlp), (X, Y), nullcontext


def in_dtype(model: torch.dtype, data: torch.dtype) -> Problem:
    low = seeded(mlp).to(model)
    x = X.to(data)
    return low, copy.deepcopy(low).double(), (x, Y), nullcontext


def inference_tensors() -> Problem:
    with torch.inference_mode():
        model, x, y = seeded(mlp), X.clone(), Y.clone()
    return model, seeded(mlp), (x, y), nullcontext


AUTOCAST = lambda: torch.autocast("cpu", torch.bfloat16)  # noqa: E731
SITUATIONS: dict[str, Callable[[], Problem]] = {
    "plain": lambda: plain(mlp),
    "a module registered twice": lambda: plain(registered_twice),
    "tied weights": lambda: plain(Tied),
    "padded embedding": lambda: plain(
        Words, torch.randint(0, 5, (12, 4), generator=torch.Generator().manual_seed(1))
    ),
    "gradients stopped inside": lambda: plain(StopsGradients),
    "a module that remembers": lambda: plain(Remembers),
    "spectral norm": lambda: plain(normalised(nn.utils.parametrizations.spectral_norm)),
    "spectral norm of old": lambda: plain(normalised(nn.utils.spectral_norm)),
    "strided weights": strided_weights,
    "under autocast": lambda: plain(mlp, context=AUTOCAST),
    "float32 under autocast": lambda: (*in_dtype(torch.float32, torch.float32)[:3], AUTOCAST),
    "in inference mode": lambda: plain(mlp, context=torch.inference_mode),
    "made in inference mode": inference_tensors,
    "without gradients": lambda: plain(mlp, context=torch.no_grad),
    "compiled": lambda: compiled("whole"),
    "a part compiled": lambda: compiled("a part"),
    "compiled in place": lambda: compiled("in place"),
    "a forward compiled": lambda: compiled("a forward"),
    "float64 model, float32 data": lambda: in_dtype(torch.float64, torch.float32),
    "bfloat16 model, float32 data": lambda: in_dtype(torch.bfloat16, torch.float32),
    "bfloat16 model and data": lambda: in_dtype(torch.bfloat16, torch.bfloat16),
}


# --- entry points: (figures, what they should be, from the Hessians of all data and of class 0) --------------------


def ends(h: Tensor) -> tuple[float, float]:
    values = torch.linalg.eigvalsh(h)
    return float(values[0]), float(values[-1])


def product(method: str) -> Callable[..., tuple[Tensor, Tensor]]:
    def enter(model: nn.Module, data: Any, h: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        v = torch.randn(len(h), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        return hessian_vector_product(model, F.cross_entropy, data, v, method=method, batch_size=7), h @ v

    return enter


def by_extremes(model: nn.Module, data: Any, h: Tensor, own: Tensor) -> Any:
    found = extremes(build_operator(model, F.cross_entropy, data, method="traced"))
    return (found.smallest[0].value, found.largest[0].value), ends(h)


def by_lanczos(model: nn.Module, data: Any, h: Tensor, own: Tensor) -> Any:
    operator = build_operator(model, F.cross_entropy, data)
    run = lanczos(operator, torch.ones(operator.dim), operator.dim)
    vector = run.ritz_vectors(run.eigen()[1][:, -1:])[0].double()
    return (float(run.eigen()[0][-1]), float(vector @ h @ vector)), (ends(h)[1],) * 2


def by_pairs(model: nn.Module, data: Any, h: Tensor, own: Tensor) -> Any:
    values = extreme_eigenpairs(model, F.cross_entropy, data).values
    return (values[0], values[-1]), ends(h)


def by_class(model: nn.Module, data: Any, h: Tensor, own: Tensor) -> Any:
    found = class_spectra(model, F.cross_entropy, data, classes=[0], lanczos_steps=60, method="traced")[0]
    assert found.converged
    return (found.lambda_min, found.lambda_max), ends(own)


def by_spectrum(model: nn.Module, data: Any, h: Tensor, own: Tensor) -> Any:
    found = spectrum(model, F.cross_entropy, data, lanczos_steps=60)
    return (found.lambda_min, found.lambda_max), ends(h)


def by_trace(model: nn.Module, data: Any, h: Tensor, own: Tensor) -> Any:
    return (float(trace(model, F.cross_entropy, data, probes=len(h))),), (float(h.trace()),)


def by_gain(model: nn.Module, data: Any, h: Tensor, own: Tensor) -> Any:
    return (sam_gain(model, F.cross_entropy, data, 0.1, label=0, tol=1e-5).eigenvalue,), ends(own)[:1]


def by_surface(model: nn.Module, data: Any, h: Tensor, own: Tensor) -> Any:
    found = loss_surface(model, F.cross_entropy, data, steps=3, span=0.1, classes=[0])
    assert found.center[0] == pytest.approx(found.losses[0, 1, 1], rel=1e-5)
    return found.curvatures[0], ends(own)


def by_tracker(model: nn.Module, data: Any, h: Tensor, own: Tensor) -> Any:
    tracker = CurvatureTracker(F.cross_entropy, data, classes=[0], tol=1e-6, method="traced")
    points = [tracker(model, 0)[0], tracker(model, 10)[0]]
    assert points[0].loss == pytest.approx(points[1].loss)
    return [figure for p in points for figure in (p.lambda_min, p.lambda_max)], ends(own) * 2


ENTRIES: dict[str, Callable[..., Any]] = {
    "product, traced": product("traced"),
    "product, double backward": product("double_backward"),
    "extremes": by_extremes,
    "lanczos": by_lanczos,
    "extreme_eigenpairs": by_pairs,
    "class_spectra": by_class,
    "spectrum": by_spectrum,
    "trace": by_trace,
    "sam_gain": by_gain,
    "loss_surface": by_surface,
    "CurvatureTracker": by_tracker,
}


def held_by(model: nn.Module) -> dict[tuple[int, str], int]:
    """Which tensor object each attribute of each module is."""
    return {
        (id(module), name): id(value)
        for module in model.modules()
        for table in (module._parameters, module._buffers, vars(module))
        for name, value in table.items()
        if isinstance(value, Tensor)
    }


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_entry_equals_the_dense_hessian_and_leaves_the_model_as_it_was(situation: str, entry: str) -> None:
    model, twin, (x, y), context = SITUATIONS[situation]()
    wide, labels = (x.double() if x.is_floating_point() else x).clone(), y.clone()
    whole, own = by_rows(twin, wide, labels), by_rows(twin, wide[labels == 0], labels[labels == 0])
    before, weights = held_by(model), [p.detach().clone() for p in model.parameters()]
    with context():
        found, truth = ENTRIES[entry](model, (x, y), whole, own)
    exact = next(iter(model.parameters())).dtype == torch.float64
    tolerance = 1e-6 if exact else 2e-4
    found, truth = (torch.as_tensor(each, dtype=torch.float64) for each in (found, truth))
    torch.testing.assert_close(found, truth, rtol=tolerance, atol=tolerance * float(whole.abs().max()))
    assert held_by(model) == before
    for p, old in zip(model.parameters(), weights, strict=True):
        assert torch.equal(p, old)
