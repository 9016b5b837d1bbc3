"""Curvature of a small run on digits: against SciPy, by hand, cut off and gone on with, and its several files."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from saddlescape.curvature import Spectrum, Surface, class_spectra, extreme_eigenpairs
from saddlescape.curvature.samples import gather
from saddlescape.errors import InputError
from saddlescape.measure import course as curvature_course
from saddlescape.measure import escape, surface
from saddlescape.measure import rho as rho_advice
from saddlescape.measure import spectra as room
from saddlescape.measure.course import COURSE, Course, Tracking, measure_course, parse_tracking, read_course
from saddlescape.measure.hessian_parts import hessian_parts
from saddlescape.measure.spectra import CURVATURE, Depth, measure_run
from saddlescape.measure.subject import Subject, open_subject, parse_classes, training_loss
from saddlescape.runs import config as configuration
from saddlescape.runs.execute import execute
from saddlescape.runs.plan import plan
from saddlescape.runs.request import Request
from saddlescape.training.checkpoint import Cursor

FAST = Depth(extremes_only=True, gauss_newton=False, tol=1e-2, refine=1)


@pytest.fixture(scope="module")
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


def class_images(subject: Subject, label: int) -> tuple[Tensor, Tensor]:
    """By hand, from the raw pixels."""
    split = subject.dataset.train
    chosen = split.labels == label
    preprocess = subject.dataset.preprocess
    images = (split.images[chosen].double() / 255 - preprocess.mean[0]) / preprocess.std[0]  # type: ignore[union-attr]
    return images, split.labels[chosen]


def product(model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[LinearOperator, float]:
    """Double backward in float64, written for this test alone, and the loss."""
    parameters = list(model.parameters())
    loss = F.cross_entropy(model(inputs), targets)
    slopes = torch.autograd.grad(loss, parameters, create_graph=True)
    flat = torch.cat([slope.reshape(-1) for slope in slopes])

    def times(vector: np.ndarray) -> np.ndarray:
        v = torch.from_numpy(np.ascontiguousarray(vector).reshape(-1))
        second = torch.autograd.grad(flat @ v, parameters, retain_graph=True)
        return torch.cat([part.reshape(-1) for part in second]).numpy()

    return LinearOperator((len(flat), len(flat)), matvec=times, dtype=np.float64), loss.item()


def test_extremes_agree_with_scipy_and_the_parts_add_up(run: Path) -> None:
    subject = open_subject(run, dtype="float64", device="cpu")
    depth = dataclasses.replace(FAST, tol=1e-6, gauss_newton=True)
    row = measure_run(subject, depth, classes=[9])["classes"][0]
    operator, loss = product(subject.model, *class_images(subject, 9))
    low, high = eigsh(operator, k=2, which="BE", tol=1e-6, return_eigenvectors=False)
    # Inputs are normalised in float32, as in training; the ones by hand are not.
    assert row["lambda_min"] == pytest.approx(low, rel=1e-5)
    assert row["lambda_max"] == pytest.approx(high, rel=1e-5)
    assert row["loss"] == pytest.approx(loss, rel=1e-5)
    assert row["nonconvexity"] == pytest.approx(abs(low / high), rel=1e-4)
    assert row["converged"]
    assert row["negative_curvature_proved"] == (low < 0)
    for end in ("lambda_min", "lambda_max"):
        assert sum(row[f"at_{end}"].values()) == pytest.approx(row[end], rel=1e-6)
    assert row["at_lambda_min"]["gauss_newton"] >= 0  # cross-entropy is convex in the logits
    # H = G + rest and G >= 0: the extremes bound one another (Weyl); those of the parts are good to 1 %.
    assert row["lambda_max"] <= (row["gauss_newton"]["lambda_max"] + row["residual_part"]["lambda_max"]) * 1.02
    assert row["lambda_min"] >= row["residual_part"]["lambda_min"] * 1.02
    assert row["gauss_newton"]["lambda_max"] >= row["at_lambda_max"]["gauss_newton"] * 0.99


def test_the_file_holds_what_the_api_promises_and_a_spectrum_lies_beside(run: Path, subject: Subject) -> None:
    measure_run(subject, Depth(lanczos_steps=5, refine=0, trace_probes=1, gauss_newton=False), classes=[8])
    content = json.loads((run / CURVATURE).read_text())
    (row,) = content["classes"]
    for name in ("lambda_min", "lambda_max", "nonconvexity", "trace", "num_samples", "residual_min", "residual_max",
                 "converged", "negative_mass", "loss", "trace_stderr", "sampling_error"):  # fmt: skip
        assert name in row
    assert (row["class"], row["label"], row["group"], row["num_samples"]) == ("8", 8, "tail", 3)
    assert content["checkpoint"] == "s0-e00004-b000000"
    spectrum = Spectrum.load(run / row["file"])
    assert (spectrum.lambda_min, spectrum.lambda_max) == (row["lambda_min"], row["lambda_max"])
    assert spectrum.ritz_values.shape == (1, 5)
    assert list(spectrum.negative_mass) == row["negative_mass"]


def refuse(*args: Any, **kw: Any) -> None:
    raise AssertionError("measured again")


def test_what_is_measured_is_reused_added_to_and_set_aside(
    run: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure_run(subject, FAST, classes=[9])
    lines: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(room, "extremes", refuse)
        assert measure_run(subject, FAST, classes=[9], say=lines.append) == first
    assert lines == [f"already measured: {run / CURVATURE}"]
    added = measure_run(subject, FAST, classes=[8, 9])
    assert [row["label"] for row in added["classes"]] == [8, 9]
    assert added["classes"][1] == first["classes"][0]
    other = measure_run(subject, dataclasses.replace(FAST, seed=1), classes=[9], say=lines.append)
    assert [row["label"] for row in other["classes"]] == [9]
    assert "another seed" in lines[1]
    assert json.loads((run / "curvature.1.json").read_text()) == added


def test_it_goes_on_from_the_step_and_the_class_where_it_was_cut_off(run: Path, subject: Subject) -> None:
    depth = Depth(lanczos_steps=27, refine=0, trace_probes=0, gauss_newton=False)

    def cut(at: str) -> Callable[[str], None]:
        def say(line: str) -> None:
            if at in line:
                raise KeyboardInterrupt

        return say

    with pytest.raises(KeyboardInterrupt):
        measure_run(subject, depth, classes=[9, 8], say=cut("class 8: step 25"), patience=0)
    assert [row["label"] for row in json.loads((run / CURVATURE).read_text())["classes"]] == [9]
    assert list(run.glob("curvature/*/class_8.partial.npz"))
    said: list[str] = []
    rows = measure_run(subject, depth, classes=[9, 8], say=said.append, patience=0)["classes"]
    assert not any("class 9" in line or "step" in line for line in said)  # neither the class nor 25 steps anew
    images, targets = subject.samples([8])[0]
    whole = class_spectra(
        subject.model, nn.CrossEntropyLoss(), (images, targets), lanczos_steps=27, trace_probes=0, tol=depth.tol
    )[8]
    assert (rows[0]["lambda_min"], rows[0]["lambda_max"]) == (whole.lambda_min, whole.lambda_max)


def test_a_class_that_is_quick_is_told_in_one_line(subject: Subject) -> None:
    lines: list[str] = []
    depth = Depth(lanczos_steps=26, refine=0, trace_probes=0, gauss_newton=False)
    measure_run(subject, depth, classes=[8, 9], say=lines.append)
    assert [line.split(":")[0] for line in lines] == ["class 8", "class 9"]
    assert not any("step" in line for line in lines)


def test_a_sample_and_a_group(subject: Subject) -> None:
    depth = dataclasses.replace(FAST, samples_per_class=2)
    content = measure_run(subject, depth, classes=[7], groups=True)
    (row,) = content["classes"]
    assert (row["num_samples"], row["num_available"]) == (2, 5)
    assert row["sampling_error"] == pytest.approx(math.sqrt((1 - 2 / 5) / 2))
    tail = next(row for row in content["groups"] if row["group"] == "tail")
    images, targets = subject.samples(subject.dataset.groups["tail"], 2)[0]
    assert tail["num_samples"] == len(targets) == 10
    assert tail["num_available"] == sum(subject.dataset.class_counts[label] for label in tail["labels"])
    with torch.no_grad():
        assert tail["loss"] == pytest.approx(F.cross_entropy(subject.model(images), targets).item(), rel=1e-5)


def test_a_sample_of_a_group_tells_its_error(subject: Subject) -> None:
    members = subject.dataset.groups["mid"]
    (images, targets), available = subject.samples(members, 3, 1, 5)
    (whole, labels), _ = subject.samples(members, 3, 1)
    assert len(targets) == 5 < len(labels) and available == sum(subject.dataset.class_counts[c] for c in members)
    rows = [next(i for i in range(len(whole)) if torch.equal(whole[i], image)) for image in images]
    assert rows == sorted(set(rows)) and torch.equal(labels[rows], targets)  # without replacement, in order
    depth = dataclasses.replace(FAST, samples_per_group=5, extremes_only=True, gauss_newton=False)
    row = next(row for row in measure_run(subject, depth, classes=[], groups=True)["groups"] if row["group"] == "mid")
    assert (row["num_samples"], row["num_available"]) == (5, available)
    assert row["sampling_error"] == pytest.approx(math.sqrt((1 - 5 / available) / 5))
    assert "samples_per_group" not in room.settings_of(subject, FAST)  # former files go on


def test_augmented_views_are_drawn_once_and_are_what_is_measured(run: Path) -> None:
    """On digits training crops: the loss is that of so many crops of each image, the same ones at each call."""
    subject = open_subject(run, views=3)
    plain, _ = open_subject(run).samples([8])
    (images, targets), available = subject.samples([8])
    assert torch.equal(images, subject.samples([8])[0][0]) and len(targets) == 3 * available == 3 * len(plain[0])
    assert not torch.equal(images[:available], images[available : 2 * available])
    depth = Depth(lanczos_steps=8, refine=0, trace_probes=0, gauss_newton=False)
    row = measure_run(subject, depth, classes=[8])["classes"][0]
    with torch.no_grad():
        assert row["loss"] == pytest.approx(F.cross_entropy(subject.model(images), targets).item(), rel=1e-5)
    assert (row["training_images"], row["num_samples"], row["num_available"]) == (
        available,
        3 * available,
        3 * available,
    )
    whole = class_spectra(subject.model, nn.CrossEntropyLoss(), (images, targets), lanczos_steps=8, trace_probes=0)[8]
    assert row["lambda_max"] == pytest.approx(whole.lambda_max, rel=1e-6)
    assert "views" in json.loads((run / CURVATURE).read_text())["settings"]
    assert measure_run(open_subject(run), depth, classes=[8])["classes"][0]["loss"] != row["loss"]  # set aside
    sampled = dataclasses.replace(depth, samples_per_class=2)
    row = measure_run(subject, sampled, classes=[7])["classes"][0]
    assert (row["num_samples"], row["num_available"]) == (6, 15)


def test_the_course_of_augmented_views(run: Path) -> None:
    rows = measure_course(run, Tracking(views=2, products=10), classes=["9"])
    subject = open_subject(run, checkpoint=None, views=2)
    (images, targets), _ = subject.samples([9])
    with torch.no_grad():
        loss = F.cross_entropy(subject.model(images), targets).item()
    last = [row for row in rows if row.get("label") == 9][-1]
    assert last["loss"] == pytest.approx(loss, rel=1e-5)
    plain = [row for row in measure_course(run, Tracking(products=10), classes=["9"]) if row.get("label") == 9][-1]
    assert plain["loss"] != last["loss"]


def test_more_images_than_fit_into_memory_are_refused_with_a_way_out(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saddlescape.measure.subject.HELD", 4 * 64 * 20)  # twenty of the digits
    with pytest.raises(InputError, match=r"images of 8 x 8 pixels would take .*--samples-per-group"):
        subject.samples(subject.dataset.groups["head"])
    assert len(subject.samples(subject.dataset.groups["head"], most=20)[0][1]) == 20


def test_images_are_those_of_the_class_unaugmented(subject: Subject) -> None:
    images, targets = class_images(subject, 7)
    mine, labels = subject.samples([7])[0]
    assert torch.equal(labels, targets)
    assert torch.allclose(mine.double(), images, atol=1e-6)


def test_the_runs_own_loss_follows_the_epoch(subject: Subject) -> None:
    config = subject.opened.config
    stage = config.stages[0]
    counts = subject.dataset.class_counts
    begun = stage.reweight_start
    assert stage.reweight == "drw"
    before, after = (training_loss(config, Cursor(0, epoch), counts) for epoch in (begun, begun + 1))
    assert before.weight is None or torch.equal(before.weight, torch.ones(10))
    assert after.weight is not None
    assert after.weight[9] > after.weight[0]
    ldam = dataclasses.replace(stage, loss="ldam", loss_options={"scale": 20.0}, early_loss="ce", loss_start=2)
    config = dataclasses.replace(config, stages=(ldam,))
    assert type(training_loss(config, Cursor(0, 2), counts)).__name__ == "CrossEntropyLoss"
    late = training_loss(config, Cursor(0, 3), counts)
    assert (type(late).__name__, late.scale) == ("LDAMLoss", 20.0)
    ib = dataclasses.replace(config, stages=(dataclasses.replace(stage, loss="ib"),))
    with pytest.raises(InputError, match="--loss ce"):
        training_loss(ib, Cursor(0, 3), counts)


def test_classes_by_name_number_and_group(subject: Subject) -> None:
    dataset = dataclasses.replace(subject.dataset, classes=[f"n{i}" for i in range(9)] + ["0"])
    assert parse_classes(["0", "n1", "1", "2"], dataset) == [9, 1, 2]  # a name goes before a number
    assert parse_classes(["tail", "0"], subject.dataset) == [5, 6, 7, 8, 9, 0]
    with pytest.raises(InputError, match="--classes cat"):
        parse_classes(["cat"], dataset)


# --- over training ----------------------------------------------------------------------------------------------------

LIGHT = Tracking(samples=2, products=4)


def test_the_course_has_a_row_for_each_class_and_moment_and_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = measure_course(run, LIGHT, classes=["8", "9"], device="cpu")
    of_class = [row for row in rows if "label" in row]
    assert [(row["epoch"], row["label"]) for row in of_class] == [(e, c) for e in (1, 2, 3, 4) for c in (8, 9)]
    assert [row["warm"] for row in of_class] == [False] * 2 + [True] * 6
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["test_accuracy"] for row in of_class if row["epoch"] == 4] == metrics[3]["test"]["per_class"][8:]
    assert all(row["test_accuracy"] is None for row in of_class if row["epoch"] == 1)  # eval_every=2
    (mean,) = [row for row in rows if "label" not in row and row["epoch"] == 3]
    assert (mean["group"], mean["classes"]) == ("tail", 2)
    assert mean["lambda_min"] == pytest.approx(sum(row["lambda_min"] for row in of_class if row["epoch"] == 3) / 2)

    subject = open_subject(run, checkpoint="s0-e00003-b000000", device="cpu")
    images, targets = subject.samples([9], 2)[0]
    with torch.no_grad():
        logits = subject.model(images)
    assert of_class[5]["loss"] == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-5)
    assert of_class[5]["train_accuracy"] == 100 * (logits.argmax(1) == targets).double().mean().item()

    lines = (run / COURSE).read_text().splitlines(keepends=True)
    (run / COURSE).write_text("".join(lines[:-1]).replace(lines[-2], "") + lines[-2][:20])  # a kill in epoch 4
    measured: list[int] = []
    original = curvature_course.CurvatureTracker._measure

    def watched(self: Any, function: Any, label: int, epoch: int) -> Any:
        measured.append(epoch)
        return original(self, function, label, epoch)

    monkeypatch.setattr(curvature_course.CurvatureTracker, "_measure", watched)
    again = measure_course(run, LIGHT, classes=["8", "9"], device="cpu")
    assert measured == [4, 4]
    assert len(again) == len(rows)
    assert again[:-3] == rows[:-3]
    assert read_course(run)[1] == again


def test_a_run_without_kept_checkpoints_is_told_what_to_do(run: Path) -> None:
    for folder in sorted((run / "checkpoint").iterdir())[:-1]:
        shutil.rmtree(folder)
    with pytest.raises(InputError, match="--keep-every 10"):
        measure_course(run, LIGHT, device="cpu")


def test_the_course_of_the_runs_own_loss_changes_with_it(run: Path) -> None:
    config = configuration.load(run)
    late = {"loss": "focal", "loss_options": {"gamma": 2.0}, "early_loss": "ce", "loss_start": 2}
    stage = dataclasses.replace(config.stages[0], **late)
    configuration.save(dataclasses.replace(config, stages=(stage,)), run)
    rows = measure_course(run, dataclasses.replace(LIGHT, loss="train"), classes=["9"], device="cpu")
    losses = {row["epoch"]: row["loss"] for row in rows if "label" in row}
    for epoch in (2, 3):
        subject = open_subject(run, checkpoint=f"s0-e{epoch:05d}-b000000", device="cpu")
        images, targets = subject.samples([9], 2)[0]
        with torch.no_grad():
            values = F.cross_entropy(subject.model(images), targets, reduction="none")
        focal = (1 - torch.exp(-values)) ** 2 * values
        assert losses[epoch] == pytest.approx((values if epoch == 2 else focal).mean().item(), rel=1e-4)


def course_row(stage: int, epoch: int, label: int, value: float = -1.0) -> dict[str, Any]:
    numbers = dict.fromkeys(("lambda_min", "lambda_max", "nonconvexity", "loss", "train_accuracy"), value)
    return {"stage": stage, "epoch": epoch, "label": label, "test_accuracy": None, "converged": True, **numbers}


def test_the_file_of_the_course_drops_replaces_and_is_never_lost(tmp_path: Path) -> None:
    groups = {"head": [0], "tail": [1, 2]}
    course = Course(tmp_path, {"loss": "ce"})
    with pytest.raises(InputError, match="in use"):
        Course(tmp_path, {"loss": "ce"})
    course.put([course_row(0, 10, 2, -3.0), course_row(0, 10, 0)], groups)
    (mean,) = [row for row in course.put([course_row(0, 10, 1, -1.0)], groups) if row["group"] == "tail"]
    assert (mean["lambda_min"], mean["classes"], mean["test_accuracy"]) == (-2.0, 2, None)  # with the one from before
    course.put([course_row(0, 20, 0)], groups)
    course.put([course_row(1, 5, 0)], groups)
    assert course.labels_at(0, 10) == {0, 1, 2}
    course.drop_after(0, 15)
    course.close()
    again = Course(tmp_path, {"loss": "ce"})
    assert {(row["stage"], row["epoch"]) for row in again.rows} == {(0, 10)}
    assert len(again.rows) == 5
    again.close()
    lines: list[str] = []
    Course(tmp_path, {"loss": "train"}, lines.append).close()
    assert "curvature-course.1.jsonl" in lines[0]
    assert len((tmp_path / "curvature-course.1.jsonl").read_text().splitlines()) == 6
    with pytest.raises(InputError, match="--over-training"):
        read_course(tmp_path / "nowhere")


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


# --- rho, surfaces, escape --------------------------------------------------------------------------------------------


def test_advice_agrees_with_its_formulas(run: Path, subject: Subject) -> None:
    question = rho_advice.Question(rhos=(0.1, 1.0), batch=3, batches=2, max_products=25)
    content = rho_advice.advise(subject, question, classes=[9])
    (row,) = content["classes"]
    for kind in ("class_batches", "training_batches"):
        found = row[kind]
        assert found["threshold"] == pytest.approx(2 * found["gradient_norm"] / abs(row["lambda_min"]))
        assert found["amplified_rho"] == [one["rho"] for one in found["rho"] if one["gain"] > 1]
        assert all(one["gain"] == pytest.approx(one["factor"] ** 2) for one in found["rho"]) or found["batches"] > 1
    model, (images, targets) = subject.model, subject.samples([9])[0]
    gradient = torch.autograd.grad(F.cross_entropy(model(images), targets), list(model.parameters()))
    norm = torch.cat([part.reshape(-1) for part in gradient]).norm().item()
    assert row["class_batches"]["gradient_norm"] == pytest.approx(norm, rel=1e-4)  # two images: one mini-batch
    assert json.loads((run / rho_advice.ADVICE).read_text()) == content
    lines: list[str] = []
    assert rho_advice.advise(subject, question, classes=[9], say=lines.append) == content
    assert lines[0].startswith("already measured")


def test_a_class_whose_gradient_is_zero_is_told_and_left_out(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def zero(*args: Any, **kw: Any) -> None:
        raise InputError("the gradient of a mini-batch is exactly zero")

    monkeypatch.setattr(rho_advice, "sam_gain", zero)
    question = rho_advice.Question(rhos=(0.1,), max_products=3)
    content = rho_advice.advise(subject, question, classes=[9])
    assert "exactly zero" in content["classes"][0]["class_batches"]["problem"]
    hint = content["hint"]
    assert hint is None or hint["class_batches"] == {"some_from": None, "all_from": None}


def advised(group: str, proved: bool, own: float | None, mixed: float | None) -> dict[str, Any]:
    return {
        "class": "x", "group": group, "negative_curvature_proved": proved,
        "class_batches": {"measured_threshold": own}, "training_batches": {"measured_threshold": mixed},
    }  # fmt: skip


def test_the_hint_speaks_of_tail_classes_with_proved_negative_curvature_only() -> None:
    rows = [advised("tail", True, 0.2, 0.4), advised("tail", True, 0.6, None), advised("head", True, 0.01, 0.01),
            advised("tail", False, 9.0, 9.0)]  # fmt: skip
    hint = rho_advice.hint(rows, (0.1, 1.0))
    assert hint is not None
    assert hint["class_batches"] == {"some_from": 0.2, "all_from": 0.6}
    assert hint["training_batches"] == {"some_from": 0.4, "all_from": None}
    assert rho_advice.hint(rows[2:], (0.1,)) is None


def test_where_every_radius_amplifies_the_hint_is_the_smallest_tried() -> None:
    rows = [advised("tail", True, 0.1, None)]
    rows[0]["training_batches"]["amplified_rho"] = [0.1, 1.0]  # a file of a former version: no threshold beside it
    hint = rho_advice.hint(rows, (0.1, 1.0))
    assert hint is not None
    assert hint["class_batches"] == hint["training_batches"] == {"some_from": 0.1, "all_from": 0.1}
    assert hint["smallest_rho_tried"] == 0.1


class Bowls(nn.Module):
    """Logits whose mean is ``sum h w^2 / 2``: under a loss linear in them the residual part is all, ``diag(h)``."""

    def __init__(self, h: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(len(h), dtype=h.dtype))
        self.register_buffer("h", h)

    def forward(self, x: Tensor) -> Tensor:
        return (0.5 * (self.h * self.w**2).sum()).expand(len(x))[:, None]


def test_extremes_of_the_parts_are_good_to_one_percent_or_flagged() -> None:
    """The second eigenvalue lies close by the first: where the value seems settled, it may be between the two."""
    h = torch.cat([torch.tensor([-10.0, -8.9, 8.9, 10.0]), torch.linspace(-4, 4, 400)]).double()
    model, samples = Bowls(h), gather((torch.zeros(4, 1).double(), torch.zeros(4, dtype=torch.long)))
    unsettled = 0
    for seed in range(20):
        vectors = torch.nn.functional.normalize(torch.randn(2, 404, generator=torch.Generator().manual_seed(seed)))
        found = hessian_parts(model, lambda z, t: z.mean(), samples, vectors, batch_size=4, tol=1e-3, seed=seed)
        part = found["residual_part"]
        for end, truth in (("min", -10), ("max", 10)):
            unsettled += not part[f"converged_{end}"]
            assert not part[f"converged_{end}"] or part[f"lambda_{end}"] == pytest.approx(truth, rel=0.01)
            assert part["rounding"] > 0
    assert unsettled <= 4
    assert found["gauss_newton"]["lambda_max"] == 0
    assert found["gauss_newton"]["converged"]


def test_what_is_written_bounds_the_error_in_float32(subject: Subject) -> None:
    """Beside a residual that is small because it is of float32's own operator stands what rounding may have done."""
    row = measure_run(subject, Depth(extremes_only=True, gauss_newton=False, tol=1e-5), classes=[9])["classes"][0]
    data, _ = subject.samples([9])
    exact = extreme_eigenpairs(copy.deepcopy(subject.model), subject.loss, data, dtype=torch.float64, tol=1e-8).values
    for end, truth in (("min", exact[0]), ("max", exact[-1])):
        assert abs(row[f"lambda_{end}"] - float(truth)) <= row[f"residual_{end}"] + row["rounding"]


def test_a_line_through_the_loss(run: Path, subject: Subject) -> None:
    cut = surface.Slice(directions="random", dims=1, steps=3, span=0.5)
    path, found, facts = surface.measure_surface(subject, cut, classes=[9])
    model, (images, targets) = subject.model, subject.samples([9])[0]
    with torch.no_grad():
        center = F.cross_entropy(model(images), targets).item()
    assert Surface.load(path).of(9)[1] == pytest.approx(center, rel=1e-5)
    assert facts["surfaces"][0]["center"] == pytest.approx(center, rel=1e-5)
    assert (path.parent, found.directions) == (run, "random")
    lines: list[str] = []
    surface.measure_surface(subject, cut, classes=[9], say=lines.append)
    assert lines == [f"already measured: {path}"]


def test_arms_start_alike_and_a_finished_one_is_not_run_again(subject: Subject) -> None:
    trial = escape.Trial(arms=("sgd", "momentum-sam@1"), epochs=1, samples=2, products=3)
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    first = escape.escape(subject, trial, classes=[9])
    assert all(torch.equal(before[name], value) for name, value in subject.model.state_dict().items())
    assert [row["arm"] for row in first["arms"]] == ["sgd", "momentum-sam@1"]
    assert first["verdict"] is None
    started, ended = first["arms"][0]["epochs"]
    assert started == first["arms"][1]["epochs"][0]
    assert (started["epoch"], ended["epoch"]) == (0, 1)
    assert ended["lambda_min"] == ended["classes"][0]["lambda_min"]
    assert ended["loss"] != started["loss"]
    more = escape.escape(subject, dataclasses.replace(trial, arms=("sgd", "sam@0.1", "pgd@0.1")), classes=[9])
    assert more["arms"][:2] == first["arms"]
    assert [row["arm"] for row in more["arms"]] == ["sgd", "momentum-sam@1", "sam@0.1", "pgd@0.1"]
    assert more["verdict"] is not None
    # Momentum-SAM's first step has no momentum yet, later ones have; PGD kicks once an epoch.
    ends = [row["epochs"][-1]["loss"] for row in more["arms"]]
    assert len(set(ends)) == 4


def test_an_arm_has_its_own_optimiser_at_once_and_at_a_constant_rate() -> None:
    from saddlescape.records.config import Stage

    stage = Stage(optimizer="sam", rho=(0.1,), rho_start=150, reset_head=True)
    arm = escape.stage_for(escape.Arm("pgd", 0.5), stage, 10, 0.01, 7)
    assert (arm.optimizer_options, arm.rho, arm.rho_start, arm.reset_head) == ({"t_thr": 7}, (0.5,), 0, False)
    assert (arm.lr, arm.lr_schedule, arm.epochs) == (0.01, "constant", 10)


def arm(name: str, tail: float, seed: int = 0) -> dict[str, Any]:
    rows = [{"tail": value, "lambda_min": -1.0, "loss": 1.0} for value in (20.0, tail, tail, tail)]
    return {"arm": name, "seed": seed, "problem": None, "epochs": rows}


@pytest.mark.parametrize(
    ("sam", "momentum", "answer"),
    [(30.5, 40.0, "no gain to explain"), (50.0, 49.0, "as much"), (50.0, 40.0, "less"), (50.0, 30.0, "not at all")],
)
def test_the_verdict_follows_its_rules(sam: float, momentum: float, answer: str) -> None:
    arms = [arm("sgd", 30.0), arm("sam@0.1", sam), arm("sam@0.2", 25.0), arm("momentum-sam@1", momentum)]
    found = escape.verdict(arms, 3000)
    assert found is not None
    share = sam / 100
    assert found["noise"] == pytest.approx(200 * math.sqrt(2 * share * (1 - share) / 3000))
    assert found["answer"] == answer
    assert found["sam"] == {"arm": "sam@0.1", "tail_gain": pytest.approx(sam - 30)}
    assert "one seed" in found["text"]
    assert escape.verdict(arms[:3], 3000) is None


def test_several_seeds_make_the_noise_known() -> None:
    arms = [
        arm(name, value + seed, seed)
        for seed in (0, 1)
        for name, value in (("sgd", 30.0), ("sam@0.1", 40.0 + seed), ("momentum-sam@1", 40.0))
    ]
    found = escape.verdict(arms, 3000)
    assert found is not None
    assert found["noise"] == pytest.approx(2 * np.std([0, 1], ddof=1) / math.sqrt(2))
    assert "2 seeds" in found["text"]


@pytest.mark.parametrize("text", ["adam", "sgd@0.1", "sam", "sam@x", "sam@0", "pgd@inf"])
def test_bad_arms_are_one_line(text: str) -> None:
    with pytest.raises(InputError, match="--arms"):
        escape.parse_arm(text)
