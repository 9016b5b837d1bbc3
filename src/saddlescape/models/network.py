"""What every network here is: features, and a head that can be read and replaced as ``model.head``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, cast

from torch import Tensor, nn


class Network(nn.Module, ABC):
    """``forward``: images -> logits [N, C], the head's of ``features``: images -> [N, ``feature_dim``].

    ``model.head`` reads and replaces the head, wherever the checkpoint's names want it (``head_name``). ``nn.Module``
    files a module under the name it is assigned to before any property setter is asked, so a property alone would
    leave the old head in use; the name is changed on the way in.
    """

    head_name: ClassVar[str]
    feature_dim: int

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(self.head_name if name == "head" else name, value)

    @property
    def head(self) -> nn.Module:
        return self.get_submodule(self.head_name)

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """What the head sees."""

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, getattr(self, self.head_name)(self.features(x)))
