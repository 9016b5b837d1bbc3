"""Spectra of each class's own mean loss: the half of the landscape that the average loss hides."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from saddlescape.curvature.flat import Selection
from saddlescape.curvature.operator import ALL, operators
from saddlescape.curvature.spectrum import Spectrum, spectrum_of


def class_spectra(
    model: nn.Module,
    loss_fn: Callable[..., Any],
    data: Any,
    *,
    classes: Iterable[int] | None = None,
    lanczos_steps: int = 100,
    probes: int = 1,
    batch_size: int = 256,
    seed: int = 0,
    params: Selection = None,
    progress: bool | Callable[[str], Any] = False,
    tol: float = 1e-4,
    trace_probes: int = 4,
    refine: int = 0,
    keep_vectors: bool = False,
    **options: Any,
) -> dict[int, Spectrum]:
    """The spectrum of the Hessian of each class's mean loss, at the model's present weights.

    Args:
        model: any ``nn.Module``; measured in eval mode, left as it was.
        loss_fn: ``loss_fn(logits, target) -> mean loss``. Class weights cancel class-wise: all samples of a class carry
            the same one, and a weighted mean divides by it (a loss that divides by the number of samples instead
            keeps it).
        data: ``(inputs [N, ...], targets [N])``, or an iterable of such batches, read once into memory.
        classes: labels to measure; default: all that are in the data.
        lanczos_steps, probes: depth and number of Lanczos runs per class; every class gets the same random starts.
        batch_size: bounds memory; the result does not depend on it (beyond rounding).
        params: see ``select_parameters``.
        progress: ``True`` prints a line per class with the time left to stderr; a function gets the lines instead.
        tol, trace_probes, refine, keep_vectors: see ``spectrum_of``.
        options: of ``build_operator``.

    Returns:
        ``{label: Spectrum}`` in the order asked for.

    Raises:
        InputError: a class that is not in the data; a loss that is not a scalar mean; dropout in train mode; random
            data; NaN weights; a model or operator with no Hessian.

    Memory: the model, one batch's activations, what ``keep_bytes`` allows, and ``lanczos_steps x P`` numbers.
    """
    say = progress if callable(progress) else _to_stderr if progress else None
    builders = operators(model, loss_fn, data, classes=classes, batch_size=batch_size, params=params, **options)
    found: dict[int, Spectrum] = {}
    started = time.monotonic()
    for label, build in builders.items():
        found[label] = one = spectrum_of(
            build(), lanczos_steps=lanczos_steps, probes=probes, seed=seed, tol=tol, trace_probes=trace_probes,
            refine=refine, keep_vectors=keep_vectors, label=None if label == ALL else label,
        )  # fmt: skip
        if say:
            name = "all data" if label == ALL else f"class {label}"
            left = (time.monotonic() - started) / len(found) * (len(builders) - len(found))
            low, high = ("" if settled else " (not converged)" for settled in one.converged_ends)
            figures = f"lambda_min {one.lambda_min:.4g}{low}, lambda_max {one.lambda_max:.4g}{high}"
            say(f"{name}: {figures}; {len(found)} of {len(builders)}, about {left:.0f} s left")
    return found


def spectrum(model: nn.Module, loss_fn: Callable[..., Any], data: Any, **options: Any) -> Spectrum:
    """The spectrum of the Hessian of the mean loss over all of ``data``.

    Arguments, errors and memory are those of ``class_spectra``, without ``classes``.
    """
    return class_spectra(model, loss_fn, data, classes=(ALL,), **options)[ALL]


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
