"""Spectra of each class's own mean loss: the half of the landscape that the average loss hides."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saddlescape.curvature.flat import Selection
from saddlescape.curvature.function import loss_function
from saddlescape.curvature.gauss_newton import GaussNewtonOperator
from saddlescape.curvature.guards import held_still
from saddlescape.curvature.lanczos import Factorization
from saddlescape.curvature.operator import HessianOperator
from saddlescape.curvature.samples import gather, sample, split_by_class
from saddlescape.curvature.spectrum import Spectrum, spectrum_of
from saddlescape.curvature.sums import length
from saddlescape.disk import read_npz, write_npz
from saddlescape.errors import InputError

_ALL = -1  # label of the mean over everything
_TOGETHER: Any = object()  # "classes" of ``spectrum``: all samples as one
_OPERATORS = {"hessian": HessianOperator, "gauss_newton": GaussNewtonOperator}
_PARTIAL = "saddlescape-lanczos-1"
_SAVE_EVERY = 25  # Lanczos steps between two savings of a run in progress


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
    kind: str = "hessian",
    forward: Callable[[nn.Module, Any], Any] | None = None,
    mode: str = "eval",
    dtype: torch.dtype | None = None,
    check: bool = True,
    method: str = "auto",
    keep_bytes: int = 2 * 1024**3,
    process_group: Any = None,
    max_samples: int | None = None,
    save_to: str | Path | None = None,
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
        kind: ``"hessian"`` or ``"gauss_newton"``.
        forward, mode, dtype, check: see ``LossFunction``; ``check``: the tests of ``LossFunction.examine``.
        method, keep_bytes, process_group: see ``HessianOperator``.
        max_samples: takes a fixed random sample of larger classes (see ``num_available``, ``sampling_error``).
        save_to: a folder that keeps each finished class and the run in progress; an interrupted call resumes from
            there if nothing has changed.
        options: ``trace_probes=``, ``refine=``, ``tol=``, ``keep_vectors=``: see ``spectrum_of``.

    Returns:
        ``{label: Spectrum}`` in the order asked for.

    Raises:
        InputError: a class that is not in the data; a loss that is not a scalar mean; dropout in train mode; random
            data; NaN weights; a model or operator with no Hessian.

    Memory: the model, one batch's activations, what ``keep_bytes`` allows, and ``lanczos_steps x P`` numbers.
    """
    whole = classes is _TOGETHER
    if kind not in _OPERATORS:
        raise InputError(f"kind must be 'hessian' or 'gauss_newton', not {kind!r}")
    samples = gather(data, check=check)
    sets = {_ALL: samples} if whole else split_by_class(samples, classes)
    function = loss_function(
        model, loss_fn, samples, batch_size=batch_size, check=check, params=params, forward=forward, mode=mode,
        dtype=dtype,
    )  # fmt: skip
    say = _printer(progress)
    found: dict[int, Spectrum] = {}
    started = time.monotonic()
    settings = repr((lanczos_steps, probes, batch_size, seed, kind, mode, max_samples, options, function.names))
    for done, (label, members) in enumerate(sets.items()):
        name = "all data" if whole else f"class {label}"
        chosen = sample(members, max_samples, seed)
        operator = _OPERATORS[kind](
            function,
            chosen,
            batch_size=batch_size,
            method=method,
            keep_bytes=keep_bytes,
            process_group=process_group,
        )
        store = None if save_to is None else _Store(Path(save_to), label, _identity(operator, settings))
        spectrum = store.finished() if store else None
        if spectrum is None:
            with held_still(function.model, mode):
                spectrum = _one(
                    operator,
                    store,
                    on_step=partial(_say_step, say, name, lanczos_steps * probes),
                    lanczos_steps=lanczos_steps,
                    probes=probes,
                    seed=seed,
                    label=None if whole else label,
                    num_available=len(members),
                    mode=mode,
                    kind=kind,
                    **options,
                )
        found[label] = spectrum
        left = (time.monotonic() - started) / (done + 1) * (len(sets) - done - 1)
        low, high = ("" if settled else " (not converged)" for settled in spectrum.converged_ends)
        figures = f"lambda_min {spectrum.lambda_min:.4g}{low}, lambda_max {spectrum.lambda_max:.4g}{high}"
        say(f"{name}: {figures}; {done + 1} of {len(sets)}, about {left:.0f} s left")
    return found


def spectrum(model: nn.Module, loss_fn: Callable[..., Any], data: Any, **options: Any) -> Spectrum:
    """The spectrum of the Hessian of the mean loss over all of ``data``.

    Arguments, errors and memory are those of ``class_spectra``, without ``classes``.
    """
    return class_spectra(model, loss_fn, data, classes=_TOGETHER, **options)[_ALL]


def _one(
    operator: HessianOperator,
    store: _Store | None,
    *,
    on_step: Callable[[int], Any],
    seed: int,
    lanczos_steps: int,
    **options: Any,
) -> Spectrum:
    loss, gradient = operator.loss_and_gradient()
    runs: list[Factorization] = store.partial(operator.like) if store else []

    def after_step(probe: int, run: Factorization) -> None:
        if run.steps % _SAVE_EVERY == 0:
            on_step(probe * lanczos_steps + run.steps)
            if store:
                store.save_partial(runs)

    try:
        spectrum = spectrum_of(
            operator,
            lanczos_steps=lanczos_steps,
            seed=seed,
            callback=after_step,
            factorizations=runs,
            num_samples=operator.num_samples,
            loss=float(loss),
            gradient_norm=length(gradient),
            normaliser=operator.normaliser,
            notes=tuple(operator.function.notes),
            **options,
        )
    except KeyboardInterrupt:
        if store:
            store.save_partial(runs)
        raise
    if store:
        store.finish(spectrum)
    return spectrum


class _Store:
    """A folder that holds finished spectra and the run in progress of each class, each marked with what it belongs
    to."""

    def __init__(self, folder: Path, label: int, identity: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = "all" if label == _ALL else f"class_{label}"
        self._whole, self._part, self._identity = folder / f"{name}.npz", folder / f"{name}.partial.npz", identity

    def finished(self) -> Spectrum | None:
        if not self._whole.is_file():
            return None
        try:
            spectrum = Spectrum.load(self._whole)
        except InputError:  # damaged: measure it again
            return None
        return spectrum if spectrum.extra.get("identity") == self._identity else None

    def finish(self, spectrum: Spectrum) -> None:
        spectrum.extra["identity"] = self._identity
        spectrum.save(self._whole)
        self._part.unlink(missing_ok=True)

    def save_partial(self, runs: list[Factorization]) -> None:
        arrays = {
            f"{i}.{key}": value.cpu().numpy() for i, run in enumerate(runs) for key, value in run.state_dict().items()
        }
        write_npz(self._part, _PARTIAL, arrays, {"identity": self._identity, "runs": len(runs)})

    def partial(self, like: Tensor) -> list[Factorization]:
        if not self._part.is_file():
            return []
        try:
            arrays, meta = read_npz(self._part, _PARTIAL)
        except InputError:
            return []
        if meta.get("identity") != self._identity:
            return []
        on_device = ("basis", "next", "residual")
        runs = []
        for i in range(meta["runs"]):
            state = {
                key.split(".", 1)[1]: torch.from_numpy(value)
                for key, value in arrays.items()
                if key.startswith(f"{i}.")
            }
            runs.append(
                Factorization.from_state_dict({k: v.to(like) if k in on_device else v for k, v in state.items()})
            )
        return runs


def _identity(operator: HessianOperator, settings: str) -> str:
    """A hash of weights, buffers, data, loss and settings: what a spectrum on disk must agree with to be used.

    A loss function has no contents that could be hashed: its value at these weights stands for it.
    """
    digest = hashlib.sha256(settings.encode())
    digest.update(float(operator.loss()).hex().encode())
    for tensor in [*operator.function.state_tensors(), *operator.samples.tensors()]:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _say_step(say: Callable[[str], Any], name: str, total: int, steps: int) -> None:
    say(f"{name}: step {steps} of {total}")


def _printer(progress: bool | Callable[[str], Any]) -> Callable[[str], Any]:
    if callable(progress):
        return progress
    if progress:
        return lambda line: print(line, file=sys.stderr, flush=True)
    return lambda line: None
