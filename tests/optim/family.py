"""What the tests of the optimisers share: a small network, its batches, each optimiser, a step of any of them."""

from __future__ import annotations

import copy
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from saddlescape.optim import ASAM, SAM, SSESAM, ClassConditionalSAM, FocalSAM, ImbSAM, MomentumSAM, PartialSAM

COUNTS = [200, 50, 8, 3]  # classes 2 and 3 are tail: fewer than 20
TAIL = torch.tensor([n < 20 for n in COUNTS])
SPLIT = ["imbsam", "focal-sam", "sse-sam", "cc-sam", "partial-sam"]  # those that split losses by class
NAMES = ["sam", "asam", "momentum-sam", *SPLIT]
PASSES = dict.fromkeys(NAMES, 2) | {"momentum-sam": 1, "sse-sam": 3, "cc-sam": 5}  # CC-SAM's: of the classifier
EACH_PASS = [(name, number) for name in NAMES for number in range(1, PASSES[name] + 1)]
RHO = dict.fromkeys(NAMES, 0.3) | {"cc-sam": 0.2}


class Cosine(nn.Module):
    """A classifier of normalised weights: autograd keeps them in another form than those of a linear one."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, classes))

    def forward(self, x: Tensor) -> Tensor:
        return 5 * F.normalize(x, dim=1) @ F.normalize(self.weight, dim=0)


class Net(nn.Module):
    def __init__(self, seed: int, norm: bool, dropout: float, head: str) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(6, 10)
        self.norm = nn.BatchNorm1d(10) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(10, 4) if head == "linear" else Cosine(10, 4)

    def features(self, x: Tensor) -> Tensor:
        return self.drop(torch.tanh(self.norm(self.first(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def net(
    seed: int = 0, norm: bool = False, dropout: float = 0.0, dtype: torch.dtype = torch.float64, head: str = "linear"
) -> Net:
    return Net(seed, norm, dropout, head).to(dtype)


def batch(seed: int = 1, n: int = 24, dtype: torch.dtype = torch.float64, classes: Sequence[int] = (0, 1, 2, 3)) -> Any:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator, dtype=dtype)
    return x, torch.tensor(classes)[torch.randint(0, len(classes), (n,), generator=generator)]


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-2)


def build(name: str, model: Net, rho: Any = None, base: torch.optim.Optimizer | None = None, **kw: Any) -> Any:
    base = sgd(model) if base is None else base
    rho = RHO[name] if rho is None else rho
    kw = {"model": model, **kw}
    if name == "sam":
        return SAM(base, rho, **kw)
    if name == "asam":
        return ASAM(base, rho, **kw)
    if name == "momentum-sam":
        return MomentumSAM(base, rho, **kw)
    if name == "cc-sam":
        return ClassConditionalSAM(base, COUNTS, model.head, kappa=rho, phi=0.4, **kw)
    if name == "partial-sam":
        return PartialSAM(base, COUNTS, rho, share=0.7, **kw)
    if name == "sse-sam":
        return SSESAM(base, COUNTS, rho, threshold=20, **kw)
    return {"imbsam": ImbSAM, "focal-sam": FocalSAM}[name](base, COUNTS, rho, **kw)


class Run:
    """Closure and reclassify of one batch, counting passes; pass ``fail_at`` raises, ``huge_at`` overflows."""

    def __init__(self, model: Net, x: Tensor, y: Tensor, fail_at: int = 0, huge_at: int = 0) -> None:
        self.model, self.x, self.y, self.fail_at, self.huge_at = model, x, y, fail_at, huge_at
        self.passes: list[Tensor | None] = []

    def _loss(self, logits: Tensor, y: Tensor) -> Tensor:
        assert torch.is_grad_enabled() or self.huge_at
        losses = F.cross_entropy(logits, y, reduction="none")
        number = len(self.passes)
        if number == self.fail_at:
            raise RuntimeError("stop")
        return losses * 1e38 if number == self.huge_at else losses

    def closure(self, subset: Tensor | None = None) -> Tensor:
        self.passes.append(subset)
        x, y = (self.x, self.y) if subset is None else (self.x[subset], self.y[subset])
        self.kept = self.model.features(x)
        return self._loss(self.model.head(self.kept), y)

    def reclassify(self, subset: Tensor) -> Tensor:
        self.passes.append(subset)
        return self._loss(self.model.head(self.kept[subset]), self.y[subset])

    def step(self, optimizer: Any, targets: Tensor | None = None, **kw: Any) -> Tensor:
        """One step of any optimiser, given its closure as it wants it."""
        if not getattr(optimizer, "per_sample", False):
            scaler = kw.get("scaler")

            def closure() -> Tensor:
                optimizer.zero_grad()
                loss = self.closure().mean()
                (loss if scaler is None else scaler.scale(loss)).backward()
                return loss

            return optimizer.step(closure, **kw).detach()
        if getattr(optimizer, "reclassifies", False):
            kw["reclassify"] = self.reclassify
        return optimizer.step(self.closure, targets=self.y if targets is None else targets, **kw)


def closure_over(optimizer: torch.optim.Optimizer, loss_of: Callable[[], Tensor], scaler: Any = None) -> Any:
    """As a training loop hands it to an optimiser that takes the loss of the batch."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of()
        (loss if scaler is None else scaler.scale(loss)).backward()
        return loss

    return closure


def closure_of(optimizer: torch.optim.Optimizer, model: nn.Module, x: Tensor, y: Tensor, scaler: Any = None) -> Any:
    return closure_over(optimizer, lambda: F.cross_entropy(model(x), y), scaler)


def run_ranks(file: str, folder: Path) -> list[dict[str, list[Tensor]]]:
    """What ``file``, run as RANK PORT FOLDER by fresh processes (a fork inherits threads), saves as RANK.pt."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        subprocess.Popen([sys.executable, file, str(rank), str(port), str(folder)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def run_worker(results_of: Callable[[int], dict[str, list[Tensor]]]) -> None:
    """The process that ``run_ranks`` starts: it joins the others by gloo and saves what ``results_of(rank)`` gives."""
    rank, port, folder = sys.argv[1:]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=int(rank), world_size=2)
    torch.save(results_of(int(rank)), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
    # Reference cycles and torch's caches still hold the group, whose threads can abort Python on its own way out.
    os._exit(0)


def assert_ranks_agree(ranks: list[dict[str, list[Tensor]]]) -> None:
    for name, values in ranks[0].items():
        assert same_bits(values, ranks[1][name]), name


def averaged(w: list[Tensor], shares: Sequence[list[Tensor | None]]) -> None:
    """Give parameters the mean of the gradients that each rank has."""
    for p, *parts in zip(w, *shares, strict=True):
        p.grad = torch.stack(parts).mean(0)  # type: ignore[arg-type]


def close(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.allclose(x, y, rtol=0, atol=1e-5) for x, y in zip(a, b, strict=True))


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def same_bits(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def momenta(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [state["momentum_buffer"].clone() for state in optimizer.state.values()]


def each_interrupt(run: Callable[[], tuple[nn.Module, Callable[[], object]]], every: int) -> Sequence[list[Tensor]]:
    """Weights after KeyboardInterrupt at every so many lines of ours in a step; first those before it and after it.

    ``run`` gives a fresh model and its step.
    """

    def go(line_number: int | None) -> tuple[list[Tensor], list[Tensor], int]:
        model, step = run()
        before, lines = weights(model), 0

        def trace(frame, event, arg):  # type: ignore[no-untyped-def]
            nonlocal lines
            if "saddlescape" not in frame.f_code.co_filename:
                return None
            if event == "line":
                lines += 1
                if lines == line_number:
                    raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            step()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        return before, weights(model), lines

    before, after, total = go(None)
    assert total > 40
    return [before, after, *(go(number)[1] for number in range(1, total + 1, every))]


# --- steps worked slowly ----------------------------------------------------------------------------------------------

Losses = Callable[[list[Tensor]], Tensor]


def grad(loss: Callable[[list[Tensor]], Tensor], at: list[Tensor]) -> list[Tensor]:
    leaves = [p.detach().clone().requires_grad_() for p in at]
    found = torch.autograd.grad(loss(leaves), leaves, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(at, found, strict=True)]


def climb(at: list[Tensor], direction: list[Tensor], rho: float) -> list[Tensor]:
    length = torch.cat([g.flatten() for g in direction]).norm()
    return [p + rho * g / (length + 1e-12) for p, g in zip(at, direction, strict=True)]


def sgd_by_hand(
    start: list[Tensor], steps: int, gradient: Callable[[list[Tensor], int], list[Tensor]], lr: float = 0.1
) -> list[Tensor]:
    """SGD with momentum 0.9 and weight decay 0.01 on copies."""
    w = [p.clone() for p in start]
    velocity: list[Tensor] | None = None
    for number in range(steps):
        decayed = [g + 1e-2 * p for g, p in zip(gradient(w, number), w, strict=True)]
        velocity = decayed if velocity is None else [0.9 * v + d for v, d in zip(velocity, decayed, strict=True)]
        w = [p - lr * v for p, v in zip(w, velocity, strict=True)]
    return w


def functional(model: Net, x: Tensor, y: Tensor) -> Losses:
    names = [name for name, _ in model.named_parameters()]

    def losses(params: list[Tensor]) -> Tensor:
        logits = torch.func.functional_call(model, dict(zip(names, params, strict=True)), (x,))
        return -logits.log_softmax(dim=1)[torch.arange(len(y)), y]

    return losses


def sam_gradient(
    model: Any, x: Tensor, y: Tensor, rho: float, scaling: Callable[[int, Tensor], Tensor]
) -> Callable[[list[Tensor], int], list[Tensor]]:
    """The gradient of a step of SAM at flat numbers, of ASAM where ``scaling`` gives T for each tensor."""
    losses = functional(copy.deepcopy(model), x, y)

    def gradient(w: list[Tensor], number: int) -> list[Tensor]:
        t = [scaling(i, p) for i, p in enumerate(w)]
        scaled = [ti * gi for ti, gi in zip(t, grad(lambda p: losses(p).mean(), w), strict=True)]
        norm = math.sqrt(sum(float((s * s).sum()) for s in scaled)) + 1e-12
        moved = [p + rho * ti * s / norm for p, ti, s in zip(w, t, scaled, strict=True)]
        return grad(lambda p: losses(p).mean(), moved)

    return gradient


def agree(model: nn.Module, expected: list[Tensor], atol: float = 1e-11) -> None:
    for ours, theirs in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-10, atol=atol)
