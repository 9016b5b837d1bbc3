"""The peer Hugging Face datasets 5.2.0: an image column decoded on access, the same transform, torch's DataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import torch
from peers.image_folder import TrainTransform
from torch import Tensor
from torch.utils.data import DataLoader


class TableLoader:
    """``epoch()`` gives batches [images, labels]; workers persist."""

    def __init__(
        self, paths: Sequence[str], labels: Sequence[int], transform: TrainTransform, *, batch_size: int, workers: int
    ) -> None:
        datasets.disable_progress_bars()
        table = datasets.Dataset.from_dict({"image": list(paths), "label": list(labels)})
        table = table.cast_column("image", datasets.Image())

        def apply(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
            rows["image"] = [transform(picture.convert("RGB")) for picture in rows["image"]]
            return rows

        self.loader = DataLoader(
            table.with_transform(apply),  # type: ignore[arg-type]
            batch_size=batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0, collate_fn=stack,
        )  # fmt: skip

    def epoch(self) -> Iterator[list[Tensor]]:
        return iter(self.loader)


def stack(rows: list[dict[str, Any]]) -> list[Tensor]:
    return [torch.stack([row["image"] for row in rows]), torch.tensor([row["label"] for row in rows])]
