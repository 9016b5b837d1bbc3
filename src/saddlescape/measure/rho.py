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

from collections.abc import Sequence

import torch

from saddlescape.curvature import Eigenpair, build_operator, extremes, rho_threshold, sam_gain
from saddlescape.curvature.samples import Samples, gather
from saddlescape.errors import InputError
from saddlescape.measure.harness import Clock, Growing, Say, measure_each, quiet
from saddlescape.measure.subject import Subject, check_memory, class_samples, group_of
from saddlescape.records.record import finite
from saddlescape.records.rho_advice import Advice, AdviceFile, From, Gain, Hint, Radius, TrainedWith
from saddlescape.runs.request import CurvatureOptions

BATCH, BATCHES = 128, 8  # images of a mini-batch, and how many are drawn at most
SAMPLES, TOL, PRODUCTS = 512, 1e-2, 100  # of a class and its pair, unless the flags say otherwise
RHOS = (0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 1.6)
CAVEATS = (
    "amplified components point the other way than the gradient's: theory disagrees about whether that helps to escape",
    "first-order theory with the Hessian of the class; a mini-batch has its own",
    "one checkpoint: gradients shrink as training goes on, and with them the threshold",
)


def advise(
    subject: Subject, options: CurvatureOptions, *, classes: Sequence[int] | None = None, say: Say = quiet
) -> AdviceFile:
    """Measure (default: every tail class and every head class, for contrast) and write ``RUN/rho-advice.json``.

    Returns its content; classes measured before under the same settings are not measured again.

    Raises:
        InputError: a class without images, or what ``sam_gain`` refuses.
    """
    rhos = sorted(set(options.rho)) or RHOS
    groups = subject.dataset.groups
    counts = subject.dataset.class_counts
    labels = [*groups["tail"], *groups["head"]] if classes is None else list(classes)
    labels = [label for label in dict.fromkeys(labels) if classes is not None or counts[label]]
    with Growing(subject.folder / AdviceFile.NAME, _fresh(subject, options, rhos), subject.folder, say) as file:
        content = file.content
        content.hint = hint(content.classes, rhos)
        known = {row.label for row in content.classes}
        todo = [label for label in labels if label not in known]
        mixed = training_batches(subject, options.seed) if todo else None

        def measure(label: int, clock: Clock) -> Advice:
            assert mixed is not None
            return _measure(subject, options, rhos, label, mixed)

        def add(label: int, row: Advice) -> str:
            content.classes.append(row)
            content.hint = hint(content.classes, rhos)
            return f"{row.name} ({row.group}): {_figures(row)}"

        measure_each(file, todo, measure, add, say)
        return content


def training_batches(subject: Subject, seed: int) -> Samples:
    """Images as training meets them: drawn from all classes at their natural frequency, un-augmented."""
    labels = subject.dataset.train.labels
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    chosen = order[: BATCH * BATCHES]
    per_class = torch.bincount(labels[chosen], minlength=subject.dataset.num_classes).tolist()
    drawn = [(label, count) for label, count in enumerate(per_class) if count]
    check_memory(subject.dataset, len(chosen))
    parts = [class_samples(subject.dataset, [label], count, seed)[0] for label, count in drawn]
    inputs, targets = (torch.cat(part) for part in zip(*parts, strict=True))
    return gather((inputs, targets), check=False)


def _fresh(subject: Subject, options: CurvatureOptions, rhos: Sequence[float]) -> AdviceFile:
    settings = {
        "rhos": list(rhos), "batch": BATCH, "batches": BATCHES, "samples": options.samples_per_class or SAMPLES,
        "tol": options.tol or TOL, "max_products": options.products or PRODUCTS, "seed": options.seed,
    }  # fmt: skip
    stage = subject.opened.config.stages[subject.opened.cursor.stage]
    return AdviceFile(
        **subject.header,
        settings=subject.identity | settings,
        trained_with=TrainedWith(optimizer=stage.optimizer, rho=list(stage.rho)),
        caveats=list(CAVEATS),
    )


def _measure(
    subject: Subject, options: CurvatureOptions, rhos: Sequence[float], label: int, mixed: Samples
) -> Advice:
    data, available = subject.samples([label], options.samples_per_class or SAMPLES, options.seed)
    own = gather(data, check=False)
    operator = build_operator(subject.model, subject.loss, own, batch_size=options.batch_size)
    tol, products = options.tol or TOL, options.products or PRODUCTS
    pair = extremes(operator, which="smallest", tol=tol, max_products=products, seed=options.seed).smallest[0]

    def gain(batches: Samples) -> Gain:
        return _gain(subject, options, rhos, own, batches, pair)

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
        class_batches=gain(own),
        training_batches=gain(mixed),
    )


def _gain(
    subject: Subject, options: CurvatureOptions, rhos: Sequence[float], own: Samples, gradients: Samples,
    pair: Eigenpair,
) -> Gain:  # fmt: skip
    """SAM's gain along ``pair`` over mini-batches of ``gradients``; with ``problem`` where it cannot be had."""
    if len(gradients) > BATCH * BATCHES:
        order = torch.randperm(len(gradients), generator=torch.Generator().manual_seed(options.seed))
        gradients = gradients.take(order[: BATCH * BATCHES])
    try:
        gain = sam_gain(
            subject.model, subject.loss, own, rhos, vector=pair.vector, gradient_data=gradients, batch_size=BATCH,
            hessian_batch_size=options.batch_size, seed=options.seed, check=False, tol=options.tol or TOL,
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
