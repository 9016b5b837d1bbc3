"""A recipe: the network and the list of stages that a method is, with the reasons for what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from saddlescape.records.config import Stage


@dataclass(frozen=True)
class Facts:
    """What a method may know of the data and the machine before anything is built. ``class_counts`` [C]."""

    _: KW_ONLY
    dataset: str
    class_counts: Sequence[int]
    image_size: int
    augment: str
    features: bool = False  # vectors, not images
    device_type: str = "cpu"

    @property
    def images(self) -> int:
        return sum(self.class_counts)

    @property
    def imbalance(self) -> float:
        present = [count for count in self.class_counts if count > 0]
        return max(present) / min(present) if present else 1.0


@dataclass(frozen=True)
class Recipe:
    """``stages`` in order; ``notes`` say in one line each what was decided and why."""

    _: KW_ONLY
    method: str
    model: str
    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()
