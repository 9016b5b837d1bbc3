"""A slice through a run's loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from saddlescape.curvature import Surface
from saddlescape.measure.subject import Subject
from saddlescape.measure.surface import measure_surface
from saddlescape.runs.request import SurfaceOptions


def test_a_line_through_the_loss(run: Path, subject: Subject) -> None:
    cut = SurfaceOptions(directions="random", line=True, steps=3, span=0.5)
    path, found, facts = measure_surface(subject, cut, classes=[9])
    model, (images, targets) = subject.model, subject.samples([9])[0]
    with torch.no_grad():
        center = F.cross_entropy(model(images), targets).item()
    assert Surface.load(path).of(9)[1] == pytest.approx(center, rel=1e-5)
    assert facts.surfaces[0].center == pytest.approx(center, rel=1e-5)
    assert (path.parent, found.directions) == (run, "random")
    lines: list[str] = []
    measure_surface(subject, cut, classes=[9], say=lines.append)
    assert lines == [f"already measured: {path}"]
