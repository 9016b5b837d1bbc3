"""Images of more than 8 bits a channel: scaled by the range that the set uses, and odd TIFFs named or read."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saddlescape.data import Preprocess, check, load, pixels, read_image
from saddlescape.data.cache import entry
from saddlescape.data.reader import collect_remarks, deep_range
from saddlescape.errors import InputError


def png16(values: NDArray[np.integer]) -> bytes:
    """A 16-bit PNG of [H, W] (grey), [H, W, 2] (grey, alpha), [H, W, 3] or [H, W, 4]; Pillow writes grey only."""
    height, width = values.shape[:2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values.reshape(height, -1))

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(
    values: NDArray[np.generic], extra: tuple[int, ...] | None = None, order: str = "<", *, packed: bool = False
) -> bytes:
    """A TIFF with the tags that say exactly this; ``extra``: the tag of extra samples."""
    height, width = values.shape[:2]
    bands = 1 if values.ndim == 2 else values.shape[2]
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    content = values.astype(values.dtype.newbyteorder(order)).tobytes()  # type: ignore[arg-type]
    content = zlib.compress(content) if packed else content
    tags = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [8 * values.dtype.itemsize] * bands),
        (259, 3, [8 if packed else 1]), (262, 3, [2 if bands > 2 else 1]), (273, 4, [0]), (277, 3, [bands]),
        (278, 4, [height]), (279, 4, [len(content)]), *([] if extra is None else [(338, 3, list(extra))]),
        (339, 3, [kind] * bands),
    ]  # fmt: skip
    sizes = {3: "H", 4: "I"}
    long = 10 + 12 * len(tags) + 4
    begin = long + sum(len(v) * struct.calcsize(sizes[t]) for _, t, v in tags if len(v) * struct.calcsize(sizes[t]) > 4)
    entries, beyond = b"", b""
    for tag, form, numbers in tags:
        raw = b"".join(struct.pack(order + sizes[form], begin if tag == 273 else number) for number in numbers)
        entries += struct.pack(order + "HHI", tag, form, len(numbers))
        if len(raw) > 4:
            entries, beyond = entries + struct.pack(order + "I", long + len(beyond)), beyond + raw
        else:
            entries += raw.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(tags))
    return head + entries + b"\0\0\0\0" + beyond + content


def encoded(values: NDArray[np.generic], form: str) -> bytes:
    if form.startswith("tiff"):
        return tiff(values, None, ">" if ">" in form else "<", packed="packed" in form)
    return png16(values)  # type: ignore[arg-type]


def folder(root: Path, images: list[bytes], ending: str) -> Path:
    """Two classes, every other image each; the last two are the test set."""
    for i, content in enumerate(images):
        path = root / ("test" if i >= len(images) - 2 else "train") / "ab"[i % 2] / f"{i}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def rounded(values: NDArray[np.generic], white: float) -> NDArray[np.uint8]:
    return np.floor(values.astype(np.float64) * 255 / white + 0.5).astype(np.uint8)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 16])
@pytest.mark.parametrize("form", ["png", "tiff<", "tiff>", "tiff<packed", "tiff>packed"])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("memory_limit", [2 << 30, 1])
def test_every_depth_fills_the_range(tmp_path: Path, bits: int, form: str, colour: bool, memory_limit: int) -> None:
    generator = np.random.default_rng(bits)
    shape = (32, 32, 3) if colour else (32, 32)
    arrays = [generator.integers(0, 2**bits, shape, dtype=np.uint16) for _ in range(6)]
    arrays[0].flat[0] = 2**bits - 1
    root = folder(tmp_path, [encoded(a, form) for a in arrays], form[:4].strip("<>"))
    dataset = load(root, image_size=32, memory_limit=memory_limit)
    assert dataset.preprocess.white_level == 2**bits - 1
    assert any(f"0 to {2**bits - 1:g}" in note and "become 0 to 255" in note for note in dataset.notes)
    places = [*dataset.train.names, *dataset.test.names]
    for place in places:
        wanted = rounded(arrays[int(Path(place).stem)], 2**bits - 1)
        if colour and bits == 16:
            wanted = (arrays[int(Path(place).stem)] >> 8).astype(np.uint8)  # as Pillow has it
        seen = pixels(dataset.preprocess, Path(place)).numpy()
        assert (seen == (wanted.transpose(2, 0, 1) if colour else wanted)).all()
    if memory_limit > 1:
        again = pixels(dataset.preprocess, Path(dataset.train.names[0])).numpy()
        assert (dataset.train.images[0].numpy() == again).all()
    report = check(root)
    assert report.ok and any("become 0 to 255" in note for note in report.notes)


@pytest.mark.parametrize(("largest", "white"), [(0.25, 1), (1.0, 1), (200.5, 255), (255, 255), (3000, 4095)])
def test_float_images_are_read_and_the_scale_is_told(tmp_path: Path, largest: float, white: float) -> None:
    generator = np.random.default_rng(0)
    arrays = [(generator.random((32, 32)) * largest).astype(np.float32) for _ in range(6)]
    arrays[1].flat[0] = largest
    root = folder(tmp_path, [tiff(a) for a in arrays], "tif")
    dataset = load(root, image_size=32)
    assert dataset.preprocess.white_level == white
    assert any(f"0 to {white:g} " in note for note in dataset.notes)
    assert np.abs(dataset.train.images[0, 0].numpy() - arrays[0] * (255 / white)).max() <= 0.51
    assert check(root).ok


@pytest.mark.parametrize("largest", [70_000, 2**24, 2**31 - 1])
def test_32_bit_integers_are_scaled_by_their_bits(tmp_path: Path, largest: int) -> None:
    ramp = np.linspace(0, largest, 1024).astype(np.int32).reshape(32, 32)
    dataset = load(folder(tmp_path, [tiff(ramp)] * 6, "tif"), image_size=32)
    white = 2 ** int(largest).bit_length() - 1
    assert dataset.preprocess.white_level == white
    assert dataset.train.images.max() == round(largest * 255 / white)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((32, 32), -1, dtype=np.int16), "a value of -1, outside the scale of 0 to"),
        (np.full((32, 32), np.nan, dtype=np.float32), "not finite"),
        (np.full((32, 32), -0.5, dtype=np.float32), r"a value of -0\.5"),
    ],
)
def test_values_without_a_scale_are_named(tmp_path: Path, values: NDArray[np.generic], words: str) -> None:
    root = folder(tmp_path, [tiff(values)] * 4, "tif")
    with pytest.raises(InputError, match=words):
        load(root)


def test_integers_beside_floats_on_other_scales_are_refused(tmp_path: Path) -> None:
    ramp = np.arange(1024).reshape(32, 32)
    root = folder(tmp_path, [png16(ramp.astype(np.uint16)), tiff((ramp / 1024).astype(np.float32))] * 3, "tif")
    with pytest.raises(InputError, match="3 images of floats, 3 of integers"):
        load(root)


def test_eight_bit_sets_have_no_white_level_and_no_note(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", (32, 32), (1, 2, 3)).save(out, "PNG")
    dataset = load(folder(tmp_path, [out.getvalue()] * 4, "png"))
    assert dataset.preprocess.white_level == 0 and not any("8 bits" in note for note in dataset.notes)


def test_parquet_is_scaled_alike_and_cached_apart(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    ramp = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    pq.write_table(pa.table({"image": [png16(ramp)] * 4, "label": [0, 1, 0, 1]}), tmp_path / "train.parquet")
    dataset = load(tmp_path, image_size=32)
    assert dataset.preprocess.white_level == 1023 and dataset.train.images.max() == 255
    rows = np.arange(5000)
    keys = {entry("same", rows, Preprocess(image_size=32, white_level=white)) for white in (0, 1023)}
    assert len(keys) == 2 or keys == {None}


def test_a_value_beyond_the_scale_is_refused_not_clipped(tmp_path: Path) -> None:
    bright = png16(np.full((32, 32), 60_000, dtype=np.uint16))
    with pytest.raises(InputError, match="a value of 60000, outside the scale of 0 to 4095"):
        pixels(Preprocess(image_size=32, white_level=4095), bright)
    with pytest.raises(InputError, match="a value of 60000, outside"):
        pixels(Preprocess(image_size=32, white_level=4095), png16(np.full((32, 32, 3), 60_000, dtype=np.uint16)))


def test_deep_colour_turns_with_its_orientation_and_keeps_its_transparency() -> None:
    ramp = np.arange(12 * 8, dtype=np.uint16).reshape(12, 8) * 40
    colour = np.stack([ramp, ramp // 2, ramp // 4, np.full_like(ramp, 4095)], axis=2)
    seen = read_image(png16(colour), white_level=4095).numpy()
    assert (seen == rounded(colour[..., :3], 4095).transpose(2, 0, 1)).all()
    assert deep_range(png16(colour)) == (False, float(ramp.max()))
    grey = np.stack([ramp, np.full_like(ramp, 4095)], axis=2)
    with pytest.raises(InputError, match="16-bit grey with transparency"):
        read_image(png16(grey), white_level=4095)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("bands", "extra", "dtype", "words"),
    [
        (5, None, np.uint8, "five bands of 8 bits"),
        (5, (0, 0), np.uint8, "five bands of 8 bits"),  # Pillow would leave two out
        (6, (0, 0, 0), np.uint8, "six bands of 8 bits"),
        (5, (0, 0), np.uint16, "five bands of 16 bits"),
        (12, None, np.uint16, "12 bands of 16 bits"),
        (3, None, np.float32, "three floating-point bands of 32 bits"),
        (4, (0,), np.float32, "four floating-point bands of 32 bits"),
        (1, None, np.float64, "one floating-point band of 64 bits"),
        (3, None, np.int16, "three signed integer bands of 16 bits"),
        (3, None, np.uint32, "three bands of 32 bits"),
    ],
)
def test_bands_that_cannot_be_meant_are_counted(
    bands: int, extra: tuple[int, ...] | None, dtype: type, words: str, order: str
) -> None:
    values = np.zeros((5, 7, bands) if bands > 1 else (5, 7), dtype=dtype)
    with pytest.raises(InputError, match=f"cannot read image: {words}: the reader takes one band"):
        read_image(tiff(values, extra, order))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("extra", "alpha"), [(None, False), ((0,), False), ((1,), True), ((2,), True)])
def test_a_fourth_band_is_transparency_only_where_the_file_says_so(
    dtype: type, extra: tuple[int, ...] | None, alpha: bool
) -> None:
    values = np.zeros((5, 7, 4), dtype=dtype)
    values[..., 0] = 100 << (8 if dtype is np.uint16 else 0)  # red 100; the fourth band is 0: all transparent
    with collect_remarks() as remarks:
        seen = read_image(tiff(values, extra), name="x.tif")
    assert seen[:, 0, 0].tolist() == ([255, 255, 255] if alpha else [100, 0, 0])
    assert remarks == ([] if alpha else ["x.tif: its fourth band is not transparency by the file's own tags, and is "
                                         "left out"])  # fmt: skip


READ = """
import sys, torch
from saddlescape.data import Preprocess, pixels
print(pixels(Preprocess(image_size=8, channels=1), sys.argv[1]).unique().tolist())
"""


@pytest.mark.parametrize("filters", ["", "error"])
@pytest.mark.parametrize("kind", ["large", "exif", "tiff"])
def test_no_raw_warning_whatever_the_filters(tmp_path: Path, filters: str, kind: str) -> None:
    path = tmp_path / {"large": "x.png", "exif": "x.jpg", "tiff": "x.tif"}[kind]
    if kind == "large":
        Image.new("1", (10_000, 10_000), 1).save(path)
    elif kind == "exif":
        Image.new("L", (8, 8), 255).save(path, quality=100, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    else:
        content = bytearray(tiff(np.full((8, 8), 255, dtype=np.uint8)))
        at = content.index(struct.pack("<HHI", 339, 3, 1))
        content[at : at + 8] = struct.pack("<HHI", 339, 3, 5000)  # more values than the file has
        path.write_bytes(content)
    environment = {**os.environ, "PYTHONWARNINGS": filters}
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, env=environment)
    assert (done.stdout.strip(), done.stderr) == ("[255]", "")


def test_a_remark_names_the_file_in_load_and_check(tmp_path: Path) -> None:
    for i in range(6):
        path = tmp_path / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (32, 32), 40 * i).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" if i == 3 else b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for notes in (load(tmp_path).notes, check(tmp_path).notes):
            found = [note for note in notes if "3.jpg" in note]
            assert len(found) == 1 and "EXIF" in found[0]
