"""What does one step of each optimiser cost, in units of an SGD step?

    python benchmarks/sam_family.py --threads 2 --steps 30

One process; the optimisers take turns on one batch of noise, each with a network of its own that starts from the same
weights. A step is forward, backward and the move of the weights, without loading and augmenting.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from common import Run, Timing, as_json, interleave, options_of, positive, ratio_row, synchronizer, warm_up
from torch import Tensor, nn
from torch.nn import functional as F

from saddlescape.data import class_counts
from saddlescape.models import build_model
from saddlescape.optim import build_optimizer

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "sam": {"rho": 0.05},
    "asam": {"rho": 0.5},
    "sam-on": {"rho": 0.05},
    "momentum-sam": {"rho": 0.05},
    "imbsam": {"rho": 0.05},
    "focal-sam": {"rho": 0.05},
    "sse-sam": {"rho": 0.05},
    "partial-sam": {"rho": 0.05},
    "cc-sam": {"rho": 1e-6},
}
COUNTS = class_counts(10, 5000, 100)
SEED = 0


def long_tailed_batch(size: int, pixels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Noise [size, 3, pixels, pixels] and labels [size] in the proportions of CIFAR-10-LT, imbalance 100.

    The last image is of the smallest class: to ImbSAM a batch without tail images would be an SGD step.
    """
    generator = torch.Generator().manual_seed(SEED)
    images = torch.randn(size, 3, pixels, pixels, generator=generator)
    labels = torch.multinomial(torch.tensor(COUNTS, dtype=torch.float64), size, True, generator=generator)
    labels[-1] = len(COUNTS) - 1
    return images.to(device), labels.to(device)


def stepper(name: str, network: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """One step of the optimiser called ``name`` on the batch; returns its loss."""
    base = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4)
    optimizer: Any = build_optimizer(base, name, model=network, class_counts=COUNTS, **OPTIMIZERS[name])
    head: nn.Module = network.head  # type: ignore[assignment]
    kept: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, inputs: kept.__setitem__(slice(None), [inputs[0]]))
    if not getattr(optimizer, "reclassifies", False):
        handle.remove()

    def losses(subset: Tensor | None = None) -> Tensor:
        x, y = (images, labels) if subset is None else (images[subset], labels[subset])
        return F.cross_entropy(network(x), y, reduction="none")

    def reclassify(subset: Tensor) -> Tensor:
        return F.cross_entropy(head.forward(kept[0][subset]), labels[subset], reduction="none")

    def averaged() -> Tensor:
        optimizer.zero_grad()
        loss = losses().mean()
        loss.backward()
        return loss

    if getattr(optimizer, "reclassifies", False):
        return lambda: optimizer.step(losses, targets=labels, reclassify=reclassify)
    if getattr(optimizer, "per_sample", False):
        return lambda: optimizer.step(losses, targets=labels)
    return lambda: optimizer.step(averaged)


def rows_of(timings: dict[str, Timing]) -> list[dict[str, Any]]:
    """Each optimiser's median over SGD's, and the quartiles of the ratios round by round."""
    return [
        ratio_row(f"{name} step, in sgd steps", timings["sgd"], timing, options=OPTIMIZERS[name])
        for name, timing in timings.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = options_of(__doc__)
    parser.add_argument("--model", default="resnet32")
    parser.add_argument("--batch", type=positive, default=128)
    parser.add_argument("--pixels", type=positive, default=32)
    parser.add_argument("--steps", type=positive, default=30, help="timed steps of each optimiser")
    parser.add_argument("--warm-up", type=positive, default=3)
    run = Run("sam_family", parser, argv)
    given = run.options
    images, labels = long_tailed_batch(given.batch, given.pixels, run.device)
    steps: dict[str, Callable[[], object]] = {}
    for name in OPTIMIZERS:
        torch.manual_seed(SEED)
        steps[name] = stepper(name, build_model(given.model, len(COUNTS)).to(run.device), images, labels)
    warm_up(steps, given.warm_up, synchronizer(run.device))
    timings = interleave(steps, given.steps, synchronize=synchronizer(run.device))
    settings = {key: getattr(given, key) for key in ("model", "batch", "pixels", "steps", "warm_up")}
    return run.write(rows_of(timings), settings=settings, timings=as_json(timings))


if __name__ == "__main__":
    sys.exit(main())
