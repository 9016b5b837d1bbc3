"""``saddlescape curvature``: the Hessian of each class's loss at a run's weights, over its training, and rho's hint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from saddlescape.cli.display import console, print_table, reading, say
from saddlescape.errors import InputError
from saddlescape.runs.request import OnlyOn, Whole

if TYPE_CHECKING:
    from saddlescape.records.course import CourseFile
    from saddlescape.records.curvature import CurvatureFile
    from saddlescape.records.rho_advice import AdviceFile, Gain, Hint


def curvature(
    run: Path,
    /,
    *,
    classes: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    groups: OnlyOn = False,
    over_training: OnlyOn = False,
    advise_rho: OnlyOn = False,
    checkpoint: str | None = None,
    loss: str = "ce",
    extremes_only: OnlyOn = False,
    lanczos_steps: Whole = 100,
    probes: Whole = 1,
    samples_per_class: Whole | None = None,
    samples_per_group: Whole | None = None,
    augmented_views: Whole | None = None,
    gauss_newton: bool = True,
    tol: float | None = None,
    products: Whole | None = None,
    rho: Annotated[list[float] | None, Parameter(consume_multiple=True, negative=())] = None,
    batch_size: Whole = 256,
    dtype: str = "float32",
    device: str = "auto",
    root: str | None = None,
    seed: Whole = 0,
) -> None:
    """Measure the curvature of each class's own loss: which classes sit on a saddle, how deep, with error bars.

    Writes curvature.json and a spectrum file per class into the run. Run again, it goes on where it was cut off; what
    is measured already is not measured again.

    Example: saddlescape curvature runs/ce-drw

    Example: saddlescape curvature runs/ce-drw --classes tail 0 --extremes-only

    Example: saddlescape curvature runs/ce-drw --over-training

    Args:
        run: A run folder.
        classes: Class names, their numbers, head, mid, tail or all (default: all; with --advise-rho: tail and head).
        groups: Also a spectrum of the mean loss of head, mid and tail.
        over_training: Instead, the course over the kept checkpoints (train with --keep-every) ->
            curvature-course.jsonl.
        advise_rho: Instead, from which rho on SAM amplifies each class's most negative direction -> rho-advice.json.
        checkpoint: A folder under RUN/checkpoint, such as s0-e00020-b000000 (default: the newest).
        loss: ce: cross-entropy on the raw logits; train: the run's own loss, margins included.
        extremes_only: Certified lambda_min and lambda_max alone: cheaper, without density, trace and share of negative
            mass.
        lanczos_steps: Steps of each Lanczos run.
        probes: Lanczos runs per class, each from another random vector.
        samples_per_class: Measure a fixed random sample of larger classes; the sampling error is shown. Default: all
            images (--over-training: 256, --advise-rho: 512).
        samples_per_group: With --groups, a fixed random sample of the images of each group, for data of many classes.
            Default: all.
        augmented_views: Measure so many views of each image, augmented as in training and drawn once, in place of the
            image as it is. (The paper's own analysis augments, but anew in each product.)
        gauss_newton: Show the Gauss-Newton part and the rest of the Hessian beside the whole.
        tol: Residual, beside the value, at which a pair is settled (default 0.001; --over-training, --advise-rho:
            0.01).
        products: Most Hessian products: to settle extremes that Lanczos has not (default 100), or per class and
            checkpoint with --over-training (60) or class with --advise-rho (100).
        rho: Radii to try with --advise-rho.
        batch_size: Images at a time; bounds memory, moves no figure.
        dtype: float32 or float64.
        device: auto, cpu, cuda or cuda:N.
        root: Folder with the data, if it has moved.
        seed: Of random starts and samples.
    """
    from saddlescape.cli.processes import joined

    with joined() as ranks:
        at_least_one(
            lanczos_steps=lanczos_steps, probes=probes, samples_per_class=samples_per_class,
            samples_per_group=samples_per_group, augmented_views=augmented_views, products=products,
            batch_size=batch_size,
        )  # fmt: skip
        if tol is not None and not 0 < tol < 1:
            raise InputError(f"--tol {tol:g}: it lies between 0 and 1")
        if over_training and advise_rho:
            raise InputError("--over-training and --advise-rho: give one of them")
        if samples_per_group is not None and not groups:
            raise InputError("--samples-per-group goes with --groups")
        if augmented_views is not None and advise_rho:
            raise InputError("--augmented-views does not go with --advise-rho, whose gradients are of plain images")
        if rho is not None and not advise_rho:
            raise InputError("--rho goes with --advise-rho")
        from saddlescape.measure.board import put_course, put_measured
        from saddlescape.measure.subject import open_subject, parse_classes
        from saddlescape.parallel.ranks import device_of
        from saddlescape.training.precision import resolve_device

        if not ranks.alone and (over_training or advise_rho):
            word = "over-training" if over_training else "advise-rho"
            raise InputError(f"--{word} measures one after the other what builds on it: leave out torchrun")
        if over_training:
            if checkpoint is not None or groups:
                raise InputError("--over-training measures every kept checkpoint, and groups too: leave out "
                                 "--checkpoint and --groups")  # fmt: skip
            from saddlescape.measure.course import Tracking, measure_course

            tracking = Tracking(
                samples=samples_per_class or 256, products=products or 60, tol=tol or 1e-2, loss=loss, dtype=dtype,
                batch_size=batch_size, seed=seed, views=augmented_views or 0,
            )  # fmt: skip
            with reading() as progress:
                course = measure_course(
                    run, tracking, classes=classes, device=device, root=root, say=say, progress=progress
                )
            show_course(course)
            _show_files(run / course.NAME, put_course(run, course, say))
            return
        if not ranks.alone:
            device = str(device_of(resolve_device(device), ranks))
        with reading() as progress:
            subject = open_subject(
                run, checkpoint=checkpoint, loss=loss, dtype=dtype, device=device, root=root,
                views=augmented_views or 0, progress=progress,
            )  # fmt: skip
        for note in subject.notes:
            say(note)
        labels = None if classes is None else parse_classes(classes, subject.dataset)
        if advise_rho:
            from saddlescape.measure.rho import RHOS, Question, advise

            question = Question(
                rhos=tuple(sorted(set(rho))) if rho else RHOS, samples=samples_per_class or 512, tol=tol or 1e-2,
                max_products=products or 100, batch_size=batch_size, seed=seed,
            )  # fmt: skip
            advice = advise(subject, question, classes=labels, say=say)
            show_advice(advice)
            _show_files(run / advice.NAME)
            return
        from saddlescape.measure.spectra import Depth, measure_run

        depth = Depth(
            lanczos_steps=lanczos_steps, probes=probes, tol=tol or 1e-3, refine=100 if products is None else products,
            samples_per_class=samples_per_class, samples_per_group=samples_per_group, extremes_only=extremes_only,
            gauss_newton=gauss_newton, batch_size=batch_size, seed=seed,
        )  # fmt: skip
        content = measure_run(subject, depth, classes=labels, groups=groups, say=say, ranks=ranks)
        show(content)
        _show_files(run / content.NAME, put_measured(run, content, say) if ranks.first else None)


def at_least_one(**numbers: int | None) -> None:
    """Raises InputError for a flag whose number is below 1."""
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: at least 1")


def _show_files(path: Path, board: Path | None = None) -> None:
    console.print(f"-> {path}")
    if board is not None:
        console.print(f"-> {board} (TensorBoard)")


def number(value: float | None, settled: bool | None = True) -> str:
    """Four digits; ``~`` before what has not converged."""
    return "-" if value is None else ("~" if settled is False else "") + f"{value:.4g}"


def show(content: CurvatureFile) -> None:
    """The table per class and group; ~ marks what has not converged."""
    from saddlescape.records.curvature import Curvature

    rows = [*content.classes, *content.groups]
    parts = any(row.gauss_newton is not None for row in rows)
    headings = ["class", "group", "images", "loss", "lambda_min", "proved", "lambda_max", "ratio", "trace"]
    cells = []
    for row in rows:
        mass = " to ".join(f"{100 * share:.1f}" for share in row.negative_mass or ())
        sampled = "" if row.num_samples == row.num_available else f" of {row.num_available}"
        cells.append([
            row.name if isinstance(row, Curvature) else "all of",
            row.group or "",
            f"{row.num_samples}{sampled}",
            number(row.loss),
            number(row.lambda_min, row.converged_min),
            "yes" if row.negative_curvature_proved else "no",
            number(row.lambda_max, row.converged_max),
            number(row.nonconvexity),
            "-" if row.trace is None else f"{row.trace:.4g} ± {row.trace_stderr:.1g}",
            f"{mass} %" if mass else "-",
        ])  # fmt: skip
        if row.gauss_newton is not None and row.at_lambda_min is not None:
            top = row.gauss_newton
            cells[-1] += [number(top.lambda_max, top.converged), number(row.at_lambda_min.gauss_newton)]
    print_table([*headings, "negative mass", *(["lambda_max of GN", "GN in lambda_min"] if parts else [])], cells)
    console.print(
        f"{content.method}, {content.checkpoint}, loss {content.settings['loss']}. proved: a vector with v'Hv < 0 "
        "beyond rounding was found. ~: not converged (lambda_min is then an upper bound). ratio: |lambda_min/"
        "lambda_max|, which also rises when lambda_max falls: read it beside both and the loss."
    )  # fmt: skip
    errors = [row.sampling_error for row in content.classes if row.sampling_error]
    if errors:
        console.print(f"sampled classes: relative sampling error about {100 * max(errors):.0f} % or less")


def show_course(content: CourseFile) -> None:
    """Group means by epoch."""
    print_table(
        ("stage", "epoch", "group", "lambda_min", "lambda_max", "ratio", "class loss", "test accuracy"),
        [
            (
                str(row.stage), str(row.epoch), row.group or "", number(row.lambda_min, row.converged),
                number(row.lambda_max, row.converged), number(row.nonconvexity), number(row.loss),
                number(row.test_accuracy),
            )
            for row in content.rows if row.label is None
        ],
    )  # fmt: skip


def show_advice(content: AdviceFile) -> None:
    """Thresholds per class, then the hint with its caveats."""
    from saddlescape.records.rho_advice import Gain

    cells = []
    for row in content.classes:
        own, mixed = row.class_batches or Gain(), row.training_batches or Gain()
        cells.append((
            row.name, row.group or "", number(row.lambda_min, row.converged), number(own.gradient_norm),
            number(own.threshold), _amplified(own), _signs(own), _amplified(mixed),
        ))  # fmt: skip
    print_table(
        ("class", "group", "lambda_min", "||g||", "2||g||/|lambda|", "own batches: amplified at rho", "sign there",
         "training batches: amplified at rho"), cells,
    )  # fmt: skip
    hint = content.hint
    if hint is None:
        console.print("hint: none; no tail class has proved negative curvature here")
    else:
        for bounds, name in (
            (hint.class_batches, "a class's own batches"), (hint.training_batches, "training's batches"),
        ):  # fmt: skip
            console.print(
                f"hint ({name}): the tail's negative directions are amplified {_from(bounds.some_from, hint)} in the "
                f"first class, {_from(bounds.all_from, hint)} in all {len(hint.classes)}"
            )
    for caveat in content.caveats:
        console.print(f"but: {caveat}")


def _from(rho: float | None, hint: Hint) -> str:
    if rho is None:
        return f"at no rho up to {hint.largest_rho_tried:g}"
    if hint.smallest_rho_tried is not None and rho <= hint.smallest_rho_tried:
        return f"already at the smallest rho tried, {rho:g},"
    return f"from rho {rho:.3g}"


def _amplified(found: Gain) -> str:
    if found.problem is not None:
        return "gradient is zero"
    if found.batches is None:
        return "-"
    return ", ".join(f"{value:g}" for value in found.amplified_rho) or "none"


def _signs(found: Gain) -> str:
    signs = {one.sign for one in found.rho if one.rho in found.amplified_rho}
    return {frozenset({-1}): "turned", frozenset({1}): "kept", frozenset(): "-"}.get(frozenset(signs), "both")
