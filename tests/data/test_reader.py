"""People's own pictures: every kind is read right or named in one line. Expected pixels are worked out here by hand."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageFilter, features

from saddlescape.data import Preprocess, pixels, read_image
from saddlescape.data.reader import crop, image_size, open_image
from saddlescape.errors import InputError

RED = (255, 0, 0)


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)  # type: ignore[arg-type]
    return out.getvalue()


def test_plain_rgb_is_bit_exact(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = tmp_path / "ünï code pic.PNG"
    Image.fromarray(array).save(path)
    image = read_image(path)
    assert image.dtype == torch.uint8 and image.shape == (3, 5, 7)
    assert (image.numpy() == array.transpose(2, 0, 1)).all()
    assert torch.equal(read_image(path.read_bytes()), image)
    assert torch.equal(read_image(Image.open(path)), image)
    square = array[:5, :5]
    assert (pixels(Preprocess(image_size=5), Image.fromarray(square)).numpy() == square.transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_exif_orientation(orientation: int, turn, form: str) -> None:  # type: ignore[no-untyped-def]
    array = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    stored = encoded(Image.fromarray(array), form, exif=exif, **options)
    assert (read_image(stored).numpy() == turn(array).transpose(2, 0, 1)).all()


def test_orientation_6_jpeg_equals_the_upright_one_at_any_size() -> None:
    # Flat blocks of 16 x 16 survive the codec in either direction, also when it decodes at a fraction of the size.
    blocks = np.random.default_rng(2).integers(0, 256, (6, 10, 1), dtype=np.uint8).repeat(3, axis=2)
    upright = blocks.repeat(64, axis=0).repeat(64, axis=1)
    stored = np.ascontiguousarray(np.rot90(upright, 1))  # orientation 6 asks for a quarter turn clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.fromarray(stored), "JPEG", quality=100, subsampling=0, exif=exif)
    plain = encoded(Image.fromarray(upright), "JPEG", quality=100, subsampling=0)
    assert read_image(turned).shape == read_image(plain).shape == (3, 384, 640)
    for preprocess in (Preprocess(image_size=8), Preprocess(image_size=32, resize_to=32)):
        gap = (pixels(preprocess, turned).int() - pixels(preprocess, plain).int()).abs().max()
        assert gap <= 2


def test_damaged_exif_beside_sound_pixels_is_read() -> None:
    stored = encoded(Image.new("RGB", (8, 8), RED), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert read_image(stored).shape == (3, 8, 8)


def test_sixteen_bit_grey_ramp_has_256_levels() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(ramp.astype(np.float64) * 255 / 65535).astype(np.uint8)
    for form in ("PNG", "TIFF"):
        image = read_image(encoded(Image.fromarray(ramp), form))
        assert image.shape == (3, 256, 256)
        assert len(image.unique()) == 256
        assert (image.numpy() == expected).all()
    big_endian = Image.frombytes("I;16B", (256, 256), ramp.astype(">u2").tobytes())
    assert (read_image(big_endian, channels=1).numpy()[0] == expected).all()
    assert (read_image(Image.fromarray(ramp.astype(np.int32)), channels=1).numpy()[0] == expected).all()


def test_integers_and_floats_without_an_agreed_scale_are_refused() -> None:
    with pytest.raises(InputError, match="65535"):
        read_image(Image.fromarray(np.array([[0, 70000]], dtype=np.int32)))
    with pytest.raises(InputError, match=r"3\.5, outside the scale of 0 to 1 "):
        read_image(Image.fromarray(np.array([[0, 3.5]], dtype=np.float32)))
    unit = read_image(Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32)), channels=1)
    assert unit.flatten().tolist() == [0, 128, 255]


def ycck_jpeg() -> bytes:
    """A red square as YCCK: CMYK ink (0, 255, 255, 0) is R'G'B' (0, 255, 255) inverted, taken to Y'CbCr by BT.601."""
    r, g, b = 0, 255, 255
    y = round(0.299 * r + 0.587 * g + 0.114 * b)
    cb = round(128 - 0.168736 * r - 0.331264 * g + 0.5 * b)
    cr = round(128 + 0.5 * r - 0.418688 * g - 0.081312 * b)
    # Pillow stores CMYK inverted; so that (y, cb, cr, 255) is what ends in the file, give it the complement.
    data = encoded(Image.new("CMYK", (16, 16), (255 - y, 255 - cb, 255 - cr, 0)), "JPEG", quality=100)
    at = data.index(b"Adobe")
    assert data[at + 11] == 0
    return data[: at + 11] + b"\x02" + data[at + 12 :]


def test_adobe_cmyk_and_ycck_red_is_red() -> None:
    cmyk = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in cmyk
    for data in (cmyk, ycck_jpeg(), encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "TIFF")):
        image = read_image(data).int()
        assert (image[0] > 250).all() and (image[1:] < 5).all()


@pytest.mark.parametrize("background", [255, 128, 0])
def test_transparency_shows_the_stated_background(background: int) -> None:
    rgba = np.zeros((4, 4, 4), dtype=np.uint8)
    rgba[1, 1, 3] = 255  # one opaque black pixel on transparent ground
    rgba[2, 2] = (200, 100, 50, 51)  # a fifth opaque
    expected = np.full((3, 4, 4), background, dtype=np.float64)
    expected[:, 1, 1] = 0
    expected[:, 2, 2] = np.array([200, 100, 50]) * 0.2 + background * 0.8
    for form in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True, "exact": True} if form == "WEBP" else {}
        image = read_image(encoded(Image.fromarray(rgba), form, **options), background=background)
        assert np.abs(image.numpy() - expected).max() <= 1
    preprocess, picture = Preprocess(image_size=4, background=background), Image.fromarray(rgba)
    assert torch.equal(pixels(preprocess, picture), read_image(picture, background=background))


def test_other_ways_to_be_transparent() -> None:
    la = Image.fromarray(np.array([[[0, 0], [0, 255]]], dtype=np.uint8), "LA")
    assert read_image(encoded(la, "PNG"), channels=1).flatten().tolist() == [255, 0]
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putpixel((1, 0), 1)
    for form in ("PNG", "GIF"):
        image = read_image(encoded(palette, form, transparency=0))
        assert image[:, 0, 0].tolist() == [255, 255, 255] and image[:, 0, 1].tolist() == [10, 20, 30]
    keyed = encoded(Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8)), "PNG", transparency=(1, 2, 3))
    assert read_image(keyed)[:, 0].T.tolist() == [[255] * 3, [4, 5, 6]]
    grey = encoded(Image.fromarray(np.array([[7, 9]], dtype=np.uint8)), "PNG", transparency=7)
    assert read_image(grey, channels=1).flatten().tolist() == [255, 9]


def test_grey_bilevel_and_palette() -> None:
    grey = Image.fromarray(np.array([[0, 100, 255]], dtype=np.uint8))
    assert read_image(encoded(grey, "PNG")).tolist() == [[[0, 100, 255]]] * 3
    assert read_image(encoded(grey.convert("1"), "PNG"), channels=1).unique().tolist() == [0, 255]
    palette = Image.new("P", (1, 1))
    palette.putpalette([12, 34, 56])
    assert read_image(encoded(palette, "BMP")).flatten().tolist() == [12, 34, 56]
    colour = Image.new("RGB", (1, 1), (200, 100, 50))
    assert read_image(colour, channels=1).item() == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_first_frame_of_an_animation(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, (0, 255, 0), (0, 0, 255))]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    image = read_image(data).int()
    assert (image[0] > 245).all() and (image[1:] < 10).all()


def test_content_counts_not_the_ending(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.new("RGB", (4, 4), RED), "WEBP", lossless=True))
    assert read_image(path)[:, 0, 0].tolist() == list(RED)


def bomb() -> bytes:
    """A PNG header that promises 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50000, 50000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


JPEG = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG", quality=90)
PNG = encoded(Image.effect_noise((64, 64), 50), "PNG")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"this is no picture at all", "looks like text"),
        (b"hi", "looks like text"),
        (bytes(range(128, 178)), "unknown content"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:20], "cannot read image"),
        (PNG[: len(PNG) // 2], "truncated"),
        (PNG[:8], "cannot read image"),
        (bomb(), "pixels"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        pixels(Preprocess(image_size=8), path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="upload 3"):
        read_image(content, name="upload 3")


def test_missing_files_folders_and_pipes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="not a regular file"):
        read_image(tmp_path)
    with pytest.raises(InputError, match="channels"):
        read_image(PNG, channels=4)


def test_heic_says_how_to_enable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    for read in (read_image, image_size):
        with pytest.raises(InputError, match="pip install pillow-heif") as caught:
            read(path)
        assert "IMG_0001.HEIC" in str(caught.value) and "cannot read image: " not in str(caught.value)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read_by_pillow_also_under_the_general_brand() -> None:
    data = encoded(Image.new("RGB", (16, 16), RED), "AVIF", quality=100)
    assert data[8:12] == b"avif"
    image = read_image(data).int()
    assert (image[0] > 245).all() and (image[1:] < 12).all()


def test_shorter_side_then_centre() -> None:
    array = np.random.default_rng(4).integers(0, 256, (24, 48, 3), dtype=np.uint8)
    picture = Image.fromarray(array)
    # Scaling all of it and cutting out the centre is the plain way; ours scales the centre box alone.
    for size, short in ((12, 12), (8, 12)):
        scaled = picture.resize((short * 2, short), Image.Resampling.BILINEAR)
        left, top = (short * 2 - size) // 2, (short - size) // 2
        plain = np.array(scaled.crop((left, top, left + size, top + size))).transpose(2, 0, 1)
        ours = pixels(Preprocess(image_size=size, resize_to=short), picture).numpy()
        assert np.abs(ours.astype(int) - plain).max() <= 1
    whole = pixels(Preprocess(image_size=12), picture).numpy()
    assert (whole == np.array(picture.resize((12, 12), Image.Resampling.BILINEAR)).transpose(2, 0, 1)).all()
    with pytest.raises(InputError, match="resize_to"):
        pixels(Preprocess(image_size=10, resize_to=8), picture)


def test_extreme_shapes_cost_no_memory() -> None:
    strip = Image.new("RGB", (20000, 1), RED)
    assert pixels(Preprocess(image_size=32, resize_to=32), strip).shape == (3, 32, 32)
    assert pixels(Preprocess(image_size=32), Image.new("L", (1, 1), 9)).unique().tolist() == [9]


def test_large_jpeg_decoded_small_looks_the_same() -> None:
    ramp = np.linspace(0, 255, 1024).astype(np.uint8)
    array = np.stack([np.tile(ramp, (1024, 1)), np.tile(ramp[:, None], (1, 1024)), np.full((1024, 1024), 90)], axis=2)
    data = encoded(Image.fromarray(array.astype(np.uint8)), "JPEG", quality=95)
    ours = pixels(Preprocess(image_size=32, resize_to=32), data).int()
    full = Image.open(io.BytesIO(data)).resize((32, 32), Image.Resampling.BILINEAR)
    assert (ours - torch.from_numpy(np.array(full)).permute(2, 0, 1).int()).abs().max() <= 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "TGA", "ICO"])
def test_random_damage_gives_pixels_or_one_line(form: str) -> None:
    sound = encoded(Image.effect_noise((24, 24), 60).convert("RGB"), form)
    generator = np.random.default_rng(5)
    for _ in range(60):
        damaged = bytearray(sound)
        for at in generator.integers(0, min(len(damaged), 200), 3):
            damaged[at] = generator.integers(0, 256)
        damaged = damaged[: generator.integers(1, len(damaged) + 1)]
        try:
            assert pixels(Preprocess(image_size=8), bytes(damaged), name="x").shape == (3, 8, 8)
        except InputError as error:
            assert str(error).startswith("x: ") and "\n" not in str(error)


RGB = Preprocess(image_size=1)  # three channels; the size is given beside it


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth shapes with some grain, as photographs are; not a single frequency that a codec would blur."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 24, width // 24, 3)).astype(np.uint8))
    large = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    return Image.fromarray((large + rng.normal(0, 6, large.shape)).clip(0, 255).astype(np.uint8))


def test_a_crop_is_pillow_s_crop_and_resize_but_for_the_outermost_pixels(tmp_path: Path) -> None:
    photo(200, 150).save(tmp_path / "photo.jpg", quality=90)
    whole = Image.open(tmp_path / "photo.jpg")
    for box in ((20.0, 10.0, 120.0, 90.0), (0.0, 0.0, 200.0, 150.0), (5.0, 7.0, 25.0, 40.0)):
        ours = np.asarray(crop(RGB, tmp_path / "photo.jpg", 64, lambda width, height, box=box: box)).astype(int)
        cut = np.asarray(whole.crop(tuple(int(side) for side in box)).resize((64, 64), Image.Resampling.BILINEAR))
        assert np.abs(ours - cut)[1:-1, 1:-1].max() <= (1 if box[0] else 6), box  # a weight rounded otherwise
        assert np.abs(ours - cut).max() <= 40  # where a neighbour from outside takes part


def test_reduced_decoding_happens_only_where_the_crop_allows_it_and_changes_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.jpg"
    photo(640, 480).filter(ImageFilter.GaussianBlur(1)).save(path, quality=95)
    whole = open_image(path)
    sizes: list[tuple[int, int]] = []
    load = ImageFile.ImageFile.load

    def spy(self: ImageFile.ImageFile) -> object:
        sizes.append(self.size)
        return load(self)

    def in_full(box: tuple[float, float, float, float]) -> np.ndarray:
        return np.asarray(whole.resize((112, 112), Image.Resampling.BILINEAR, box=box)).astype(int)

    for box, factor in (
        ((0.0, 0.0, 640.0, 480.0), 4),  # 480 / 112 = 4.3
        ((100.0, 31.0, 427.0, 400.0), 2),  # 327 / 112 = 2.9
        ((8.0, 8.0, 232.0, 300.0), 2),  # 224 / 112 = 2
        ((8.0, 8.0, 231.0, 300.0), 1),  # a hair less
    ):
        sizes.clear()
        with monkeypatch.context() as patch:
            patch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", spy)
            got = np.asarray(crop(RGB, path, 112, lambda w, h, box=box: box)).astype(int)
        assert sizes[0] == (640 // factor, 480 // factor)
        error = np.abs(got - in_full(box))
        assert error.mean() < 1.0 and error.max() <= 16, (box, error.mean(), error.max())
        assert (error.max() == 0) == (factor == 1)
    # A shift of a few pixels of the full image would show: it is many times the error above.
    assert np.abs(in_full((5.0, 5.0, 640.0, 480.0)) - in_full((0.0, 0.0, 640.0, 480.0))).mean() > 1.0


@pytest.mark.parametrize("size", [16, 48])  # decoded at a quarter, and in full
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_in_pixels_of_the_upright_image(tmp_path: Path, orientation: int, size: int) -> None:
    upright = photo(96, 64, seed=orientation)
    path = tmp_path / "turned.jpg"
    stored = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    (upright if stored is None else upright.transpose(stored)).save(path, quality=100, subsampling=0, exif=exif)
    for box in ((0.0, 0.0, 96.0, 64.0), (32.0, 0.0, 96.0, 64.0)):
        seen: list[tuple[int, int]] = []
        made = crop(RGB, path, size, lambda width, height, box=box, seen=seen: (seen.append((width, height)), box)[1])
        want = upright.resize((size, size), Image.Resampling.BILINEAR, box=box)
        assert np.abs(np.asarray(made).astype(int) - np.asarray(want)).mean() < 3
        assert seen[0] == (96, 64)


def test_crops_of_other_formats_and_modes(tmp_path: Path) -> None:
    colour = photo(60, 50)
    for name, image in (("a.png", colour), ("b.png", colour.convert("L")), ("c.gif", colour.convert("P"))):
        image.save(tmp_path / name)
        for channels, mode in ((1, "L"), (3, "RGB")):
            given = Preprocess(image_size=24, channels=channels)
            made = crop(given, tmp_path / name, 24, lambda width, height: (3.0, 4.0, 50.0, 40.0))
            assert (made.mode, made.size) == (mode, (24, 24)) and np.asarray(made).std() > 1
