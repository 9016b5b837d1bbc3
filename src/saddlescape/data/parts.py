"""Which part of a batch is whose, where several processes share each batch."""

from __future__ import annotations

from saddlescape.data.types import Batch


def part_bounds(count: int, rank: int, size: int) -> tuple[int, int]:
    """Begin and end of the part of process ``rank`` of ``size`` in a batch of ``count`` images.

    Parts follow each other, differ by one image at most and together are the batch. A batch that would leave a process
    fewer than two images, of which BatchNorm has no variance, is every process's whole (``copies``).

    >>> [part_bounds(7, rank, 3) for rank in range(3)], part_bounds(5, 1, 3)
    ([(0, 2), (2, 4), (4, 7)], (0, 5))
    """
    if copies(count, size) > 1:
        return 0, count
    return rank * count // size, (rank + 1) * count // size


def copies(count: int, size: int) -> int:
    """How often each image of a batch of ``count`` is seen by ``size`` processes together: once, or by all of them."""
    return size if count < 2 * size else 1


def part_of(batch: Batch, rank: int, size: int) -> Batch:
    """The part of process ``rank``, views into the batch; ``whole`` says what it is a part of. A part stays itself."""
    if size == 1 or batch.whole:
        return batch
    count = len(batch.targets)
    begin, end = part_bounds(count, rank, size)
    return Batch(
        batch.inputs.narrow(-4, begin, end - begin),
        batch.targets[begin:end],
        batch.indices[begin:end],
        tuple(view.narrow(-4, begin, end - begin) for view in batch.views),
        None if batch.partner is None else part_of(batch.partner, rank, size),
        count,
    )
