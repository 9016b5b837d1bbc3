"""Batch boundaries, derived seeds and normalisation."""

from __future__ import annotations

import pytest
import torch

from saddlescape.data.batching import Normalizer, batch_bounds, derived_generator
from saddlescape.data.types import Preprocess
from saddlescape.errors import InputError


def test_bounds_cover_everything_and_no_batch_is_a_single_image() -> None:
    for count in range(1, 70):
        for batch_size in (1, 2, 3, 8, 32, 100):
            bounds = batch_bounds(count, batch_size)
            assert [i for begin, end in bounds for i in range(begin, end)] == list(range(count))
            sizes = [end - begin for begin, end in bounds]
            assert all(size == batch_size for size in sizes[:-1])
            assert sizes[-1] <= batch_size + 1
            if batch_size > 1 and count > 1:
                assert min(sizes) > 1
    assert batch_bounds(33, 32) == [(0, 33)]
    assert batch_bounds(65, 32) == [(0, 32), (32, 65)]
    assert batch_bounds(12406, 128)[-1] == (12288, 12406) and len(batch_bounds(12406, 128)) == 97


def test_derived_generators_differ_in_every_part_of_the_path() -> None:
    paths = [(s, k, t, b) for s in (0, 1) for k in (0, 1) for t in range(5) for b in range(5)] + [(0, 0, 0), (0, 0)]
    drawn = [int(torch.randint(0, 2**62, (), generator=derived_generator(*path))) for path in paths]
    assert len(set(drawn)) == len(paths)
    again = [int(torch.randint(0, 2**62, (), generator=derived_generator(*path))) for path in paths]
    assert drawn == again


@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_is_that_of_preprocess(channels: int) -> None:
    mean, std = (0.4914, 0.4822, 0.4465)[:channels], (0.2023, 0.1994, 0.2010)[:channels]
    preprocess = Preprocess(image_size=7, channels=channels, mean=mean, std=std)
    normalize = Normalizer(preprocess, torch.device("cpu"))
    for shape in ((256, channels, 4, 6), (3, channels, 5, 5)):  # another size in between is taken too
        images = torch.randint(0, 256, shape, dtype=torch.uint8)
        images[:, :, 0, 0] = torch.arange(shape[0], dtype=torch.uint8).view(-1, 1)
        exact = (images.double() / 255 - torch.tensor(mean).double().view(-1, 1, 1)) / torch.tensor(std).double().view(
            -1, 1, 1
        )
        for layout in (images, images.contiguous(memory_format=torch.channels_last)):
            got = normalize(layout)
            assert got.is_contiguous(memory_format=torch.channels_last) and got.dtype == torch.float32
            torch.testing.assert_close(got.double(), exact, rtol=0, atol=2e-6)
            torch.testing.assert_close(got, preprocess.normalize(images), rtol=0, atol=2e-6)


def test_bad_preprocessing_is_refused() -> None:
    with pytest.raises(InputError, match=r"images have 1 channels, .* have 3"):
        Normalizer(Preprocess(image_size=4), torch.device("cpu"))(torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match="positive std"):
        Normalizer(Preprocess(image_size=4, std=(0.1, 0.0, 0.1)), torch.device("cpu"))
