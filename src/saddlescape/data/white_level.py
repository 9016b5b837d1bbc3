"""The white level of a set: how many bits of images with more than 8 bits a channel are in use.

A 12-bit camera's data in 16-bit files fills a sixteenth of the file's range; scaled by that range, a few grey levels
would be left of it. So the scale is measured over all images of the set, once, and travels with the preprocessing.
"""

from __future__ import annotations

from collections.abc import Iterable

from saddlescape.data.decode import each
from saddlescape.data.images import spread
from saddlescape.data.reader import deep_range
from saddlescape.data.types import ArraySplit, EncodedSplit, Images
from saddlescape.errors import InputError, counted

_SURVEY = 2048
_SURVEY_ENCODED = 512  # these are read into memory for it
# Bits a sample: those of PNG and of cameras; 32-bit files may have any number above 16.
_DEPTHS = (1, 2, 4, 8, 10, 12, 14, *range(16, 33))


def measure(splits: Iterable[Images]) -> tuple[float, list[str]]:
    """The white level of a set and a note about it; 0 and no note where no image has more than 8 bits a channel.

    Integers: ``2**b - 1``, with b the smallest usual number of bits that holds every value. Floats: 1 where all are in
    [0, 1], else as integers. Headers of up to 2,048 images of each split decide whether all are decoded for it. Images
    that cannot be read are left to whoever decodes them. Raises ``InputError`` where integers and floats are mixed and
    have different scales.
    """
    integers, floats = [0.0], [0.0]
    seen = 0
    for images in splits:
        for is_float, largest in _ranges(images):
            seen += 1
            (floats if is_float else integers).append(largest)
    if not seen:
        return 0.0, []
    levels = {_level(max(values), values is floats) for values in (integers, floats) if len(values) > 1}
    if len(levels) > 1:
        low, high = sorted(levels)
        raise InputError(
            f"{counted(len(floats) - 1, 'image')} of floats, {len(integers) - 1:,} of integers of more than 8 bits, on "
            f"different scales (0 to {low:g} and 0 to {high:g}): save all in one kind"
        )
    white = levels.pop()
    largest = max(*integers, *floats)
    return white, [
        f"{counted(seen, 'image')} of more than 8 bits a channel: values of 0 to {white:g} become 0 to 255 "
        f"(the largest is {largest:g})"
    ]


def _level(largest: float, is_float: bool) -> float:
    if is_float and largest <= 1:
        return 1.0
    return next((float(2**bits - 1) for bits in _DEPTHS if largest <= 2**bits - 1 and largest > 0), 65535.0)


def _ranges(images: Images) -> list[tuple[bool, float]]:
    """(floats, largest value) of every image with more than 8 bits a channel."""
    if isinstance(images, ArraySplit):
        return []
    most = _SURVEY_ENCODED if isinstance(images, EncodedSplit) else _SURVEY
    return _scan(images, decode=True) if _scan(images.take(spread(len(images), most)), decode=False) else []


def _scan(images: Images, *, decode: bool) -> list[tuple[bool, float]]:
    ranges = []

    def one(images: Images, i: int) -> None:
        assert not isinstance(images, ArraySplit)
        found = deep_range(images.source(i), name=images.name(i), decode=decode)
        if found is not None:
            ranges.append(found)

    each(images, one)  # unreadable ones are named when they are decoded
    return ranges
