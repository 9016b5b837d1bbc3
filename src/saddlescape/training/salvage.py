"""When images cannot be read in the middle of an epoch, the steps that were done are not lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from saddlescape.data.types import Batch
from saddlescape.errors import InputError
from saddlescape.training.finite import all_finite
from saddlescape.training.running import Running

if TYPE_CHECKING:
    from saddlescape.training.loop import Parts

Save = Callable[[int, Running | None], None]


def salvaging(batches: Iterator[Batch], parts: Parts, epoch: int, running: Running, save: Save) -> Iterator[Batch]:
    """The same batches; where the loader fails, ``save(epoch, running)`` is called before its error goes on its way.

    A damaged file, a worker that was killed: the loader raises between two steps, so what ``running`` counts is a
    state like any other to go on from, also with all batches done and the test images broken. With several processes
    nothing is saved, since the others do not know.

    Raises:
        InputError: the loader's, in one line, with what to do.
    """
    try:
        yield from batches
    except InputError as error:
        if not (parts.ranks.alone and running.batch and all_finite(parts.model)):
            raise
        try:
            save(epoch, running)
        except InputError:
            raise error from None  # a full disk besides: the checkpoint before it is still there
        raise InputError(f"{error}; all steps done are saved: then run the same command again") from error
