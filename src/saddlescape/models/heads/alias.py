"""``model.head``, whatever the name under which a checkpoint keeps the head."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn


class HeadAlias(nn.Module):
    """``model.head`` reads and replaces the head, wherever the checkpoint's names want it (``head_name``).

    ``nn.Module`` files a module under the name it is assigned to before any property setter is asked, so a property
    alone would leave the old head in use; the name is changed on the way in.
    """

    head_name: ClassVar[str]

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(self.head_name if name == "head" else name, value)

    @property
    def head(self) -> nn.Module:
        return self.get_submodule(self.head_name)
