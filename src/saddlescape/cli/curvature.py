"""``saddlescape curvature``: the Hessian of each class's loss at a run's weights, over its training, and rho's hint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from saddlescape.cli.display import console, print_table, reading, say
from saddlescape.errors import InputError
from saddlescape.records.config import check_flags
from saddlescape.runs.request import CurvatureOptions

if TYPE_CHECKING:
    from saddlescape.records.course import CourseFile
    from saddlescape.records.curvature import CurvatureFile
    from saddlescape.records.rho_advice import AdviceFile, Gain, Hint


def curvature(
    run: Path,
    /,
    *,
    options: Annotated[CurvatureOptions, Parameter(name="*")] = CurvatureOptions(),  # noqa: B008, frozen
) -> None:
    """Measure the curvature of each class's own loss: which classes sit on a saddle, how deep, with error bars.

    Writes curvature.json and a spectrum file per class into the run. Run again, it goes on where it was cut off; what
    is measured already is not measured again.

    Example: saddlescape curvature runs/ce-drw

    Example: saddlescape curvature runs/ce-drw --classes tail 0 --extremes-only

    Example: saddlescape curvature runs/ce-drw --over-training

    Args:
        run: A run folder.
    """
    from saddlescape.cli.processes import joined

    with joined() as ranks:
        check_flags(vars(options), CurvatureOptions)
        for refused, why in (
            (options.over_training and options.advise_rho, "--over-training and --advise-rho: give one of them"),
            (options.samples_per_group and not options.groups, "--samples-per-group goes with --groups"),
            (options.augmented_views and options.advise_rho,
             "--augmented-views does not go with --advise-rho, whose gradients are of plain images"),
            (options.rho and not options.advise_rho, "--rho goes with --advise-rho"),
            (options.over_training and (options.checkpoint is not None or options.groups),
             "--over-training measures every kept checkpoint, and groups too: leave out --checkpoint and --groups"),
        ):  # fmt: skip
            if refused:
                raise InputError(why)
        from saddlescape.measure.board import put_course, put_measured
        from saddlescape.measure.course import Tracking, measure_course
        from saddlescape.measure.rho import advise
        from saddlescape.measure.spectra import measure_run
        from saddlescape.measure.subject import open_subject, parse_classes
        from saddlescape.parallel.ranks import device_of
        from saddlescape.training.precision import resolve_device

        if not ranks.alone and (options.over_training or options.advise_rho):
            word = "over-training" if options.over_training else "advise-rho"
            raise InputError(f"--{word} measures one after the other what builds on it: leave out torchrun")
        if options.over_training:
            tracking = Tracking(
                samples=options.samples_per_class or 256, products=options.products or 60, tol=options.tol or 1e-2,
                loss=options.loss, dtype=options.dtype, batch_size=options.batch_size, seed=options.seed,
                views=options.augmented_views or 0,
            )  # fmt: skip
            with reading() as progress:
                course = measure_course(
                    run, tracking, classes=options.classes, device=options.device, root=options.root, say=say,
                    progress=progress,
                )  # fmt: skip
            show_course(course)
            _show_files(run / course.NAME, put_course(run, course, say))
            return
        device = options.device if ranks.alone else str(device_of(resolve_device(options.device), ranks))
        with reading() as progress:
            subject = open_subject(
                run, checkpoint=options.checkpoint, loss=options.loss, dtype=options.dtype, device=device,
                root=options.root, views=options.augmented_views or 0, progress=progress,
            )  # fmt: skip
        for note in subject.notes:
            say(note)
        labels = parse_classes(options.classes, subject.dataset) if options.classes else None
        if options.advise_rho:
            advice = advise(subject, options, classes=labels, say=say)
            show_advice(advice)
            _show_files(run / advice.NAME)
        else:
            content = measure_run(subject, options, classes=labels, say=say, ranks=ranks)
            show(content)
            _show_files(run / content.NAME, put_measured(run, content, say) if ranks.first else None)


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
