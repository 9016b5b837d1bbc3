"""Which shard of a batch is whose, where several ranks share each batch."""

from __future__ import annotations

from saddlescape.data.types import Batch


def shard_bounds(count: int, rank: int, size: int) -> tuple[int, int]:
    """Begin and end of the shard of rank ``rank`` of ``size`` in a batch of ``count`` images.

    Shards follow each other, differ by one image at most and together are the batch. A batch that would leave a rank
    fewer than two images, of which BatchNorm has no variance, is every rank's whole (``copies``).

    >>> [shard_bounds(7, rank, 3) for rank in range(3)], shard_bounds(5, 1, 3)
    ([(0, 2), (2, 4), (4, 7)], (0, 5))
    """
    if copies(count, size) > 1:
        return 0, count
    return rank * count // size, (rank + 1) * count // size


def copies(count: int, size: int) -> int:
    """How often each image of a batch of ``count`` is seen by ``size`` ranks together: once, or by all of them."""
    return size if count < 2 * size else 1


def shard_of(batch: Batch, rank: int, size: int) -> Batch:
    """The shard of rank ``rank``, views into the batch; ``whole`` is the size of that batch. A shard stays itself."""
    if size == 1 or batch.whole:
        return batch
    count = len(batch.targets)
    begin, end = shard_bounds(count, rank, size)
    return Batch(
        batch.inputs.narrow(-4, begin, end - begin),
        batch.targets[begin:end],
        batch.indices[begin:end],
        tuple(view.narrow(-4, begin, end - begin) for view in batch.views),
        None if batch.partner is None else shard_of(batch.partner, rank, size),
        count,
    )
