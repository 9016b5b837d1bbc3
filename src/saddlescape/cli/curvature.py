"""``saddlescape curvature``: the Hessian of each class's loss at a run's weights, over its training, and rho's hint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from saddlescape.cli.display import console, reading, say
from saddlescape.errors import InputError
from saddlescape.runs.request import Whole


def curvature(
    run: Path,
    /,
    *,
    classes: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    groups: Annotated[bool, Parameter(negative=())] = False,
    over_training: Annotated[bool, Parameter(negative=())] = False,
    advise_rho: Annotated[bool, Parameter(negative=())] = False,
    checkpoint: str | None = None,
    loss: str = "ce",
    extremes_only: Annotated[bool, Parameter(negative=())] = False,
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

    Parameters
    ----------
    run:
        A run folder.
    classes:
        Class names, their numbers, head, mid, tail or all (default: all; with --advise-rho: tail and head).
    groups:
        Also a spectrum of the mean loss of head, mid and tail.
    over_training:
        Instead, the course over the kept checkpoints (train with --keep-every) -> curvature-course.jsonl.
    advise_rho:
        Instead, from which rho on SAM amplifies each class's most negative direction -> rho-advice.json.
    checkpoint:
        A folder under RUN/checkpoint, such as s0-e00020-b000000 (default: the newest).
    loss:
        ce: cross-entropy on the raw logits; train: the run's own loss, margins included.
    extremes_only:
        Certified lambda_min and lambda_max alone: cheaper, without density, trace and share of negative mass.
    lanczos_steps, probes:
        Depth and number of Lanczos runs per class.
    samples_per_class:
        Measure a fixed random sample of larger classes; the sampling error is told. Default: all images
        (--over-training: 256, --advise-rho: 512).
    samples_per_group:
        With --groups, a fixed random sample of the images of each group, for data of many classes. Default: all.
    augmented_views:
        Measure so many views of each image, augmented as in training and drawn once, in place of the image as it is.
        (The paper's own analysis augments, but anew in each product.)
    gauss_newton:
        Show the Gauss-Newton part and the rest of the Hessian beside the whole.
    tol:
        Residual, beside the value, at which a pair is settled (default 0.001; --over-training, --advise-rho: 0.01).
    products:
        Most Hessian products: to settle extremes that Lanczos has not (default 100), or per class and checkpoint with
        --over-training (60) or class with --advise-rho (100).
    rho:
        Radii to try with --advise-rho.
    batch_size:
        Images at a time; bounds memory, moves no figure.
    dtype:
        float32 or float64.
    device:
        auto, cpu, cuda or cuda:N.
    root:
        Folder with the data, if it has moved.
    seed:
        Of random starts and samples.
    """
    from saddlescape.cli.processes import joined

    with joined() as ranks:
        _check(
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
        from saddlescape.measure.subject import open_subject, parse_classes
        from saddlescape.parallel.ranks import device_of
        from saddlescape.training.precision import resolve_device

        if not ranks.alone and (over_training or advise_rho):
            word = "over-training" if over_training else "advise-rho"
            raise InputError(f"--{word} measures one after the other what builds on it: leave out torchrun")
        if over_training:
            if checkpoint is not None or groups:
                raise InputError("--over-training measures every kept checkpoint and tells groups too: leave out "
                                 "--checkpoint and --groups")  # fmt: skip
            _course(run, classes, loss=loss, dtype=dtype, device=device, root=root, samples=samples_per_class,
                    views=augmented_views or 0, products=products, tol=tol, batch_size=batch_size,
                    seed=seed)  # fmt: skip
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
            from saddlescape.measure.rho import ADVICE, RHOS, Question, advise

            content = advise(
                subject,
                Question(
                    rhos=tuple(sorted(set(rho))) if rho else RHOS, samples=samples_per_class or 512, tol=tol or 1e-2,
                    max_products=products or 100, batch_size=batch_size, seed=seed,
                ),
                classes=labels, say=say,
            )  # fmt: skip
            show_advice(content)
            console.print(f"-> {run / ADVICE}")
            return
        from saddlescape.measure.board import put_measured
        from saddlescape.measure.spectra import CURVATURE, Depth, measure_run

        content = measure_run(
            subject,
            Depth(
                lanczos_steps=lanczos_steps, probes=probes, tol=tol or 1e-3,
                refine=100 if products is None else products, samples_per_class=samples_per_class,
                samples_per_group=samples_per_group, extremes_only=extremes_only, gauss_newton=gauss_newton,
                batch_size=batch_size, seed=seed,
            ),
            classes=labels, groups=groups, say=say, ranks=ranks,
        )  # fmt: skip
        show(content)
        console.print(f"-> {run / CURVATURE}")
        if ranks.rank == 0:
            _tell_board(put_measured(run, content, say))


def _check(**numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: at least 1")


def _course(run: Path, classes: list[str] | None, *, samples: int | None, products: int | None, tol: float | None,
            loss: str, dtype: str, device: str, root: str | None, batch_size: int, seed: int,
            views: int) -> None:  # fmt: skip
    from saddlescape.measure.board import put_course
    from saddlescape.measure.course import COURSE, Tracking, measure_course

    tracking = Tracking(
        samples=samples or 256, products=products or 60, tol=tol or 1e-2, loss=loss, dtype=dtype,
        batch_size=batch_size, seed=seed, views=views,
    )  # fmt: skip
    with reading() as progress:
        rows = measure_course(run, tracking, classes=classes, device=device, root=root, say=say, progress=progress)
    show_course(rows)
    console.print(f"-> {run / COURSE}")
    _tell_board(put_course(run, rows, say))


def _tell_board(place: Path | None) -> None:
    if place is not None:
        console.print(f"-> {place} (TensorBoard)")


def number(value: float | None, settled: bool = True) -> str:
    """Four digits; ``~`` before what has not converged."""
    return "-" if value is None else ("" if settled else "~") + f"{value:.4g}"


def wide(table: Table) -> None:
    """Print a table with every cell whole: figures that are cut off are none; a narrow terminal wraps the lines."""
    options = console.options.update(width=1000)
    console.print(table, width=max(console.width, console.measure(table, options=options).maximum), crop=False)


def show(content: dict[str, Any]) -> None:
    """The table per class and group; ~ marks what has not converged."""
    parts = any("gauss_newton" in row for row in content["classes"] + content["groups"])
    table = Table(box=None, pad_edge=False)
    headings = ["class", "group", "images", "loss", "lambda_min", "proved", "lambda_max", "ratio", "trace"]
    for heading in [*headings, "negative mass", *(["lambda_max of GN", "GN in lambda_min"] if parts else [])]:
        table.add_column(heading, justify="left" if heading in ("class", "group") else "right")
    for row in [*content["classes"], *content["groups"]]:
        mass = None if row["negative_mass"] is None else [f"{100 * share:.1f}" for share in row["negative_mass"]]
        used, available = row["num_samples"], row["num_available"]
        cells = [
            row.get("class", "all of"),
            row["group"] or "",
            str(used) if used == available else f"{used} of {available}",
            number(row["loss"]),
            number(row["lambda_min"], row["converged_min"]),
            "yes" if row["negative_curvature_proved"] else "no",
            number(row["lambda_max"], row["converged_max"]),
            number(row["nonconvexity"]),
            "-" if row["trace"] is None else f"{row['trace']:.4g} ± {row['trace_stderr']:.1g}",
            "-" if mass is None else f"{' to '.join(mass)} %",
        ]
        if "gauss_newton" in row:
            top = row["gauss_newton"]
            cells += [number(top["lambda_max"], top.get("converged", True))]
            cells += [number(row["at_lambda_min"]["gauss_newton"])]
        table.add_row(*cells)
    wide(table)
    console.print(
        f"{content['method']}, {content['checkpoint']}, loss {content['settings']['loss']}. proved: a vector with v'Hv "
        "< 0 beyond rounding was found. ~: not converged (lambda_min is then an upper bound). ratio: |lambda_min/"
        "lambda_max|, which also rises when lambda_max falls: read it beside both and the loss."
    )  # fmt: skip
    sampled = [row["sampling_error"] for row in content["classes"] if row.get("sampling_error")]
    if sampled:
        console.print(f"sampled classes: relative sampling error about {100 * max(sampled):.0f} % or less")


def show_course(rows: list[dict[str, Any]]) -> None:
    """Group means by epoch."""
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "epoch", "group", "lambda_min", "lambda_max", "ratio", "class loss", "test accuracy"):
        table.add_column(heading, justify="left" if heading == "group" else "right")
    for row in rows:
        if "label" not in row:
            table.add_row(
                str(row["stage"]), str(row["epoch"]), row["group"], number(row["lambda_min"], row["converged"]),
                number(row["lambda_max"], row["converged"]), number(row["nonconvexity"]), number(row["loss"]),
                number(row["test_accuracy"]),
            )  # fmt: skip
    wide(table)


def show_advice(content: dict[str, Any]) -> None:
    """Thresholds per class, then the hint with its caveats."""
    table = Table(box=None, pad_edge=False)
    headings = ("class", "group", "lambda_min", "||g||", "2||g||/|lambda|", "own batches: amplified at rho",
                "sign there", "training batches: amplified at rho")  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("class", "group") else "right")
    for row in content["classes"]:
        own, mixed = row["class_batches"], row["training_batches"] or {}
        table.add_row(
            row["class"], row["group"] or "", number(row["lambda_min"], row["converged"]),
            number(own.get("gradient_norm")), number(own.get("threshold")), _amplified(own), _signs(own),
            _amplified(mixed),
        )  # fmt: skip
    wide(table)
    hint = content["hint"]
    if hint is None:
        console.print("hint: none; no tail class has proved negative curvature here")
    else:
        for kind, name in (("class_batches", "a class's own batches"), ("training_batches", "training's batches")):
            some, every = hint[kind]["some_from"], hint[kind]["all_from"]
            console.print(
                f"hint ({name}): the tail's negative directions are amplified {_from(some, hint)} in the first class, "
                f"{_from(every, hint)} in all {len(hint['classes'])}"
            )
    for caveat in content["caveats"]:
        console.print(f"but: {caveat}")


def _from(rho: float | None, hint: dict[str, Any]) -> str:
    if rho is None:
        return f"at no rho up to {hint['largest_rho_tried']:g}"
    if rho <= hint["smallest_rho_tried"]:
        return f"already at the smallest rho tried, {rho:g},"
    return f"from rho {rho:.3g}"


def _amplified(found: dict[str, Any]) -> str:
    if "problem" in found:
        return "gradient is zero"
    values = found.get("amplified_rho")
    return "-" if values is None else ", ".join(f"{value:g}" for value in values) or "none"


def _signs(found: dict[str, Any]) -> str:
    above = found.get("amplified_rho") or []
    signs = {one["sign"] for one in found.get("rho", []) if one["rho"] in above}
    return {frozenset({-1}): "turned", frozenset({1}): "kept", frozenset(): "-"}.get(frozenset(signs), "both")
