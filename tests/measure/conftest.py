"""One run on the digits, trained once a session, that the tests of measurements copy and measure."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from saddlescape.measure.subject import Subject, open_subject
from saddlescape.runs.execute import execute
from saddlescape.runs.plan import plan
from saddlescape.runs.request import Request

Images = Callable[[Subject, int], tuple[Tensor, Tensor]]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four epochs of ce+drw on digits, every checkpoint kept; not to be written to."""
    folder = tmp_path_factory.mktemp("runs") / "ce-drw"
    config, dataset, _ = plan(
        Request(data="digits", method="ce+drw", imbalance=50, epochs=4, device="cpu", keep_every=1, eval_every=2)
    )
    execute(config, dataset, folder)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def subject(run: Path) -> Subject:
    return open_subject(run, device="cpu")


@pytest.fixture
def class_images() -> Images:
    """``class_images(subject, label)``: by hand, from the raw pixels."""

    def images(subject: Subject, label: int) -> tuple[Tensor, Tensor]:
        split, preprocess = subject.dataset.train, subject.dataset.preprocess
        chosen = split.labels == label
        pixels = split.images[chosen].double() / 255  # type: ignore[union-attr]
        return (pixels - preprocess.mean[0]) / preprocess.std[0], split.labels[chosen]

    return images
