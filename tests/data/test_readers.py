"""What workers do with a file: crops against Pillow's own, boxes against the batch form, numbers against Philox's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageFilter
from scipy import stats

from saddlescape.data.augment.resized_crop import ResizedCrop
from saddlescape.data.reader import crops, pixels
from saddlescape.data.readers import Decoded, RandomCrop, WholePicture, counter_uniform
from saddlescape.data.types import Preprocess
from saddlescape.errors import InputError

KEY = np.array([11, 22], dtype=np.uint64)


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth shapes with some grain, as photographs are; not a single frequency that a codec would blur."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 24, width // 24, 3)).astype(np.uint8))
    large = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    return Image.fromarray((large + rng.normal(0, 6, large.shape)).clip(0, 255).astype(np.uint8))


@pytest.fixture
def jpeg(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    photo(200, 150).save(path, quality=90)
    return path


def test_a_crop_is_pillow_s_crop_and_resize_but_for_the_outermost_pixels(jpeg: Path) -> None:
    boxes = [(20.0, 10.0, 120.0, 90.0), (0.0, 0.0, 200.0, 150.0), (5.0, 7.0, 25.0, 40.0)]
    made = crops(jpeg, 32, lambda width, height: boxes)
    whole = Image.open(jpeg)
    for box, ours in zip(boxes, made, strict=True):
        cut = whole.crop(tuple(int(side) for side in box)).resize((32, 32), Image.Resampling.BILINEAR)
        difference = np.abs(np.asarray(ours).astype(int) - np.asarray(cut))
        assert difference[1:-1, 1:-1].max() <= 1  # a weight rounded otherwise
        assert difference.max() <= 40  # where a neighbour from outside takes part
    assert np.array_equal(np.asarray(made[1]), np.asarray(whole.resize((32, 32), Image.Resampling.BILINEAR)))


def test_reduced_decoding_happens_only_where_the_crop_allows_it_and_changes_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.jpg"
    photo(640, 480).filter(ImageFilter.GaussianBlur(1)).save(path, quality=95)
    sizes: list[tuple[int, int]] = []
    load = ImageFile.ImageFile.load

    def spy(self: ImageFile.ImageFile) -> object:
        sizes.append(self.size)
        return load(self)

    for box, factor in (
        ((0.0, 0.0, 640.0, 480.0), 4),  # 480 / 112 = 4.3
        ((100.0, 31.0, 427.0, 400.0), 2),  # 327 / 112 = 2.9
        ((8.0, 8.0, 232.0, 300.0), 2),  # 224 / 112 = 2
        ((8.0, 8.0, 231.0, 300.0), 1),  # a hair less
    ):
        want = np.asarray(crops(path, 112, lambda w, h, box=box: [box], reduce=False)[0]).astype(int)
        sizes.clear()
        with monkeypatch.context() as patch:
            patch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", spy)
            got = np.asarray(crops(path, 112, lambda w, h, box=box: [box])[0]).astype(int)
        assert sizes[0] == (640 // factor, 480 // factor)
        error = np.abs(got - want)
        assert error.mean() < 1.0 and error.max() <= 16, (box, error.mean(), error.max())
        assert (error.max() == 0) == (factor == 1)
    # A shift of one pixel of the full picture would show: it is many times the error above.
    moved = np.asarray(crops(path, 112, lambda w, h: [(5.0, 5.0, 640.0, 480.0)], reduce=False)[0]).astype(int)
    whole = np.asarray(crops(path, 112, lambda w, h: [(0.0, 0.0, 640.0, 480.0)], reduce=False)[0]).astype(int)
    assert np.abs(moved - whole).mean() > 1.0


@pytest.mark.parametrize("reduce", [True, False])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_in_pixels_of_the_upright_picture(tmp_path: Path, orientation: int, reduce: bool) -> None:
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
    seen: list[tuple[int, int]] = []

    def boxes(width: int, height: int) -> list[tuple[float, float, float, float]]:
        seen.append((width, height))
        return [(0.0, 0.0, 96.0, 64.0), (32.0, 0.0, 96.0, 64.0)]

    for made, box in zip(crops(path, 16, boxes, reduce=reduce), boxes(0, 0), strict=True):
        want = upright.resize((16, 16), Image.Resampling.BILINEAR, box=box)
        assert np.abs(np.asarray(made).astype(int) - np.asarray(want)).mean() < 3
    assert seen[0] == (96, 64)


def test_other_formats_and_modes_are_cropped_too(tmp_path: Path) -> None:
    colour = photo(60, 50)
    for name, picture in (("a.png", colour), ("b.png", colour.convert("L")), ("c.gif", colour.convert("P"))):
        picture.save(tmp_path / name)
        for channels in (1, 3):
            out = np.zeros((2, 24, 24, channels), np.uint8)
            RandomCrop(Preprocess(image_size=24, channels=channels), ResizedCrop(24)).read(
                str(tmp_path / name), counter_uniform(KEY, 3, 0), out
            )
            assert out[0].std() > 1 and not np.array_equal(out[0], out[1])


def test_the_box_of_one_picture_is_that_of_the_batch_form() -> None:
    crop = ResizedCrop(224)
    generator = torch.Generator().manual_seed(3)
    for height, width in ((375, 500), (500, 375), (10, 100), (30, 30)):
        state = generator.get_state()
        want = crop.draw(500, height, width, generator)
        generator.set_state(state)
        uniform = torch.rand((4, 500, 10), generator=generator, dtype=torch.float64)
        got = [crop.box(uniform[:, n].tolist(), height, width) for n in range(500)]
        assert got == [tuple(box) for box in want.tolist()]


def test_numbers_are_philox_s_and_differ_in_every_coordinate() -> None:
    got = counter_uniform(KEY, 5, 1)(0)
    bits = np.random.Philox(key=KEY, counter=[0, 5, 1, 0])
    want = np.random.Generator(bits).random(40)  # NumPy's own way from bits to [0, 1)
    assert np.array_equal(got.ravel(), want) and got.shape == (4, 10)
    assert np.array_equal(got, counter_uniform(KEY.copy(), 5, 1)(0))
    others = [counter_uniform(KEY, *c[:2])(c[2]) for c in ((6, 1, 0), (5, 0, 0), (5, 1, 1), (1, 5, 0))]
    others.append(counter_uniform(KEY[::-1].copy(), 5, 1)(0))
    assert len({tuple(numbers.ravel()) for numbers in [got, *others]}) == 6
    first = [counter_uniform(KEY, i, 0)(0)[0, 0] for i in range(2000)]
    assert stats.kstest(first, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.1


def test_a_whole_picture_is_what_evaluation_sees(jpeg: Path) -> None:
    preprocess = Preprocess(image_size=24, resize_to=28)
    reader = WholePicture(preprocess)
    assert reader.shape == (24, 24, 3) and not reader.finishes
    out = np.zeros((2, 24, 24, 3), np.uint8)
    reader.read(str(jpeg), counter_uniform(KEY, 0, 0), out)
    want = pixels(preprocess, jpeg).permute(1, 2, 0).numpy()
    assert np.array_equal(out[0], want) and np.array_equal(out[1], want)


def test_a_truncated_file_is_named(jpeg: Path) -> None:
    jpeg.write_bytes(jpeg.read_bytes()[:-2000])
    out = np.zeros((1, 24, 24, 3), np.uint8)
    with pytest.raises(InputError, match=r"photo\.jpg: cannot read image: .*truncated"):
        RandomCrop(Preprocess(image_size=24), ResizedCrop(24)).read(str(jpeg), counter_uniform(KEY, 0, 0), out)


def test_somebody_s_own_decoder() -> None:
    made = {"a": torch.zeros(3, 4, 5, dtype=torch.uint8), "b": torch.ones(3, 4, 5, dtype=torch.uint8), "c": "no"}
    reader = Decoded.like(lambda path: made[path.name], "a")  # type: ignore[arg-type,return-value]
    assert reader.shape == (4, 5, 3)
    out = np.zeros((1, 4, 5, 3), np.uint8)
    reader.read("b", counter_uniform(KEY, 0, 0), out)
    assert (out == 1).all()
    with pytest.raises(InputError, match=r"decoding c gave str, not a uint8 tensor \[C, S, S\]"):
        reader.read("c", counter_uniform(KEY, 0, 0), out)
