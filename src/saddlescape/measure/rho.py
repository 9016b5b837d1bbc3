"""A hint on SAM's radius: from which rho on each class's most negative direction is amplified, as theory and as
measured.

Along a unit eigenvector v of a class's Hessian with eigenvalue lambda < 0 SAM multiplies the gradient's component by
about ``1 + rho lambda / ||g||``; in size that is above 1 only for ``rho > 2 ||g|| / |lambda|``, and there its *sign is
turned round*. Whether an amplified and turned component helps is disputed, so sign and size are told
apart and the range is a hint, not a recommendation.

Measured with two kinds of mini-batches: of the class alone (as the theorem has it), and as training draws them, from
all classes (what SAM's step sees, whose gradient is mostly that of the head).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

import saddlescape
from saddlescape.curvature import Eigenpair, SamGain, build_operator, extremes, rho_threshold, sam_gain
from saddlescape.curvature.samples import Samples, gather
from saddlescape.errors import InputError
from saddlescape.measure.harness import PacedFile
from saddlescape.measure.spectra import SPECTRA
from saddlescape.measure.subject import Subject, check_memory, class_samples, set_aside
from saddlescape.records import files

FORMAT = "saddlescape-rho-advice-1"
ADVICE = "rho-advice.json"
RHOS = (0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 1.6)
CAVEATS = (
    "amplified components point the other way than the gradient's: theory disagrees about whether that helps to escape",
    "first-order theory with the Hessian of the class; a mini-batch has its own",
    "one checkpoint: gradients shrink as training goes on, and with them the threshold",
)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Question:
    """``rhos`` to try; ``batch``: images of a mini-batch, of which ``batches`` at most are drawn; ``samples``: images
    of each larger class for its Hessian."""

    rhos: tuple[float, ...] = RHOS
    batch: int = 128
    batches: int = 8
    samples: int | None = 512
    tol: float = 1e-2
    max_products: int = 100
    batch_size: int = 256
    seed: int = 0


def advise(
    subject: Subject, question: Question, *, classes: Sequence[int] | None = None, say: Say = lambda line: None
) -> dict[str, Any]:
    """Measure (default: every tail class and every head class, for contrast) and write ``RUN/rho-advice.json``.

    Returns its content; classes measured before under the same settings are not measured again.

    Raises:
        InputError: rho that are not positive, a class without images, or what ``sam_gain`` refuses.
    """
    if not question.rhos or not all(0 < rho < math.inf for rho in question.rhos):
        raise InputError(f"--rho: radii are finite and above 0, not {' '.join(map(str, question.rhos))}")
    groups = subject.dataset.groups
    counts = subject.dataset.class_counts
    labels = [*groups["tail"], *groups["head"]] if classes is None else list(classes)
    labels = [label for label in dict.fromkeys(labels) if classes is not None or counts[label]]
    files.make_folder(subject.folder / SPECTRA)
    with files.locked(subject.folder / SPECTRA):
        content = _begin(subject, question, say)
        known = {row["label"] for row in content["classes"]}
        todo = [label for label in labels if label not in known]
        if not todo:
            say(f"already measured: {subject.folder / ADVICE}")
        mixed = training_batches(subject, question) if todo else None
        file = PacedFile(subject.folder / ADVICE, content)
        try:
            for number, label in enumerate(todo, start=1):
                row = _measure(subject, question, label, mixed)
                content["classes"].append(row)
                content["hint"] = hint(content["classes"], question.rhos)
                file.changed()
                say(f"{row['class']} ({row['group']}): {_told(row)}; {number} of {len(todo)} classes")
        finally:
            file.flush()
        return content


def training_batches(subject: Subject, question: Question) -> Samples:
    """Images as training meets them: drawn from all classes at their natural frequency, un-augmented."""
    labels = subject.dataset.train.labels
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(question.seed))
    chosen = order[: question.batch * question.batches]
    per_class = torch.bincount(labels[chosen], minlength=subject.dataset.num_classes).tolist()
    drawn = [(label, count) for label, count in enumerate(per_class) if count]
    check_memory(subject.dataset, len(chosen))
    parts = [class_samples(subject.dataset, [label], count, question.seed)[0] for label, count in drawn]
    inputs, targets = (torch.cat(part) for part in zip(*parts, strict=True))
    return gather((inputs, targets), check=False)


def _begin(subject: Subject, question: Question, say: Say) -> dict[str, Any]:
    plain = asdict(question) | {"rhos": list(question.rhos)}
    del plain["batch_size"]
    settings = {
        "checkpoint": subject.checkpoint, "weights": subject.weights, "draw_hash": subject.dataset.draw_hash,
        "loss": subject.loss_name, "dtype": subject.dtype_name, **plain,
    }  # fmt: skip
    path = subject.folder / ADVICE
    if path.exists():
        old = files.read_json(path)
        if isinstance(old, dict) and (old.get("format"), old.get("settings")) == (FORMAT, settings):
            return old | {"hint": hint(old["classes"], question.rhos)}
        say(f"measuring again with other settings; the former is now {set_aside(path)}")
    stage = subject.opened.config.stages[subject.opened.cursor.stage]
    return {
        "format": FORMAT,
        "method": subject.opened.config.method,
        "dataset": subject.dataset.name,
        "checkpoint": subject.checkpoint,
        "settings": settings,
        "trained_with": {"optimizer": stage.optimizer, "rho": list(stage.rho)},
        "classes": [],
        "hint": None,
        "caveats": list(CAVEATS),
        "notes": list(subject.notes),
        "version": saddlescape.__version__,
        "torch": torch.__version__,
    }


def _measure(subject: Subject, question: Question, label: int, mixed: Samples | None) -> dict[str, Any]:
    data, available = subject.samples([label], question.samples, question.seed)
    own = gather(data, check=False)
    operator = build_operator(subject.model, subject.loss, own, batch_size=question.batch_size)
    pair = extremes(
        operator, which="smallest", tol=question.tol, max_products=question.max_products, seed=question.seed
    ).smallest[0]
    row: dict[str, Any] = {
        "class": subject.dataset.classes[label],
        "label": label,
        "group": subject.group_of(label),
        "num_samples": len(own),
        "num_available": available,
        "lambda_min": pair.value,
        "residual": pair.residual,
        "rounding": pair.rounding,
        "converged": pair.converged,
        "negative_curvature_proved": pair.is_proof,
        "class_batches": _gain(subject, question, own, own, pair),
        "training_batches": None if mixed is None else _gain(subject, question, own, mixed, pair),
    }
    return row


def _gain(subject: Subject, question: Question, own: Samples, gradients: Samples, pair: Eigenpair) -> dict[str, Any]:
    """SAM's gain along ``pair`` over mini-batches of ``gradients``; with "problem" where it cannot be had."""
    most = question.batch * question.batches
    if len(gradients) > most:
        order = torch.randperm(len(gradients), generator=torch.Generator().manual_seed(question.seed))
        gradients = gradients.take(order[:most])
    try:
        gain = sam_gain(
            subject.model, subject.loss, own, list(question.rhos), vector=pair.vector, gradient_data=gradients,
            batch_size=question.batch, hessian_batch_size=question.batch_size, tol=question.tol, seed=question.seed,
            check=False,
        )  # fmt: skip
    except InputError as problem:  # a class that is fitted so well that a gradient is zero in this number format
        return {"problem": str(problem)}
    norm = float(gain.gradient_norms.mean())
    return {
        "batches": len(gain.gradient_norms),
        "gradient_norm": norm,
        "component_rms": float((gain.gradient_components**2).mean().sqrt()),
        "threshold": _finite(rho_threshold(pair.value, norm)),
        "predicted_threshold": _finite(gain.rho_threshold),
        "measured_threshold": gain.measured_threshold,
        "amplified_rho": amplified(gain),
        "rho": [{key: _json(value) for key, value in one.items()} for one in gain.summary()],
    }


def amplified(gain: SamGain) -> list[float]:
    """The rho tried at which the measured gain is above 1."""
    above: Tensor = gain.gain > 1
    return [float(rho) for rho, yes in zip(gain.rho, above, strict=True) if bool(yes)]


def hint(rows: Sequence[dict[str, Any]], rhos: Sequence[float]) -> dict[str, Any] | None:
    """For the tail classes with proved negative curvature: the rho from which one, and from which all are amplified.

    Thresholds are the measured ones, per kind of mini-batch; None where it is not reached within the rho tried, the
    smallest rho tried where that amplifies already.
    """
    tail = [row for row in rows if row["group"] == "tail" and row["negative_curvature_proved"]]
    if not tail:
        return None
    result: dict[str, Any] = {
        "classes": [row["class"] for row in tail], "smallest_rho_tried": min(rhos), "largest_rho_tried": max(rhos)
    }  # fmt: skip
    for kind in ("class_batches", "training_batches"):
        found = [_threshold(row[kind] or {}, rhos) for row in tail]
        present = [value for value in found if value is not None]
        result[kind] = {
            "some_from": min(present) if present else None,
            "all_from": max(present) if len(present) == len(tail) else None,
        }
    return result


def _threshold(found: dict[str, Any], rhos: Sequence[float]) -> float | None:
    if found.get("measured_threshold") is None and set(rhos) <= set(found.get("amplified_rho") or []):
        return min(rhos)  # files of former versions have no threshold where every radius amplifies
    return found.get("measured_threshold")


def _told(row: dict[str, Any]) -> str:
    own = row["class_batches"]
    if "problem" in own:
        return f"lambda_min {row['lambda_min']:.3g}; {own['problem']}"
    measured = own["measured_threshold"]
    reached = f"measured {measured:.3g}" if measured is not None else "not reached"
    return f"lambda_min {row['lambda_min']:.3g}, ||g|| {own['gradient_norm']:.3g}, amplified beyond rho {reached}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _json(value: Any) -> Any:
    return _finite(value) if isinstance(value, float) else value
