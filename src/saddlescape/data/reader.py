"""The one reader: from a file, bytes or a PIL image to uint8 pixels, the same in training, prediction and export.

What is read right, by content and not by the name's ending: EXIF orientation, grey, palette, CMYK and YCCK (Adobe's
inverted kind, as Pillow does for every JPEG with four components), more than 8 bits a channel (scaled by a white level
to 256 levels), transparency (over a stated grey background), the first frame of animations. Colour profiles (ICC) are
not applied. A fourth band of a TIFF is transparency only where the file says so. Everything that cannot be read is an
``InputError`` of one line that names the file and the reason; what Pillow warns of in a file that can be read goes to
``collect_remarks`` and never to the terminal.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from saddlescape.data.preprocess import Preprocess
from saddlescape.disk import reason
from saddlescape.errors import InputError

# Part of the key under which decoded pixels are cached: raise it with every change of a pixel.
READER_VERSION = 2

Source = str | Path | bytes | Image.Image
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the upright image

# Pillow's own hard limit against decompression bombs: an image beyond it is refused before it is decoded.
MAX_PIXELS = 178_956_970
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_TRANSPOSE = Image.Transpose
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_UPRIGHT = {  # EXIF orientation -> what turns the stored image upright
    2: _TRANSPOSE.FLIP_LEFT_RIGHT, 3: _TRANSPOSE.ROTATE_180, 4: _TRANSPOSE.FLIP_TOP_BOTTOM, 5: _TRANSPOSE.TRANSPOSE,
    6: _TRANSPOSE.ROTATE_270, 7: _TRANSPOSE.TRANSVERSE, 8: _TRANSPOSE.ROTATE_90,
}  # fmt: skip
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_MAGIC = (
    (b"\xff\xd8\xff", ("JPEG",)),
    (b"\x89PNG\r\n\x1a\n", ("PNG",)),
    (b"RIFF", ("WEBP",)),
    (b"GIF8", ("GIF",)),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")


def pixels(preprocess: Preprocess, source: Source, *, name: str | None = None) -> Tensor:
    """What the network will see, before normalisation: uint8 [channels, S, S].

    ``preprocess.resize_to == 0``: the image is scaled to S x S exactly (left as it is when it has that size).
    Otherwise the shorter side is scaled to ``resize_to`` and the S x S centre is cut out, in one step (the matching
    centre box of the original is scaled), so that an extremely long image costs no memory. With
    anti-aliasing. JPEG files far larger than needed are decoded at a half, a quarter or an eighth of their size
    (a PIL image is taken as it is).

    ``name`` is what messages call ``source`` (default: its path). Raises ``InputError``.
    """
    size = preprocess.image_size
    short = preprocess.resize_to
    if short and short < size:
        raise InputError(f"resize_to {short} is smaller than image_size {size}: the centre cut would leave the image")
    image = open_image(
        source, name=name, at_least=2 * max(short, size), channels=preprocess.channels,
        background=preprocess.background, white_level=preprocess.white_level,
    )  # fmt: skip
    width, height = image.size
    if (width, height) == (size, size) and short in (0, size):
        return to_tensor(image)
    if short:
        side = min(width, height) * size / short
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    else:
        box = (0.0, 0.0, float(width), float(height))
    return to_tensor(image.resize((size, size), _FILTERS[preprocess.interpolation], box=box))


def crop(preprocess: Preprocess, source: Source, size: int, box: Callable[[int, int], Box]) -> Image.Image:
    """A box of an image scaled to ``size`` x ``size`` (with anti-aliasing).

    ``box(width, height)`` chooses it when the size of the upright image is known. A JPEG is decoded at a half, a
    quarter or an eighth of its size where the box still has at least ``size`` pixels a side then. Scaling a box
    differs from cutting it out first in the outermost pixels alone, where neighbours from outside the box take part.
    Raises ``InputError``.
    """
    chosen: Box = (0.0, 0.0, 0.0, 0.0)

    def factor(width: int, height: int) -> int:
        nonlocal chosen
        chosen = box(width, height)
        left, top, right, bottom = chosen
        return max(1, int(min(bottom - top, right - left) // size))

    given = preprocess
    image, reduced = _opened(source, given.channels, given.background, _name(source), factor, given.white_level)
    left, top, right, bottom = (side / reduced for side in chosen)
    inside = (left, top, min(right, float(image.width)), min(bottom, float(image.height)))
    return image.resize((size, size), _FILTERS[given.interpolation], box=inside)


def read_image(
    source: Source, *, channels: int = 3, background: int = 255, name: str | None = None, white_level: float = 0.0
) -> Tensor:
    """The image in its own size: uint8 [channels, H, W], upright. Raises ``InputError``."""
    return to_tensor(
        open_image(source, channels=channels, background=background, name=name, white_level=white_level)
    )


def to_tensor(image: Image.Image) -> Tensor:
    """A PIL image of mode L or RGB -> uint8 [1 or 3, H, W], own memory."""
    array = np.array(image, dtype=np.uint8)
    if array.ndim == 2:
        return torch.from_numpy(array[None])
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def open_image(
    source: Source,
    *,
    channels: int = 3,
    background: int = 255,
    name: str | None = None,
    at_least: int = 0,
    white_level: float = 0.0,
) -> Image.Image:
    """Decode to an upright PIL image of mode ``L`` (channels 1) or ``RGB`` (channels 3).

    ``at_least`` > 0 allows a JPEG to be decoded smaller, but no side below that many pixels. ``white_level``: see
    ``Preprocess``. Raises ``InputError``.
    """
    factor = None if at_least == 0 else lambda width, height: min(width, height) // at_least
    return _opened(source, channels, background, _name(source, name), factor, white_level)[0]


Factor = Callable[[int, int], int]
"""From width and height, upright, to how many times smaller a JPEG may be decoded; may be asked for any format."""


def _opened(
    source: Source, channels: int, background: int, called: str, factor: Factor | None, white: float
) -> tuple[Image.Image, int]:
    """The upright image and how many times smaller it was decoded: 1, 2, 4 or 8."""
    if channels not in (1, 3):
        raise InputError(f"channels is {channels}, but the reader makes 1 (grey) or 3 (RGB)")
    with _warnings_as_remarks(called):
        if isinstance(source, Image.Image):  # taken as it is
            whole = None if factor is None else lambda width, height: min(factor(width, height), 1)
            return _decode(source, channels, background, called, whole, white)
        with _header(source, called) as (image, stream):
            return _decode(image, channels, background, called, factor, white, stream)


@contextlib.contextmanager
def _header(source: str | Path | bytes, called: str) -> Iterator[tuple[Image.Image, io.BufferedIOBase]]:
    """The image with its header read, and the stream it is read from. Raises ``InputError``."""
    stream = io.BytesIO(source) if isinstance(source, bytes) else _stream(Path(source), called)
    with stream:
        first = stream.read(16)
        stream.seek(0)
        if not first:
            raise InputError(f"{called}: cannot read image: the file is empty (0 bytes)")
        try:
            image = _open(stream, first, called)
            _require_known_bands(image)
        except UnidentifiedImageError:
            raise _unknown_format(called, first, stream) from None
        except Image.DecompressionBombError:
            raise InputError(f"{called}: cannot read image: more than {MAX_PIXELS:,} pixels, refused") from None
        except InputError:
            raise
        except Exception as error:  # a broken file makes Pillow's plugins raise nearly anything
            raise InputError(f"{called}: cannot read image: {_reason(error)}") from error
        yield image, stream


def _name(source: Source, name: str | None = None) -> str:
    return name or (str(source) if isinstance(source, str | Path) else "image given as bytes")


def image_size(source: str | Path | bytes, *, name: str | None = None) -> tuple[int, int]:
    """(width, height) as stored, from the header alone. Raises ``InputError``."""
    called = _name(source, name)
    with _warnings_as_remarks(called), _header(source, called) as (image, _):
        return image.size


def deep_range(
    source: str | Path | bytes, *, name: str | None = None, decode: bool = True
) -> tuple[bool, float] | None:
    """Whether an image with more than 8 bits a channel holds floats, and its largest value; None for other images.

    From the header alone without ``decode``; the value is then 0. Raises ``InputError``.
    """
    called = _name(source, name)
    with _warnings_as_remarks(called), _header(source, called) as (image, stream):
        if image.mode not in (*_SIXTEEN_BIT, "I", "F") and not _is_deep_colour(image):
            return None
        if not decode:
            return image.mode == "F", 0.0
        try:
            low = _low_bytes(image, stream)
            values = _deep_colour(image, low)[..., :3] if low is not None else np.asarray(image)
            return image.mode == "F", float(values.max())
        except Exception as error:
            raise InputError(f"{called}: cannot read image: {_reason(error)}") from error


class _Reading(threading.local):
    """What this thread reads, None where nothing, and the remarks that are collected, None where they are not."""

    name: str | None = None
    remarks: list[str] | None = None


_reading = _Reading()
_filters: list[Any] = []  # those saved, then an entry for each reading under way
_filters_lock = threading.Lock()


@contextlib.contextmanager
def collect_remarks() -> Iterator[list[str]]:
    """What is odd about images that this thread reads meanwhile, a line each with the file's name."""
    before, lines = _reading.remarks, list[str]()
    _reading.remarks = lines
    try:
        yield lines
    finally:
        _reading.remarks = before


@contextlib.contextmanager
def _warnings_as_remarks(name: str) -> Iterator[None]:
    """Turn warnings of Pillow and of this module into remarks, whatever filters are set, for all threads at once.

    Python's filters belong to the process, so the first thread changes them and the last one puts them back.
    """
    with _filters_lock:
        if not _filters:
            saved = warnings.catch_warnings()
            saved.__enter__()
            _filters.append(saved)
            before = warnings.showwarning

            def show(message: Any, category: Any, *rest: Any, **more: Any) -> None:
                if _reading.name is None:  # somebody else's, in a thread that reads no image
                    before(message, category, *rest, **more)
                elif _reading.remarks is not None and category is not Image.DecompressionBombWarning:
                    line = f"{_reading.name}: {' '.join(str(message).split())}"
                    _reading.remarks += [line] if line not in _reading.remarks else []

            warnings.filterwarnings("always", module=rf"PIL\.|{re.escape(__name__)}")
            warnings.showwarning = show
        _filters.append(name)
    _reading.name = name
    try:
        yield
    finally:
        _reading.name = None
        with _filters_lock:
            _filters.pop()
            if len(_filters) == 1:
                _filters.pop().__exit__(None, None, None)


def read_file(path: str | Path) -> bytes:
    """The encoded bytes of an image file. Raises ``InputError`` where it is not there or not a regular file."""
    with _named(str(path)), _stream(Path(path), str(path)) as stream:
        return stream.read()


def looks_like_image(first: bytes) -> bool:
    """Whether a file that begins with these (at least 16) bytes is of a common image format."""
    return (
        first.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  "))
        or (first[:4] == b"RIFF" and first[8:12] == b"WEBP")
        or (first[4:8] == b"ftyp" and first[8:12] in _HEIF_BRANDS + _AVIF_BRANDS)
    )


def _stream(path: Path, called: str) -> io.BufferedReader:
    # A directory, a pipe or a device must not hang the reader.
    if not path.exists():
        gone = f"a link to {path.readlink()}, which is not there" if path.is_symlink() else "no such file"
        raise InputError(f"{called}: cannot read image: {gone}")
    if not path.is_file():
        raise InputError(f"{called}: cannot read image: not a regular file")
    with _named(called):
        stream = path.open("rb")
        try:
            stream.peek(1)  # an error of the disk shows here, not where nobody knows the file
        except OSError:
            stream.close()
            raise
        return stream


@contextlib.contextmanager
def _named(called: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{called}: cannot read image: {reason(error)}") from error


def _open(stream: io.BufferedIOBase, first: bytes, called: str) -> Image.Image:
    # Pillow tries its fifty formats one by one; naming the right one from the first bytes halves the time of a small
    # image. A file that its own plugin refuses gets the long way round, for the same answer as ever.
    for magic, formats in _MAGIC:
        if first.startswith(magic):
            try:
                return Image.open(stream, formats=formats)  # type: ignore[arg-type]
            except UnidentifiedImageError:
                stream.seek(0)
                break
    try:
        return Image.open(stream)  # type: ignore[arg-type]
    except UnidentifiedImageError:
        kind = _needs_plugin(first)
        if kind is None:
            raise
        _register_heif(called, kind)
        stream.seek(0)
        return Image.open(stream)  # type: ignore[arg-type]


def _decode(
    image: Image.Image,
    channels: int,
    background: int,
    called: str,
    factor: Factor | None,
    white: float,
    stream: io.BufferedIOBase | None = None,
) -> tuple[Image.Image, int]:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(f"{called}: cannot read image: {width} x {height} pixels, more than {MAX_PIXELS:,}, refused")
    if width == 0 or height == 0:
        raise InputError(f"{called}: cannot read image: {width} x {height} pixels")
    try:
        # First of all: asking a PNG for its orientation loads it.
        low = None if white in (0, 65535) or stream is None else _low_bytes(image, stream)
        reduced = 1 if factor is None else _reduce(image, factor)
        opaque = _has_band_without_meaning(image)
        image.load()
        turned = _orientation(image)
        if low is not None:
            eight = _scaled(_deep_colour(image, low), white)
            # Pillow's RGB and RGBA are 3 and 4 channels of uint8.
            image = Image.fromarray(eight)
        if opaque:
            warnings.warn("its fourth band is not transparency by the file's own tags, and is left out", stacklevel=1)
            image = Image.merge("RGB", image.split()[:3])
        if turned in _UPRIGHT:
            image = image.transpose(_UPRIGHT[turned])
        return _to_mode(image, "L" if channels == 1 else "RGB", background, white), reduced
    except InputError as error:
        raise InputError(f"{called}: cannot read image: {error}") from None
    except Exception as error:
        raise InputError(f"{called}: cannot read image: {_reason(error)}") from error


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether Pillow would keep only the upper 8 of 16 bits a channel: RGB, with or without transparency."""
    return _raw_mode(image)[-4:-1] == ";16" and image.mode in ("RGB", "RGBA")


def _raw_mode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None) or []
    args = tiles[0][3] if tiles else ""
    return args if isinstance(args, str) else str(args[0]) if isinstance(args, tuple) and args else ""


def _low_bytes(image: Image.Image, stream: io.BufferedIOBase) -> Image.Image | None:
    """The lower 8 of 16 bits a channel, as an image of its own: Pillow, asked to read the other byte order.

    None where ``image`` keeps all its bits. Raises ``InputError`` for 16-bit grey with transparency, for which Pillow
    has no other order. ``image`` must not be loaded yet.
    """
    if not _is_deep_colour(image):
        return None
    if _raw_mode(image).startswith("LA"):
        raise InputError("16-bit grey with transparency in less than the full range; save it without transparency")
    where = stream.tell()
    stream.seek(0)
    other = Image.open(io.BytesIO(stream.read()))
    stream.seek(where)
    tiles = []
    for codec, box, offset, args in getattr(other, "tile", []):
        raw = args if isinstance(args, str) else args[0]
        swapped = raw[:-1] + _OTHER_BYTE[raw[-1]]
        tiles.append((codec, box, offset, swapped if isinstance(args, str) else (swapped, *args[1:])))
    other.tile = [type(tile)(*swapped) for tile, swapped in zip(other.tile, tiles, strict=True)]  # type: ignore[attr-defined]
    return other


def _deep_colour(image: Image.Image, low: Image.Image) -> NDArray[np.int64]:
    """Values of all 16 bits, int64 [H, W, 3 or 4], from an image of the upper and one of the lower bytes."""
    return np.asarray(image).astype(np.int64) * 256 + np.asarray(low)


def _scaled(values: NDArray[Any], white: float) -> NDArray[np.uint8]:
    """0..``white`` -> 0..255, rounded. Raises ``InputError`` for values outside."""
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        raise InputError("floating-point pixels that are not finite; save it with 8 or 16 bits")
    least, most = float(values.min()), float(values.max())
    if least < 0 or most > white:
        found = f"{least:g}" if least < 0 else f"{most:g}"
        raise InputError(
            f"a value of {found}, outside the scale of 0 to {white:g} (that of the training images, else that of the "
            "file's type); save it on that scale"
        )
    if np.issubdtype(values.dtype, np.floating):
        return np.rint(values.astype(np.float64) * (255 / white)).astype(np.uint8)
    level = round(white)
    return ((values.astype(np.int64) * 255 + level // 2) // level).astype(np.uint8)


def _reduce(image: Image.Image, factor: Factor) -> int:
    """Have a JPEG decoded at a half, a quarter or an eighth where ``factor`` allows it; how many times smaller."""
    width, height = image.size
    wanted = factor(height, width) if _orientation(image) >= 5 else factor(width, height)
    allowed = next(step for step in (8, 4, 2, 1) if step <= max(wanted, 1))
    if allowed == 1 or image.format != "JPEG":
        return 1
    image.draft(None, (width // allowed, height // allowed))  # type: ignore[arg-type]  # None: keep the mode
    return 1 if image.size == (width, height) else allowed


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none; from 5 on width and height change places."""
    try:
        turned = image.getexif().get(0x0112, 1)
    except Exception:
        return 1  # damaged EXIF beside sound pixels: the image is kept as it is stored
    return turned if isinstance(turned, int) and 1 <= turned <= 8 else 1


def _to_mode(image: Image.Image, mode: str, background: int, white: float) -> Image.Image:
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode in _SIXTEEN_BIT or image.mode in ("I", "F"):
        image = _to_eight_bit(image, background, white)
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        # "RGBa"/"La" (premultiplied) only convert to their straight kin.
        straight = {"RGBa": "RGBA", "La": "LA"}.get(image.mode)
        if straight:
            image = image.convert(straight)
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (background, background, background, 255))
        image = Image.alpha_composite(ground, image).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _to_eight_bit(image: Image.Image, background: int, white: float) -> Image.Image:
    """Grey of more than 8 bits -> L. ``white`` 0: integers are taken as 0..65535, floats as 0..1."""
    values = np.asarray(image)
    floats = image.mode == "F"
    eight = _scaled(values, white or (1.0 if floats else 65535.0))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and not floats:
        eight[values == transparent] = background
    return Image.fromarray(eight)


def _bands(image: Image.Image) -> int:
    """Bands that a TIFF's tags state; 0 for other formats."""
    return int(image.tag_v2.get(277, 1)) if isinstance(image, TiffImagePlugin.TiffImageFile) else 0


def _require_known_bands(image: Image.Image) -> None:
    if _bands(image) > 4:
        raise UnidentifiedImageError("more bands than are known")


def _has_band_without_meaning(image: Image.Image) -> bool:
    """Whether a fourth band beside RGB is something else than transparency (1 or 2 in the tag of extra samples)."""
    if _bands(image) != 4 or not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    extra = image.tag_v2.get(338) or (0,)
    return image.mode in ("RGB", "RGBA") and int(extra[0]) not in (1, 2)


def _tiff_bands(stream: io.BufferedIOBase) -> str | None:
    """What a TIFF that Pillow does not take holds, by its tags: "five bands of 8 bits"."""
    try:
        stream.seek(0)
        head = stream.read(16)
        tags = TiffImagePlugin.ImageFileDirectory_v2(head if 43 in head[2:4] else head[:8])
        stream.seek(tags.next)
        tags.load(stream)  # type: ignore[arg-type]
        bands, bits, kinds = int(tags.get(277, 1)), tags.get(258, (1,)), tags.get(339, (1,))
        kind = {2: "signed integer ", 3: "floating-point ", 5: "complex ", 6: "complex "}.get(int(kinds[0]), "")
        number = _NUMBERS[bands] if bands < len(_NUMBERS) else str(bands)
        return f"{number} {kind}band{'s' * (bands != 1)} of {int(bits[0])} bits"
    except Exception:  # damaged: nothing can be said
        return None


def _needs_plugin(first: bytes) -> str | None:
    if first[4:8] != b"ftyp":
        return None
    if first[8:12] in _HEIF_BRANDS:
        return "HEIC"
    return "AVIF" if first[8:12] in _AVIF_BRANDS else None


def _register_heif(called: str, kind: str) -> None:
    """Let Pillow read HEIC through pillow-heif where that is installed; else say how to get it."""
    try:
        import pillow_heif
    except ImportError:
        cure = "pip install pillow-heif" if kind == "HEIC" else "pip install 'pillow>=11.3'"
        raise InputError(f"{called}: {kind} images need one more package: {cure}, or convert to JPEG") from None
    pillow_heif.register_heif_opener()
    if kind == "AVIF" and hasattr(pillow_heif, "register_avif_opener"):
        pillow_heif.register_avif_opener()


def _unknown_format(called: str, first: bytes, stream: io.BufferedIOBase) -> InputError:
    bands = _tiff_bands(stream) if first[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") else None
    if bands is not None:
        return InputError(
            f"{called}: cannot read image: {bands}: the reader takes one band (8 to 32 bits, or 32-bit floats) or "
            "three of 8 or 16 bits, with transparency or without; save the bands to be used like that"
        )
    return InputError(f"{called}: cannot read image: not in a known image format ({_looks_like(first)})")


def _looks_like(first: bytes) -> str:
    if looks_like_image(first):
        return "it begins like an image but its header is damaged"
    printable = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in first)
    return "it looks like text" if printable else "unknown content"


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
