"""SAM in a training loop of your own: the closure, fp16 with a scaler, micro-batches, and the loop by hand.

Run it: ``python examples/sam_plain_torch.py``. It needs torch and saddlescape and takes a few seconds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saddlescape.optim import SAM, accumulated_closure


def make_data(n: int = 512) -> list[tuple[Tensor, Tensor]]:
    """Three Gaussian blobs, in batches of 64."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 8, generator=generator) * 2
    labels = torch.randint(0, 3, (n,), generator=generator)
    inputs = centres[labels] + torch.randn(n, 8, generator=generator)
    return list(zip(inputs.split(64), labels.split(64), strict=True))


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))


def closure_form(epochs: int = 3) -> float:
    """The form to use where you can. Returns the last loss."""
    model, data = make_model(), make_data()
    base = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    optimizer = SAM(base, rho=0.05, model=model, clip_grad_norm=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    for _ in range(epochs):
        for x, y in data:

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                return loss

            loss = optimizer.step(closure)  # the loss at w: log this one
        scheduler.step()
    return loss.item()


def mixed_precision(epochs: int = 3) -> float:
    """fp16 with a GradScaler: the closure scales, the step unscales, ``update`` comes once a step."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, data = make_model().to(device), make_data()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), rho=0.05, model=model)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**12)
    for _ in range(epochs):
        for x, y in data:

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                optimizer.zero_grad()
                with torch.autocast(device, torch.float16):
                    loss = F.cross_entropy(model(x.to(device)), y.to(device))
                scaler.scale(loss).backward()
                return loss

            loss = optimizer.step(closure, scaler=scaler)
            scaler.update()
    return loss.item()


def micro_batches(epochs: int = 3) -> float:
    """A batch that does not fit is run in parts; both passes see the whole batch."""
    model, data = make_model(), make_data()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), rho=0.05, model=model)

    def loss_fn(part: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(part[0]), part[1])

    for _ in range(epochs):
        for x, y in data:
            parts = list(zip(x.split(24), y.split(24), strict=True))  # 24, 24 and 16: weighted by their sizes
            loss = optimizer.step(accumulated_closure(optimizer, loss_fn, parts))
    return loss.item()


def by_hand(epochs: int = 3) -> float:
    """Two calls, for loops that cannot be a closure."""
    model, data = make_model(), make_data()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), rho=0.05, model=model)
    for _ in range(epochs):
        for x, y in data:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            if optimizer.ascend():
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
            optimizer.descend()
    return loss.item()


if __name__ == "__main__":
    for form in (closure_form, mixed_precision, micro_batches, by_hand):
        print(f"{form.__name__:>16}: loss {form():.4f}")
