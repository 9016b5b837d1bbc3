"""How often an optimiser shows a batch within a step, and whether it does so just now: ProCo observes a batch once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

# Passes of a step with a radius above 0, a forward pass counted as one third and a backward pass as two.
PASSES = {"sam": 2, "asam": 2, "sam-on": 2, "imbsam": 8 / 3, "focal-sam": 8 / 3, "sse-sam": 11 / 3}

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
