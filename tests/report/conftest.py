"""Run folders as saddlescape writes them (docs/formats.md), made up without torch: small, and known in every figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

Make = Callable[..., Path]
NAMES = ["cat", "dog", "owl", "fox", "elk", "bee"]


def groups_of(size: int) -> dict[str, list[int]]:
    third = max(1, size // 3)
    return {
        "head": list(range(third)),
        "mid": list(range(third, size - third)),
        "tail": list(range(size - third, size)),
    }


def save_npz(path: Path, form: str, meta: dict[str, Any], **arrays: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, meta=np.array(json.dumps({"format": form, **meta})), **arrays)


def write(
    folder: Path,
    *,
    classes: list[str] | None = None,
    method: str = "ce+drw",
    seed: int = 0,
    parts: str = "all",
    epochs: int = 6,
    strength: float = 1.0,
    dataset: str = "digits",
    draw: str = "aa",
    named: bool = True,
    spectra: int = 8,
) -> Path:
    """A finished run with every part, or with those named in ``parts``; ``strength`` scales the negative curvature."""
    rng = np.random.default_rng(seed + len(method))
    names = NAMES if classes is None else classes
    size, groups = len(names), groups_of(len(names))
    group = {label: name for name, members in groups.items() for label in members}
    folder.mkdir(parents=True)
    sam = "sam" in method.split("+")
    stage = {
        "name": "train",
        "epochs": epochs,
        "reweight": "drw",
        "reweight_start": 4,
        "lr": 0.1,
        "optimizer": "sam" if sam else "sgd",
        "rho": [0.5] if sam else [],
        "loss": "ce",
    }
    config = {
        "method": method,
        "model": "smallcnn",
        "seed": seed,
        "device": "cpu",
        "precision": "float32",
        "data": {"name": dataset, "imbalance": 50.0},
        "stages": [stage],
        "version": 1,
    }
    (folder / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    counts = [max(2, int(100 * 0.02 ** (i / max(size - 1, 1)))) for i in range(size)]

    def has(part: str) -> bool:
        return parts == "all" or part in parts.split()

    rows, scores = [], {}
    for epoch in range(epochs):
        per_class = [
            float(v) for v in np.clip(95 - 12 * np.arange(size) * 5 / size + 3 * epoch + rng.normal(0, 2, size), 0, 100)
        ]
        scores = {
            "accuracy": float(np.mean(per_class)),
            "balanced_accuracy": float(np.mean(per_class)),
            "loss": 1.0,
            "ece": 3.0,
            "per_class": per_class,
            "present": size,
            "images": 40 * size,
            **{
                name: float(np.mean([per_class[c] for c in members])) if members else None
                for name, members in groups.items()
            },
        }
        rows.append(
            {
                "stage": 0,
                "name": "train",
                "epoch": epoch,
                "lr": 0.1,
                "rho": 0.5 if sam else None,
                "train_loss": 2.0 / (epoch + 1),
                "train_accuracy": 50.0,
                "images": 100,
                "seconds": 1.0,
                "images_per_second": 100.0,
                "test": scores,
            }
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = {
        "method": method,
        "dataset": dataset,
        "imbalance": 50.0,
        "seed": seed,
        "model": "smallcnn",
        "epochs": epochs,
        **{key: scores[key] for key in ("accuracy", "head", "mid", "tail", "balanced_accuracy", "ece", "per_class")},
        "classes": names,
        "class_counts": counts,
        "present_classes": size,
        "train_loss": 0.3,
        "best_accuracy": scores["accuracy"],
        "best_epoch": epochs,
        "seconds": 12.0,
        "images_per_second": 90.0,
        "device": "test CPU",
        "precision": "float32",
        "compiled": False,
        "draw_hash": draw,
        "skipped_images": 0,
        "version": "0.1.0",
        "torch": "2.13.0",
    }
    if has("result"):
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    shown = list(range(size)) if size <= spectra else [*range(spectra // 2), *range(size - spectra // 2, size)]
    if has("curvature"):
        table = []
        for label in range(size):
            low, high = -strength * (label + 1) / size * 6, 40.0 + label
            file = f"curvature/s0-ce/class_{label}.npz" if label in shown else None
            table.append(
                {
                    "class": names[label],
                    "label": label,
                    "group": group[label],
                    "training_images": counts[label],
                    "lambda_min": low,
                    "lambda_max": high,
                    "nonconvexity": abs(low / high),
                    "residual_min": 0.01,
                    "residual_max": 0.02,
                    "converged_min": True,
                    "converged_max": True,
                    "converged": True,
                    "negative_curvature_proved": True,
                    "trace": 70.0,
                    "trace_stderr": 1.0,
                    "negative_mass": [0.1, 0.3],
                    "num_samples": counts[label],
                    "num_available": counts[label],
                    "num_params": 1000,
                    "loss": 0.1 * (label + 1),
                    "gradient_norm": 0.5,
                    "file": file,
                    "gauss_newton": {"lambda_max": high + 0.5},
                    "at_lambda_min": {"gauss_newton": 0.5, "residual_part": low - 0.5},
                    "at_lambda_max": {"gauss_newton": high, "residual_part": 0.0},
                }
            )
            if file:
                values = np.concatenate([np.linspace(low, 2, 20), [high]])[None]
                weights = np.concatenate([np.full(20, 0.999 / 20), [0.001]])[None]
                save_npz(
                    folder / file, "saddlescape-spectrum-1", {"label": label}, ritz_values=values, ritz_weights=weights
                )
        (folder / "curvature.json").write_text(
            json.dumps(
                {
                    "format": "saddlescape-curvature-1",
                    "method": method,
                    "checkpoint": "s0",
                    "stage": 0,
                    "epoch": epochs,
                    "settings": {"loss": "ce"},
                    "group_labels": groups if named else None,
                    "notes": [],
                    "classes": table,
                    "groups": [],
                }
            ),
            encoding="utf-8",
        )
    if has("course"):
        lines: list[dict[str, Any]] = [
            {"format": "saddlescape-curvature-course-1", "settings": {"loss": "ce", "samples": 256}}
        ]
        for epoch in (1, 3, 6):
            for label in range(min(size, 30)):
                low = -strength * 10 / epoch
                lines.append(
                    {
                        "stage": 0,
                        "epoch": epoch,
                        "class": names[label],
                        "label": label,
                        "group": group[label],
                        "lambda_min": low,
                        "lambda_max": 40.0,
                        "nonconvexity": abs(low) / 40,
                        "residual_min": 0.1,
                        "residual_max": 0.1,
                        "converged": epoch != 3,
                        "proved": True,
                        "loss": 2.0 / epoch,
                        "train_accuracy": 90.0,
                        "test_accuracy": 50.0,
                        "warm": False,
                        "source": "live",
                    }
                )
            lines += [
                {
                    "stage": 0,
                    "epoch": epoch,
                    "group": name,
                    "classes": len(members),
                    "lambda_min": -strength * 10 / epoch,
                    "lambda_max": 40.0,
                    "nonconvexity": strength / 4 / epoch,
                    "loss": 2.0 / epoch,
                    "train_accuracy": 90.0,
                    "test_accuracy": 50.0,
                    "converged": epoch != 3,
                }
                for name, members in groups.items()
            ]
        (folder / "curvature-course.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
        )
    if has("advice"):

        def gain(factor: float) -> dict[str, Any]:
            return {
                "batches": 2,
                "gradient_norm": 1.0,
                "component_rms": 0.1,
                "threshold": 0.4,
                "predicted_threshold": 0.4,
                "measured_threshold": 0.3 * factor,
                "amplified_rho": [0.5],
                "rho": [
                    {
                        "rho": rho,
                        "gain": factor * rho,
                        "sign": -1 if rho > 0.3 else 1,
                        "factor": rho,
                        "predicted_gain": rho / 2,
                        "predicted_sign": 1,
                    }
                    for rho in (0.1, 0.5, 1.6)
                ],
            }

        advised = [
            {
                "class": names[label],
                "label": label,
                "group": group[label],
                "num_samples": 5,
                "num_available": 5,
                "lambda_min": -2.0 - label,
                "residual": 0.01,
                "converged": True,
                "negative_curvature_proved": True,
                "class_batches": gain(1.0),
                "training_batches": gain(2.0),
            }
            for label in [*groups["tail"][:5], *groups["head"][:2]]
        ]
        (folder / "rho-advice.json").write_text(
            json.dumps(
                {
                    "format": "saddlescape-rho-advice-1",
                    "checkpoint": "s0",
                    "settings": {},
                    "classes": advised,
                    "hint": None,
                    "trained_with": {"optimizer": stage["optimizer"], "rho": stage["rho"]},
                    "caveats": [],
                }
            ),
            encoding="utf-8",
        )
    if has("surface"):
        axis = np.linspace(-1, 1, 9)
        a, b = np.meshgrid(axis, axis, indexing="ij")
        losses = np.stack([1.0 - 0.5 * strength * a**2 + 4 * b**2 + 0.01 * label for label in shown])
        save_npz(
            folder / "surface-eigen-2d-ce-s0.npz",
            "saddlescape-surface-1",
            {"labels": shown, "directions": "eigen", "seed": 0},
            alphas=axis,
            betas=axis,
            losses=losses,
            slopes=np.zeros((len(shown), 2)),
            curvatures=np.tile([-strength, 8.0], (len(shown), 1)),
            center=losses[:, 4, 4],
        )
    if has("escape"):
        arms = [
            {
                "arm": arm,
                "optimizer": arm.partition("@")[0],
                "rho": None,
                "seed": one,
                "problem": None,
                "epochs": [
                    {
                        "epoch": e,
                        "accuracy": 50.0 + e,
                        "head": 90.0,
                        "mid": 60.0,
                        "tail": 20.0 + e + one,
                        "lambda_min": -9.0 + e,
                        "lambda_max": 40.0,
                        "nonconvexity": 0.2,
                        "loss": 1.0,
                        "converged": True,
                    }
                    for e in range(3)
                ],
            }
            for arm in ("sgd", "sam@0.1")
            for one in (0, 1)
        ]
        (folder / "escape.json").write_text(
            json.dumps(
                {
                    "format": "saddlescape-escape-1",
                    "arms": arms,
                    "verdict": {"answer": "less", "text": "Less than SAM."},
                    "group_labels": groups,
                }
            ),
            encoding="utf-8",
        )
    if has("predictions"):
        labels = np.repeat(np.arange(size), 40 if size < 50 else 4)
        answers = np.where(rng.random(len(labels)) < 0.7, labels, rng.integers(0, size, len(labels)))
        sure = rng.uniform(0.3, 1.0, len(labels)).astype(np.float32)
        np.savez(
            folder / "test_predictions.npz",
            format=np.array("saddlescape-predictions-1"),
            labels=labels,
            predictions=answers,
            confidences=sure,
            indices=np.arange(len(labels)),
        )
        np.savez(
            folder / "tail_errors.npz",
            format=np.array("saddlescape-tail-errors-1"),
            images=rng.integers(0, 255, (5, 8, 8, 3), dtype=np.uint8),
            labels=np.full(5, size - 1),
            predictions=np.zeros(5, int),
            confidences=np.linspace(0.5, 0.9, 5).astype(np.float32),
            indices=np.arange(5),
            names=np.array([f"photo <{i}>.png" for i in range(5)]),
        )
    return folder


@pytest.fixture(scope="session")
def make() -> Make:
    return write


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same run without and with SAM, every part there; not to be written to."""
    folder = tmp_path_factory.mktemp("pair")
    return [write(folder / "plain"), write(folder / "sam", method="ce+drw+sam", strength=0.3)]
