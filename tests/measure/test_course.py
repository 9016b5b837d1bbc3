"""The course of curvature: a row for each class and moment, continued, dropped and replaced."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from saddlescape.curvature import CurvatureTracker
from saddlescape.errors import InputError
from saddlescape.measure.course import Course, Tracking, measure_course, parse_tracking
from saddlescape.measure.subject import open_subject
from saddlescape.records.course import CourseFile, Moment
from saddlescape.runs import config as configuration

COURSE = CourseFile.NAME


LIGHT = Tracking(samples=2, products=4)


def test_the_course_has_a_row_for_each_class_and_moment_and_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = measure_course(run, LIGHT, classes=["8", "9"], device="cpu").rows
    of_class = [row for row in rows if row.label is not None]
    assert [(row.epoch, row.label) for row in of_class] == [(e, c) for e in (1, 2, 3, 4) for c in (8, 9)]
    assert [row.warm for row in of_class] == [False] * 2 + [True] * 6
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row.test_accuracy for row in of_class if row.epoch == 4] == metrics[3]["test"]["per_class"][8:]
    assert all(row.test_accuracy is None for row in of_class if row.epoch == 1)  # eval_every=2
    (mean,) = [row for row in rows if row.label is None and row.epoch == 3]
    assert (mean.group, mean.classes) == ("tail", 2)
    assert mean.lambda_min == pytest.approx(sum(row.lambda_min for row in of_class if row.epoch == 3) / 2)

    subject = open_subject(run, checkpoint="s0-e00003-b000000", device="cpu")
    images, targets = subject.samples([9], 2)[0]
    with torch.no_grad():
        logits = subject.model(images)
    assert of_class[5].loss == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-5)
    assert of_class[5].train_accuracy == 100 * (logits.argmax(1) == targets).double().mean().item()

    lines = (run / COURSE).read_text().splitlines(keepends=True)
    (run / COURSE).write_text("".join(lines[:-1]).replace(lines[-2], "") + lines[-2][:20])  # a kill in epoch 4
    measured: list[int] = []
    original = CurvatureTracker._measure

    def watched(self: Any, function: Any, label: int, epoch: int) -> Any:
        measured.append(epoch)
        return original(self, function, label, epoch)

    monkeypatch.setattr(CurvatureTracker, "_measure", watched)
    again = measure_course(run, LIGHT, classes=["8", "9"], device="cpu").rows
    assert measured == [4, 4]
    assert len(again) == len(rows)
    assert again[:-3] == rows[:-3]
    assert CourseFile.read(run / COURSE).rows == again


def test_the_course_of_augmented_views(run: Path) -> None:
    rows = measure_course(run, Tracking(views=2, products=10), classes=["9"]).rows
    subject = open_subject(run, checkpoint=None, views=2)
    (images, targets), _ = subject.samples([9])
    with torch.no_grad():
        loss = F.cross_entropy(subject.model(images), targets).item()
    last = [row for row in rows if row.label == 9][-1]
    assert last.loss == pytest.approx(loss, rel=1e-5)
    plain = [row for row in measure_course(run, Tracking(products=10), classes=["9"]).rows if row.label == 9][-1]
    assert plain.loss != last.loss


def test_a_run_without_kept_checkpoints_is_refused_with_the_way_out(run: Path) -> None:
    for folder in sorted((run / "checkpoint").iterdir())[:-1]:
        shutil.rmtree(folder)
    with pytest.raises(InputError, match="--keep-every 10"):
        measure_course(run, LIGHT, device="cpu")


def test_the_course_of_the_runs_own_loss_changes_with_it(run: Path) -> None:
    config = configuration.load(run)
    late = {"loss": "focal", "loss_options": {"gamma": 2.0}, "early_loss": "ce", "loss_start": 2}
    stage = dataclasses.replace(config.stages[0], **late)
    configuration.save(dataclasses.replace(config, stages=(stage,)), run)
    rows = measure_course(run, dataclasses.replace(LIGHT, loss="train"), classes=["9"], device="cpu").rows
    losses = {row.epoch: row.loss for row in rows if row.label is not None}
    for epoch in (2, 3):
        subject = open_subject(run, checkpoint=f"s0-e{epoch:05d}-b000000", device="cpu")
        images, targets = subject.samples([9], 2)[0]
        with torch.no_grad():
            values = F.cross_entropy(subject.model(images), targets, reduction="none")
        focal = (1 - torch.exp(-values)) ** 2 * values
        assert losses[epoch] == pytest.approx((values if epoch == 2 else focal).mean().item(), rel=1e-4)


def course_row(stage: int, epoch: int, label: int, value: float = -1.0) -> Moment:
    return Moment(stage=stage, epoch=epoch, label=label, lambda_min=value, train_accuracy=value, converged=True)


def test_the_file_of_the_course_drops_replaces_and_is_never_lost(tmp_path: Path) -> None:
    groups = {"head": [0], "tail": [1, 2]}
    course = Course(tmp_path, {"loss": "ce"})
    with pytest.raises(InputError, match="in use"):
        Course(tmp_path, {"loss": "ce"})
    course.put([course_row(0, 10, 2, -3.0), course_row(0, 10, 0)], groups)
    (mean,) = [row for row in course.put([course_row(0, 10, 1, -1.0)], groups) if row.group == "tail"]
    assert (mean.lambda_min, mean.classes, mean.test_accuracy) == (-2.0, 2, None)  # with the one from before
    course.put([course_row(0, 20, 0)], groups)
    course.put([course_row(1, 5, 0)], groups)
    assert course.labels_at(0, 10) == {0, 1, 2}
    course.drop_after(0, 15)
    course.close()
    again = Course(tmp_path, {"loss": "ce"})
    assert {(row.stage, row.epoch) for row in again.content.rows} == {(0, 10)}
    assert len(again.content.rows) == 5
    again.close()
    lines: list[str] = []
    Course(tmp_path, {"loss": "train"}, lines.append).close()
    assert "curvature-course.1.jsonl" in lines[0]
    assert len((tmp_path / "curvature-course.1.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("10", Tracking(every=10)), ("every=5", Tracking(every=5)),
     ("every=2,samples=9,products=7,tol=0.1,loss=train", Tracking(2, 9, 7, 0.1, "train"))],
)  # fmt: skip
def test_tracking_is_parsed(text: str, wanted: Tracking) -> None:
    assert parse_tracking(text) == wanted


@pytest.mark.parametrize("text", ["", "often", "every=0", "each=3", "10,tol=2", "10,loss=mse", "every=ten"])
def test_bad_tracking_is_one_line(text: str) -> None:
    with pytest.raises(InputError, match="--track-curvature"):
        parse_tracking(text)
