"""SAM's gain along a class's most negative direction, and the hint made from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from saddlescape.errors import InputError
from saddlescape.measure import rho
from saddlescape.measure.rho import advise
from saddlescape.measure.rho import hint as hint_of
from saddlescape.measure.subject import Subject
from saddlescape.records.rho_advice import Advice, AdviceFile, From, Gain
from saddlescape.runs.request import CurvatureOptions


def test_advice_agrees_with_its_formulas(run: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rho, "BATCH", 3)
    monkeypatch.setattr(rho, "BATCHES", 2)
    question = CurvatureOptions(rho=(1.0, 0.1), products=25)
    content = advise(subject, question, classes=[9])
    (row,) = content.classes
    for kind in ("class_batches", "training_batches"):
        found = getattr(row, kind)
        assert found.threshold == pytest.approx(2 * found.gradient_norm / abs(row.lambda_min))
        assert found.amplified_rho == [one.rho for one in found.rho if one.gain > 1]
        assert all(one.gain == pytest.approx(one.factor**2) for one in found.rho) or found.batches > 1
    model, (images, targets) = subject.model, subject.samples([9])[0]
    gradient = torch.autograd.grad(F.cross_entropy(model(images), targets), list(model.parameters()))
    norm = torch.cat([part.reshape(-1) for part in gradient]).norm().item()
    assert row.class_batches.gradient_norm == pytest.approx(norm, rel=1e-4)  # two images: one mini-batch
    assert AdviceFile.read(run / AdviceFile.NAME) == content
    lines: list[str] = []
    assert advise(subject, question, classes=[9], say=lines.append) == content
    assert lines[0].startswith("already measured")


def test_a_class_whose_gradient_is_zero_says_so(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def zero(*args: Any, **kw: Any) -> None:
        raise InputError("the gradient of a mini-batch is exactly zero")

    monkeypatch.setattr(rho, "sam_gain", zero)
    question = CurvatureOptions(rho=(0.1,), products=3)
    content = advise(subject, question, classes=[9])
    assert "exactly zero" in content.classes[0].class_batches.problem
    hint = content.hint
    assert hint is None or hint.class_batches == From()


def advised(group: str, proved: bool, own: float | None, mixed: float | None, every: tuple[float, ...] = ()) -> Advice:
    return Advice(
        name="x", label=0, group=group, lambda_min=-1.0, negative_curvature_proved=proved,
        class_batches=Gain(measured_threshold=own),
        training_batches=Gain(measured_threshold=mixed, amplified_rho=list(every)),
    )  # fmt: skip


def test_the_hint_speaks_of_tail_classes_with_proved_negative_curvature_only() -> None:
    rows = [advised("tail", True, 0.2, 0.4), advised("tail", True, 0.6, None), advised("head", True, 0.01, 0.01),
            advised("tail", False, 9.0, 9.0)]  # fmt: skip
    hint = hint_of(rows, (0.1, 1.0))
    assert hint is not None
    assert hint.class_batches == From(some_from=0.2, all_from=0.6)
    assert hint.training_batches == From(some_from=0.4)
    assert hint_of(rows[2:], (0.1,)) is None


def test_where_every_radius_amplifies_the_hint_is_the_smallest_tried() -> None:
    rows = [advised("tail", True, 0.1, None, (0.1, 1.0))]  # a file of a former version: no threshold beside it
    hint = hint_of(rows, (0.1, 1.0))
    assert hint is not None
    assert hint.class_batches == hint.training_batches == From(some_from=0.1, all_from=0.1)
    assert hint.smallest_rho_tried == 0.1
