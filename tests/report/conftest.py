"""Run folders as saddlescape writes them, through its records: small, and known in every figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import to_builtins

from saddlescape import disk
from saddlescape.records import files, metrics
from saddlescape.records.config import DataConfig, RunConfig, Stage
from saddlescape.records.course import CourseFile, GroupMoment, Moment
from saddlescape.records.curvature import Curvature, CurvatureFile, GaussNewton, Shares
from saddlescape.records.escape import Arm, ArmEpoch, EscapeFile, Verdict
from saddlescape.records.predictions import SAMPLES, SAMPLES_FORMAT, Predictions, TailErrors
from saddlescape.records.result import Result
from saddlescape.records.rho_advice import Advice, AdviceFile, Gain, Radius, TrainedWith
from saddlescape.report.read import SPECTRUM_FORMAT, SURFACE_FORMAT
from saddlescape.runs import config

Make = Callable[..., Path]
NAMES = ["cat", "dog", "owl", "fox", "elk", "bee"]
EPOCHS = 6


def groups_of(size: int) -> dict[str, list[int]]:
    third = max(1, size // 3)
    bounds = {"head": (0, third), "mid": (third, size - third), "tail": (size - third, size)}
    return {name: list(range(*ends)) for name, ends in bounds.items()}


def write(
    folder: Path, *, classes: list[str] = NAMES, method: str = "ce+drw", seed: int = 0, parts: str = "all",
    strength: float = 1.0, dataset: str = "digits", draw: str = "aa",
) -> Path:  # fmt: skip
    """A finished run with every file, or with those named in ``parts``; ``strength`` scales the negative curvature."""
    rng = np.random.default_rng(seed + len(method))
    size, groups = len(classes), groups_of(len(classes))
    counts = [max(2, int(100 * 0.02 ** (i / max(size - 1, 1)))) for i in range(size)]
    sam = {"optimizer": "sam", "rho": (0.5,)} if "sam" in method.split("+") else {}
    stage = Stage(epochs=EPOCHS, reweight="drw", reweight_start=4, **sam)  # type: ignore[arg-type]
    data = DataConfig(name=dataset, imbalance=50.0)
    folder.mkdir(parents=True)
    config.save(RunConfig(method=method, model="smallcnn", seed=seed, data=data, stages=(stage,)), folder)

    def scores(epoch: int) -> dict[str, Any]:
        shares = np.clip(95 - 60 * np.arange(size) / size + 3 * epoch + rng.normal(0, 2, size), 0, 100)
        means = {name: float(shares[members].mean()) if members else None for name, members in groups.items()}
        whole = float(shares.mean())
        return {"accuracy": whole, "balanced_accuracy": whole, "ece": 3.0, "per_class": shares.tolist(), **means}

    for epoch in range(EPOCHS):
        last = scores(epoch)
        row = {"epoch": epoch, "train_loss": 2.0 / (epoch + 1), "lr": 0.1 / (epoch + 1), "rho": 0.5 if sam else None,
               "test": {**last, "images": 40 * size}}  # fmt: skip
        metrics.append(folder / files.METRICS, metrics.epoch_of(row, 0, "train"))
    result = Result(
        method=method, dataset=dataset, seed=seed, imbalance=50.0, model="smallcnn", epochs=EPOCHS, classes=classes,
        class_counts=counts, best_accuracy=last["accuracy"], best_epoch=EPOCHS, seconds=12.0, images_per_second=90.0,
        device="test CPU", precision="float32", draw_hash=draw, version="0.1.0", torch="2.13.0",
        commit="abc123", finished="2026-12-01", **last,
    )  # fmt: skip
    if parts == "all" or "result" in parts.split():
        files.write_json(folder / files.RESULT, to_builtins(result))
    measured = _measured(classes, groups, counts, strength)
    measured["advice"].trained_with = TrainedWith(optimizer=stage.optimizer, rho=list(stage.rho))
    for name, record in measured.items():
        if parts == "all" or name in parts.split():
            record.save(folder / record.NAME)
    if parts == "all" or "curvature" in parts.split():
        _spectra(folder, measured["curvature"])
    if parts == "all":
        _surface(folder, [row.label for row in measured["curvature"].classes if row.file], strength)
        _predictions(folder, size, rng)
    return folder


def _measured(
    classes: list[str], groups: dict[str, list[int]], counts: list[int], strength: float
) -> dict[str, Any]:
    """The records of the measurements."""
    group = {label: name for name, members in groups.items() for label in members}
    size, table = len(classes), []
    for label, name in enumerate(classes):
        low, high = -strength * (label + 1) / size * 6, 40.0 + label
        table.append(Curvature(
            name=name, label=label, group=group[label], training_images=counts[label], lambda_min=low, lambda_max=high,
            nonconvexity=abs(low / high), residual_min=0.01, residual_max=0.02, converged_min=True, converged_max=True,
            negative_curvature_proved=True, negative_mass=[0.1, 0.3], num_params=1000, loss=0.1 * (label + 1),
            file=f"curvature/class_{label}.npz" if min(label, size - 1 - label) < 4 else None,
            gauss_newton=GaussNewton(lambda_max=high + 0.5), at_lambda_max=Shares(gauss_newton=high, residual_part=0.0),
            at_lambda_min=Shares(gauss_newton=0.5, residual_part=low - 0.5),
        ))  # fmt: skip

    def gain(factor: float) -> Gain:
        radii = [Radius(rho=rho, gain=factor * rho, sign=-1 if rho > 0.3 else 1, predicted_gain=rho / 2)
                 for rho in (0.1, 0.5, 1.6)]  # fmt: skip
        return Gain(measured_threshold=0.3 * factor, amplified_rho=[0.5], rho=radii)

    advised = [
        Advice(name=classes[label], label=label, group=group[label], lambda_min=-2.0 - label, converged=True,
               negative_curvature_proved=True, class_batches=gain(1.0), training_batches=gain(2.0))
        for label in [*groups["tail"][:5], *groups["head"][:2]]
    ]  # fmt: skip
    arms = [
        Arm(arm=arm, seed=one, epochs=[
            ArmEpoch(epoch=e, accuracy=50.0 + e, tail=20.0 + e + one, lambda_min=-9.0 + e, loss=1.0) for e in range(3)
        ])
        for arm in ("sgd", "sam@0.1") for one in (0, 1)
    ]  # fmt: skip
    rows: list[Moment | GroupMoment] = []
    for epoch in (1, 3, 6):
        low = -strength * 10 / epoch
        common: dict[str, Any] = {"epoch": epoch, "lambda_min": low, "lambda_max": 40.0, "nonconvexity": abs(low) / 40,
                                  "converged": epoch != 3, "loss": 2.0 / epoch}  # fmt: skip
        rows += [Moment(name=name, label=label, group=group[label], proved=True, **common)
                 for label, name in enumerate(classes[:30])]  # fmt: skip
        rows += [GroupMoment(group=name, **common) for name in groups]
    verdict = Verdict(answer="less", text="Less than SAM.")
    return {
        "curvature": CurvatureFile(epoch=EPOCHS, classes=table, settings={"loss": "ce"}, group_labels=groups),
        "course": CourseFile(rows=rows, settings={"loss": "ce", "samples": 256}),
        "advice": AdviceFile(classes=advised),
        "escape": EscapeFile(arms=arms, verdict=verdict, group_labels=groups),
    }


def _spectra(folder: Path, found: CurvatureFile) -> None:
    (folder / "curvature").mkdir()
    for row in found.classes:
        if row.file:
            values = np.concatenate([np.linspace(row.lambda_min, 2, 20), [row.lambda_max]])[None]
            weights = np.concatenate([np.full(20, 0.999 / 20), [0.001]])[None]
            disk.write_npz(folder / row.file, SPECTRUM_FORMAT, {"ritz_values": values, "ritz_weights": weights}, {})


def _surface(folder: Path, labels: list[int], strength: float) -> None:
    axis = np.linspace(-1, 1, 9)
    a, b = np.meshgrid(axis, axis, indexing="ij")
    losses = np.stack([1.0 - 0.5 * strength * a**2 + 4 * b**2 + 0.01 * label for label in labels])
    arrays = {"alphas": axis, "betas": axis, "losses": losses, "slopes": np.zeros((len(labels), 2)),
              "curvatures": np.tile([-strength, 8.0], (len(labels), 1)), "center": losses[:, 4, 4]}  # fmt: skip
    meta = {"labels": labels, "directions": "eigen", "seed": 0}
    disk.write_npz(folder / "surface-eigen-2d-ce-s0.npz", SURFACE_FORMAT, arrays, meta)


def _predictions(folder: Path, size: int, rng: np.random.Generator) -> None:
    labels = np.repeat(np.arange(size), 40 if size < 50 else 4)
    predictions = np.where(rng.random(len(labels)) < 0.7, labels, rng.integers(0, size, len(labels)))
    Predictions(labels, predictions, rng.uniform(0.3, 1.0, len(labels))).save(folder)
    images = rng.integers(0, 255, (5, 8, 8, 3), dtype=np.uint8)
    names = tuple(f"photo <{i}>.png" for i in range(5))
    wrong = TailErrors(np.full(5, size - 1), np.zeros(5, int), np.linspace(0.5, 0.9, 5), images, names)
    wrong.save(folder, np.arange(5))
    training = {"images": rng.integers(0, 255, (6, 8, 8, 3), dtype=np.uint8), "labels": np.arange(6) % size}
    disk.write_npz(folder / SAMPLES, SAMPLES_FORMAT, training, {})


@pytest.fixture(scope="session")
def make() -> Make:
    return write


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same run without and with SAM, every file there; not to be written to."""
    folder = tmp_path_factory.mktemp("pair")
    return [write(folder / "plain"), write(folder / "sam", method="ce+drw+sam", strength=0.3)]
