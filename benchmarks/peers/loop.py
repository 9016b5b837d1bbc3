"""The peer "loop": long-tailed CIFAR training as the published scripts do it, re-created plainly from its description.

What makes it the loop: images are PIL's, which a ``DataLoader`` crops, flips and normalises one by one; the
network runs eagerly in float32 on contiguous NCHW tensors; SAM visits parameter after parameter in Python; loss and
accuracies are fetched from the device every step for the progress line. Everything here is torch's, NumPy's and PIL's:
nothing of ours takes part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

# --- images -------------------------------------------------------------------------------------------------------


def crop_flip_normalize(
    image: Image.Image, top: int, left: int, flip: bool, padding: int, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Crop a zero-padded image back to its size at (``top``, ``left``), mirror it, make it float32 [C, H, W]."""
    width, height = image.size
    image = ImageOps.expand(image, border=padding, fill=0).crop((left, top, left + width, top + height))
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
    return tensor.sub_(torch.tensor(mean).view(-1, 1, 1)).div_(torch.tensor(std).view(-1, 1, 1))


class Images(Dataset[tuple[Tensor, int]]):
    """``pixels`` uint8 [N, H, W, 3] and ``labels`` [N]: an image is augmented anew each time it is asked for."""

    def __init__(
        self, pixels: NDArray[np.uint8], labels: Sequence[int], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.pixels, self.labels, self.mean, self.std = pixels, labels, mean, std

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        top, left = (int(torch.randint(0, 9, (1,))) for _ in range(2))
        flip = bool(torch.rand(1) < 0.5)
        image = Image.fromarray(self.pixels[index])
        return crop_flip_normalize(image, top, left, flip, 4, self.mean, self.std), self.labels[index]


def image_loader(images: Images, batch_size: int, workers: int, pin_memory: bool) -> DataLoader[list[Tensor]]:
    return DataLoader(images, batch_size=batch_size, shuffle=True, num_workers=workers, pin_memory=pin_memory)


def full_batches(loader: DataLoader[list[Tensor]]) -> Iterator[list[Tensor]]:
    """Epoch after epoch without end; the short last batch of an epoch is left out, for equal work a step."""
    while True:
        for batch in loader:
            if len(batch[1]) == loader.batch_size:
                yield batch


# --- network ------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.changes = stride != 1 or inner != outer
        self.pad = outer // 4

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out += F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad)) if self.changes else x
        return F.relu(out)


class ResNet(nn.Module):
    """ResNet of 6n + 2 layers for CIFAR with the shortcut that has no parameters (option A)."""

    def __init__(self, depth: int, classes: int) -> None:
        super().__init__()
        n = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(n)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), *(Block(32, 32, 1) for _ in range(n - 1)))
        self.layer3 = nn.Sequential(Block(32, 64, 2), *(Block(64, 64, 1) for _ in range(n - 1)))
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.shape[3])
        return self.linear(out.view(out.shape[0], -1))


# --- optimiser ----------------------------------------------------------------------------------------------------


class TwoPassSAM:
    """SAM in two calls around two backward passes, one parameter at a time."""

    def __init__(self, parameters: Iterable[nn.Parameter], sgd: torch.optim.SGD, rho: float) -> None:
        self.parameters, self.sgd, self.rho = list(parameters), sgd, rho
        self.kept: dict[nn.Parameter, Tensor] = {}

    @torch.no_grad()
    def climb(self) -> None:
        norms = [p.grad.norm(p=2) for p in self.parameters if p.grad is not None]
        scale = self.rho / (torch.norm(torch.stack(norms), p=2) + 1e-12)
        for p in self.parameters:
            if p.grad is not None:
                self.kept[p] = p.data.clone()
                p.add_(p.grad * scale)
        self.sgd.zero_grad()

    @torch.no_grad()
    def return_and_step(self) -> None:
        for p in self.parameters:
            if p.grad is not None:
                p.data = self.kept[p]
        self.sgd.step()
        self.sgd.zero_grad()


# --- one step -----------------------------------------------------------------------------------------------------


class Loop:
    """The state of such a script: ``step(images, targets)`` trains on one batch and returns the loss at w.

    ``rho`` None is plain SGD. ``images`` float32 [N, 3, H, W] and ``targets`` int64 [N] may lie on the host.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, *, lr: float, momentum: float, weight_decay: float,
        rho: float | None,
    ) -> None:  # fmt: skip
        self.model = model.to(device).train()
        self.device = device
        self.criterion = nn.CrossEntropyLoss().to(device)
        self.sgd = torch.optim.SGD(model.parameters(), lr, momentum=momentum, weight_decay=weight_decay)
        self.sam = None if rho is None else TwoPassSAM(model.parameters(), self.sgd, rho)
        self.losses: list[float] = []
        self.top1: list[float] = []
        self.top5: list[float] = []

    def step(self, images: Tensor, targets: Tensor) -> float:
        images = images.to(self.device, non_blocking=True)
        targets = targets.to(self.device, non_blocking=True)
        output = self.model(images)
        loss = self.criterion(output, targets)
        self._note(loss, output, targets)
        if self.sam is None:
            self.sgd.zero_grad()
            loss.backward()
            self.sgd.step()
        else:
            loss.backward()
            self.sam.climb()
            self.criterion(self.model(images), targets).backward()
            self.sam.return_and_step()
        return self.losses[-1]

    def _note(self, loss: Tensor, output: Tensor, targets: Tensor) -> None:
        with torch.no_grad():
            hits = output.topk(5, dim=1).indices.eq(targets.view(-1, 1)).float()
            self.losses.append(loss.item())
            self.top1.append(100 * hits[:, :1].sum().item() / len(targets))
            self.top5.append(100 * hits.sum().item() / len(targets))
