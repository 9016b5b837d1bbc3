"""TensorBoard as a watcher of the loop (extra ``tensorboard``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saddlescape.errors import MissingExtraError
from saddlescape.training.loop import Parts, Running


class TensorBoard:
    """Scalars of every epoch: loss, learning rate, rho, accuracy of the whole and of each group."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("--tensorboard", "tensorboard", "tensorboard") from error
        self.writer = SummaryWriter(str(folder))  # type: ignore[no-untyped-call]

    def on_step(self, parts: Parts, epoch: int, running: Running) -> None:
        """Nothing: a scalar a step would cost a synchronisation a step."""

    def on_epoch(self, parts: Parts, row: dict[str, Any]) -> None:
        done = row["epoch"] + 1
        for name, value in scalars(row).items():
            self.writer.add_scalar(name, value, done)  # type: ignore[no-untyped-call]
        self.writer.flush()  # type: ignore[no-untyped-call]


def scalars(row: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a metrics row, nested names joined by "/"; lists and missing values are left out."""
    flat: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "epoch":
            flat[prefix + name] = float(value)
    return flat
