"""A hint on SAM's radius: from which rho on each class's most negative direction is amplified, as theory and as
measured.

Along a unit eigenvector v of a class's Hessian with eigenvalue lambda < 0 SAM multiplies the gradient's component by
about ``1 + rho lambda / ||g||``; in size that is above 1 only for ``rho > 2 ||g|| / |lambda|``, and there its *sign is
turned round*. Whether an amplified and turned component helps is disputed, so sign and size are reported
apart and the range is a hint, not a recommendation.

Measured with two kinds of mini-batches: of the class alone (as the theorem has it), and as training draws them, from
all classes (what SAM's step sees, whose gradient is mostly that of the head).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from saddlescape.curvature import Eigenpair, build_operator, extremes, rho_threshold, sam_gain
from saddlescape.curvature.samples import Samples, gather
from saddlescape.errors import InputError
from saddlescape.measure.harness import Clock, Growing, Say, measure_each, quiet
from saddlescape.measure.subject import Subject, check_memory, class_samples, group_of
from saddlescape.records.record import finite
from saddlescape.records.rho_advice import Advice, AdviceFile, From, Gain, Hint, Radius, TrainedWith

RHOS = (0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 1.6)
CAVEATS = (
    "amplified components point the other way than the gradient's: theory disagrees about whether that helps to escape",
    "first-order theory with the Hessian of the class; a mini-batch has its own",
    "one checkpoint: gradients shrink as training goes on, and with them the threshold",
)


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
    subject: Subject, question: Question, *, classes: Sequence[int] | None = None, say: Say = quiet
) -> AdviceFile:
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
    with Growing(subject.folder / AdviceFile.NAME, _fresh(subject, question), subject.folder, say) as file:
        content = file.content
        content.hint = hint(content.classes, question.rhos)
        known = {row.label for row in content.classes}
        todo = [label for label in labels if label not in known]
        mixed = training_batches(subject, question) if todo else None

        def measure(label: int, clock: Clock) -> Advice:
            assert mixed is not None
            return _measure(subject, question, label, mixed)

        def add(label: int, row: Advice) -> str:
            content.classes.append(row)
            content.hint = hint(content.classes, question.rhos)
            return f"{row.name} ({row.group}): {_figures(row)}"

        measure_each(file, todo, measure, add, say)
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


def _fresh(subject: Subject, question: Question) -> AdviceFile:
    plain = asdict(question) | {"rhos": list(question.rhos)}
    del plain["batch_size"]
    stage = subject.opened.config.stages[subject.opened.cursor.stage]
    return AdviceFile(
        **subject.header,
        settings=subject.identity | plain,
        trained_with=TrainedWith(optimizer=stage.optimizer, rho=list(stage.rho)),
        caveats=list(CAVEATS),
    )


def _measure(subject: Subject, question: Question, label: int, mixed: Samples) -> Advice:
    data, available = subject.samples([label], question.samples, question.seed)
    own = gather(data, check=False)
    operator = build_operator(subject.model, subject.loss, own, batch_size=question.batch_size)
    pair = extremes(
        operator, which="smallest", tol=question.tol, max_products=question.max_products, seed=question.seed
    ).smallest[0]
    return Advice(
        name=subject.dataset.classes[label],
        label=label,
        group=group_of(subject.dataset, label),
        num_samples=len(own),
        num_available=available,
        lambda_min=pair.value,
        residual=pair.residual,
        rounding=pair.rounding,
        converged=pair.converged,
        negative_curvature_proved=pair.is_proof,
        class_batches=_gain(subject, question, own, own, pair),
        training_batches=_gain(subject, question, own, mixed, pair),
    )


def _gain(subject: Subject, question: Question, own: Samples, gradients: Samples, pair: Eigenpair) -> Gain:
    """SAM's gain along ``pair`` over mini-batches of ``gradients``; with ``problem`` where it cannot be had."""
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
        return Gain(problem=str(problem))
    norm = float(gain.gradient_norms.mean())
    return Gain(
        batches=len(gain.gradient_norms),
        gradient_norm=norm,
        component_rms=float((gain.gradient_components**2).mean().sqrt()),
        threshold=finite(rho_threshold(pair.value, norm)),
        predicted_threshold=finite(gain.rho_threshold),
        measured_threshold=gain.measured_threshold,
        amplified_rho=[float(rho) for rho, value in zip(gain.rho, gain.gain, strict=True) if value > 1],
        rho=[Radius(**finite(one)) for one in gain.summary()],
    )


def hint(rows: Sequence[Advice], rhos: Sequence[float]) -> Hint | None:
    """For the tail classes with proved negative curvature: the rho from which one, and from which all are amplified.

    Thresholds are the measured ones, per kind of mini-batch; None where it is not reached within the rho tried, the
    smallest rho tried where that amplifies already.
    """
    tail = [row for row in rows if row.group == "tail" and row.negative_curvature_proved]
    if not tail:
        return None

    def bounds(found: Sequence[Gain | None]) -> From:
        values = [None if each is None else _threshold(each, rhos) for each in found]
        present = [value for value in values if value is not None]
        every = max(present) if len(present) == len(values) else None
        return From(some_from=min(present, default=None), all_from=every)

    return Hint(
        classes=[row.name for row in tail],
        smallest_rho_tried=min(rhos),
        largest_rho_tried=max(rhos),
        class_batches=bounds([row.class_batches for row in tail]),
        training_batches=bounds([row.training_batches for row in tail]),
    )


def _threshold(found: Gain, rhos: Sequence[float]) -> float | None:
    if found.measured_threshold is None and set(rhos) <= set(found.amplified_rho):
        return min(rhos)  # files of former versions have no threshold where every radius amplifies
    return found.measured_threshold


def _figures(row: Advice) -> str:
    own = row.class_batches
    assert own is not None
    if own.problem is not None:
        return f"lambda_min {row.lambda_min:.3g}; {own.problem}"
    reached = "not reached" if own.measured_threshold is None else f"measured {own.measured_threshold:.3g}"
    return f"lambda_min {row.lambda_min:.3g}, ||g|| {own.gradient_norm:.3g}, amplified beyond rho {reached}"
