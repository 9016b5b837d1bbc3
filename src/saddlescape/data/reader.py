"""The one reader: from a file, bytes or a PIL image to uint8 pixels, the same in training, prediction and export.

What is read right, by content and not by the name's ending: EXIF orientation, grey, palette, CMYK and YCCK (Adobe's
inverted kind, as Pillow does for every JPEG with four components), 16-bit grey (to 256 levels), transparency (over a
stated grey background), the first frame of animations. Colour profiles (ICC) are not applied. Everything that cannot be
read is an ``InputError`` of one line that names the file and the reason.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from saddlescape.data.types import Preprocess
from saddlescape.errors import InputError

# Part of the key under which decoded pixels are cached: raise it with every change of a pixel.
READER_VERSION = 1

Source = str | Path | bytes | Image.Image
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the upright picture

# Pillow's own hard limit against decompression bombs: a picture beyond it is refused before it is decoded.
MAX_PIXELS = 178_956_970
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
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

    ``preprocess.resize_to == 0``: the picture is scaled to S x S exactly (left as it is when it has that size).
    Otherwise the shorter side is scaled to ``resize_to`` and the S x S centre is cut out, in one step (the matching
    centre box of the original is scaled), so that an extremely long picture costs no memory. Bilinear with
    anti-aliasing. JPEG files far larger than needed are decoded at a half, a quarter or an eighth of their size
    (a PIL image is taken as it is).

    ``name`` is what messages call ``source`` (default: its path). Raises ``InputError``.
    """
    size = preprocess.image_size
    short = preprocess.resize_to
    if short and short < size:
        raise InputError(f"resize_to {short} is smaller than image_size {size}: the centre cut would leave the picture")
    picture = open_image(
        source, channels=preprocess.channels, background=preprocess.background, name=name, at_least=2 * max(short, size)
    )
    width, height = picture.size
    if (width, height) == (size, size) and short in (0, size):
        return to_tensor(picture)
    if short:
        side = min(width, height) * size / short
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    else:
        box = (0.0, 0.0, float(width), float(height))
    return to_tensor(picture.resize((size, size), Image.Resampling.BILINEAR, box=box))


def crops(
    source: Source,
    size: int,
    boxes: Callable[[int, int], Sequence[Box]],
    *,
    channels: int = 3,
    background: int = 255,
    name: str | None = None,
    reduce: bool = True,
) -> list[Image.Image]:
    """Boxes of a picture, each scaled to ``size`` x ``size`` (bilinear with anti-aliasing); decoded once.

    ``boxes(width, height)`` chooses them when the size of the upright picture is known. ``reduce``: a JPEG is decoded
    at a half, a quarter or an eighth of its size where every box still has at least ``size`` pixels a side then.
    Scaling a box differs from cutting it out first in the outermost pixels alone, where neighbours from outside the
    box take part. Raises ``InputError``.
    """
    chosen: list[Box] = []

    def factor(width: int, height: int) -> int:
        chosen[:] = boxes(width, height)
        short = min(min(right - left, bottom - top) for left, top, right, bottom in chosen)
        return max(1, int(short // size)) if reduce else 1

    called = name or (str(source) if isinstance(source, str | Path) else "image given as bytes")
    picture, reduced = _opened(source, channels, background, called, factor)
    out = []
    for box in chosen:
        left, top, right, bottom = (side / reduced for side in box)
        inside = (left, top, min(right, float(picture.width)), min(bottom, float(picture.height)))
        out.append(picture.resize((size, size), Image.Resampling.BILINEAR, box=inside))
    return out


def read_image(source: Source, *, channels: int = 3, background: int = 255, name: str | None = None) -> Tensor:
    """The picture in its own size: uint8 [channels, H, W], upright. Raises ``InputError``."""
    return to_tensor(open_image(source, channels=channels, background=background, name=name))


def to_tensor(picture: Image.Image) -> Tensor:
    """A PIL image of mode L or RGB -> uint8 [1 or 3, H, W], own memory."""
    array = np.array(picture, dtype=np.uint8)
    if array.ndim == 2:
        return torch.from_numpy(array[None])
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def open_image(
    source: Source, *, channels: int = 3, background: int = 255, name: str | None = None, at_least: int = 0
) -> Image.Image:
    """Decode to an upright PIL image of mode ``L`` (channels 1) or ``RGB`` (channels 3).

    ``at_least`` > 0 allows a JPEG to be decoded smaller, but no side below that many pixels. Raises ``InputError``.
    """
    called = name or (str(source) if isinstance(source, str | Path) else "image given as bytes")
    factor = None if at_least == 0 else lambda width, height: min(width, height) // at_least
    return _opened(source, channels, background, called, factor)[0]


Factor = Callable[[int, int], int]
"""From width and height, upright, to how many times smaller a JPEG may be decoded; may be asked for any format."""


def _opened(
    source: Source, channels: int, background: int, called: str, factor: Factor | None
) -> tuple[Image.Image, int]:
    """The upright picture and how many times smaller it was decoded: 1, 2, 4 or 8."""
    if channels not in (1, 3):
        raise InputError(f"channels is {channels}, but the reader makes 1 (grey) or 3 (RGB)")
    if isinstance(source, Image.Image):  # taken as it is
        whole = None if factor is None else lambda width, height: min(factor(width, height), 1)
        return _decode(source, channels, background, called, whole)
    stream = io.BytesIO(source) if isinstance(source, bytes) else _stream(Path(source), called)
    with stream:
        first = stream.read(16)
        stream.seek(0)
        if not first:
            raise InputError(f"{called}: cannot read image: the file is empty (0 bytes)")
        try:
            picture = _open(stream, first, called)
        except UnidentifiedImageError:
            raise _unknown_format(called, first) from None
        except Image.DecompressionBombError:
            raise InputError(f"{called}: cannot read image: more than {MAX_PIXELS:,} pixels, refused") from None
        except InputError:
            raise
        except Exception as error:  # a broken file makes Pillow's plugins raise nearly anything
            raise InputError(f"{called}: cannot read image: {_reason(error)}") from error
        return _decode(picture, channels, background, called, factor)


def image_size(source: str | Path | bytes, *, name: str | None = None) -> tuple[int, int]:
    """(width, height) as stored, from the header alone. Raises ``InputError``."""
    called = name or (str(source) if isinstance(source, str | Path) else "image given as bytes")
    stream = io.BytesIO(source) if isinstance(source, bytes) else _stream(Path(source), called)
    with stream:
        first = stream.read(16)
        stream.seek(0)
        if not first:
            raise InputError(f"{called}: cannot read image: the file is empty (0 bytes)")
        try:
            with _open(stream, first, called) as picture:
                return picture.size
        except InputError:
            raise
        except UnidentifiedImageError:
            raise _unknown_format(called, first) from None
        except Exception as error:
            raise InputError(f"{called}: cannot read image: {_reason(error)}") from error


def read_file(path: str | Path) -> bytes:
    """The encoded bytes of an image file. Raises ``InputError`` where it is not there or not a regular file."""
    with _stream(Path(path), str(path)) as stream:
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
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{called}: cannot read image: {os.strerror(error.errno or 0)}") from error


def _open(stream: io.BufferedIOBase, first: bytes, called: str) -> Image.Image:
    # Pillow tries its fifty formats one by one; naming the right one from the first bytes halves the time of a small
    # picture. A file that its own plugin refuses gets the long way round, for the same answer as ever.
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
    picture: Image.Image, channels: int, background: int, called: str, factor: Factor | None
) -> tuple[Image.Image, int]:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise InputError(f"{called}: cannot read image: {width} x {height} pixels, more than {MAX_PIXELS:,}, refused")
    if width == 0 or height == 0:
        raise InputError(f"{called}: cannot read image: {width} x {height} pixels")
    try:
        reduced = 1 if factor is None else _reduce(picture, factor)
        picture.load()
        picture = _upright(picture)
        return _to_mode(picture, "L" if channels == 1 else "RGB", background), reduced
    except InputError as error:
        raise InputError(f"{called}: cannot read image: {error}") from None
    except Exception as error:
        raise InputError(f"{called}: cannot read image: {_reason(error)}") from error


def _reduce(picture: Image.Image, factor: Factor) -> int:
    """Have a JPEG decoded at a half, a quarter or an eighth where ``factor`` allows it; how many times smaller."""
    width, height = picture.size
    wanted = factor(height, width) if _orientation(picture) >= 5 else factor(width, height)
    allowed = next(step for step in (8, 4, 2, 1) if step <= max(wanted, 1))
    if allowed == 1 or picture.format != "JPEG":
        return 1
    picture.draft(None, (width // allowed, height // allowed))  # type: ignore[arg-type]  # None: keep the mode
    return 1 if picture.size == (width, height) else allowed


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none; from 5 on width and height change places."""
    try:
        turned = picture.getexif().get(0x0112, 1)
    except Exception:
        return 1  # damaged EXIF beside sound pixels: the picture is kept as it is stored
    return turned if isinstance(turned, int) and 1 <= turned <= 8 else 1


def _upright(picture: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(picture) if _orientation(picture) != 1 else picture


def _to_mode(picture: Image.Image, mode: str, background: int) -> Image.Image:
    if picture.mode == mode and "transparency" not in picture.info:
        return picture
    if picture.mode in _SIXTEEN_BIT or picture.mode in ("I", "F"):
        picture = _to_eight_bit(picture, background)
    if "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info:
        # "RGBa"/"La" (premultiplied) only convert to their straight kin.
        straight = {"RGBa": "RGBA", "La": "LA"}.get(picture.mode)
        if straight:
            picture = picture.convert(straight)
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (background, background, background, 255))
        picture = Image.alpha_composite(ground, picture).convert("RGB")
    return picture if picture.mode == mode else picture.convert(mode)


def _to_eight_bit(picture: Image.Image, background: int) -> Image.Image:
    """Grey of more than 8 bits -> L. Integers are taken as 0..65535 (v * 255 / 65535, rounded), floats as 0..1."""
    values = np.asarray(picture)
    if picture.mode == "F":
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise InputError("floating-point pixels outside [0, 1] have no agreed scale; save it with 8 or 16 bits")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    levels = values.astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise InputError("32-bit integer pixels outside 0..65535 have no agreed scale; save it with 8 or 16 bits")
    eight = ((levels * 255 + 32767) // 65535).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        eight[levels == transparent] = background
    return Image.fromarray(eight)


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


def _unknown_format(called: str, first: bytes) -> InputError:
    return InputError(f"{called}: cannot read image: not in a known image format ({_looks_like(first)})")


def _looks_like(first: bytes) -> str:
    if looks_like_image(first):
        return "it begins like an image but its header is damaged"
    printable = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in first)
    return "it looks like text" if printable else "unknown content"


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
