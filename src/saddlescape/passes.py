"""Whether an optimiser shows a batch again within a step: what observes batches (ProCo) does so once a step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_repeated: ContextVar[bool] = ContextVar("repeated", default=False)


@contextlib.contextmanager
def repeated(yes: bool) -> Iterator[None]:
    """Inside, ``is_repeated()`` is ``yes``."""
    token = _repeated.set(yes)
    try:
        yield
    finally:
        _repeated.reset(token)


def is_repeated() -> bool:
    """Whether this pass shows images that the step shows as a whole batch in another pass; False outside a step."""
    return _repeated.get()
