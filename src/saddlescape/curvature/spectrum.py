"""What was measured of one spectrum: every figure with its error, and on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saddlescape import disk
from saddlescape.curvature.density import negative_mass, quadrature
from saddlescape.curvature.extremes import certify, extremes, nonconvexity
from saddlescape.curvature.guards import exactly, random_vector
from saddlescape.curvature.lanczos import Factorization, LinearOperator, lanczos
from saddlescape.curvature.operator import HessianOperator
from saddlescape.curvature.trace import deflated
from saddlescape.density import density
from saddlescape.errors import InputError

FORMAT = "saddlescape-spectrum-1"


@dataclass(frozen=True)
class Spectrum:
    """The spectrum of one symmetric operator, as far as Lanczos saw it.

    ``ritz_values``, ``ritz_weights`` float64 [probes, steps]: nodes and weights of the quadrature, ascending, weights
    summing to 1 per probe. A probe whose space was exhausted early repeats its last value with weight 0;
    ``steps_taken`` [probes] counts the real ones and ``exhausted`` [probes] which ones are exact.

    ``lambda_min``, ``lambda_max``: Rayleigh quotients of vectors, so ``lambda_min`` is never below the true smallest
    eigenvalue. ``residuals`` = (of lambda_min, of lambda_max), true ``||Hv - theta v||``: some eigenvalue lies within.
    ``converged``: both residuals are at most ``tol`` of the value, or ``converged_ends`` for each.
    ``rounding``: what rounding may have done to a value, which is off by residual + rounding;
    ``is_saddle_proof`` needs no convergence.
    ``trace`` with standard error ``trace_stderr``.
    ``vectors`` [2, P] (min, max) in memory only, where they were asked for; not saved.
    """

    ritz_values: Tensor
    ritz_weights: Tensor
    num_params: int
    num_samples: int
    lambda_min: float
    lambda_max: float
    residuals: tuple[float, float]
    trace: float
    trace_stderr: float
    steps_taken: tuple[int, ...]
    exhausted: tuple[bool, ...]
    tol: float
    rounding: float
    products: int
    label: int | None = None
    loss: float | None = None
    gradient_norm: float | None = None
    num_available: int | None = None
    mode: str = "eval"
    kind: str = "hessian"
    dtype: str = "float32"
    seed: int = 0
    normaliser: str = "samples"
    notes: tuple[str, ...] = ()
    vectors: Tensor | None = None

    @property
    def nonconvexity(self) -> float:
        """``|lambda_min / lambda_max|``. Read it beside both values.

        Infinite where nothing is positive beyond rounding, NaN where nothing is negative either.
        """
        return nonconvexity(self.lambda_min, self.lambda_max, self.rounding)

    @property
    def converged_ends(self) -> tuple[bool, bool]:
        """Whether lambda_min, and whether lambda_max, is settled to ``tol``."""
        low, high = (
            residual <= max(self.tol * abs(value), self.rounding / 10)
            for value, residual in zip((self.lambda_min, self.lambda_max), self.residuals, strict=True)
        )
        return low, high

    @property
    def converged(self) -> bool:
        """Whether both extremes are settled to ``tol``."""
        return all(self.converged_ends)

    @property
    def is_saddle_proof(self) -> bool:
        """A vector with v'Hv < 0 beyond rounding was found: proof of negative curvature, converged or not."""
        return self.lambda_min < -self.rounding

    @property
    def negative_mass(self) -> tuple[float, float]:
        """Interval (99 %) for the share of negative eigenvalues; see ``mass_below`` for other levels.

        Eigenvalues that rounding cannot separate from zero count as not negative.
        """
        return self.mass_below(-self.rounding)

    def mass_below(self, level: float) -> tuple[float, float]:
        """Interval (99 %) for the share of eigenvalues below ``level``."""
        values = [row[:n] for row, n in zip(self.ritz_values, self.steps_taken, strict=True)]
        weights = [row[:n] for row, n in zip(self.ritz_weights, self.steps_taken, strict=True)]
        return negative_mass(values, weights, self.exhausted, self.num_params, level)

    def density(self, grid: Any = None, sigma: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(grid, density), float64, integrating to 1; see ``saddlescape.density`` for the bandwidth."""
        return density(self.ritz_values, self.ritz_weights, grid=grid, sigma=sigma)

    def summary(self) -> dict[str, Any]:
        """The figures as plain values, fit for JSON."""
        low, high = self.converged_ends
        return {
            "label": self.label,
            "lambda_min": self.lambda_min,
            "lambda_max": self.lambda_max,
            "nonconvexity": self.nonconvexity if np.isfinite(self.nonconvexity) else None,
            "residual_min": self.residuals[0],
            "residual_max": self.residuals[1],
            "rounding": self.rounding,
            "converged_min": low,
            "converged_max": high,
            "negative_curvature_proved": self.is_saddle_proof,
            "trace": self.trace,
            "trace_stderr": self.trace_stderr,
            "negative_mass": list(self.negative_mass),
            "num_samples": self.num_samples,
            "num_available": self.num_available,
            "num_params": self.num_params,
            "loss": self.loss,
            "gradient_norm": self.gradient_norm,
            "steps": max(self.steps_taken),
            "products": self.products,
            "kind": self.kind,
            "mode": self.mode,
            "dtype": self.dtype,
            "notes": list(self.notes),
        }

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` with the arrays and one JSON text ``meta``; written whole or not at all."""
        meta = {name: getattr(self, name) for name in _META}
        disk.write_npz(path, FORMAT, {name: getattr(self, name).numpy() for name in _ARRAYS}, meta)

    @classmethod
    def load(cls, path: str | Path) -> Spectrum:
        """Read what ``save`` wrote; raises ``InputError`` for anything else."""
        arrays, meta = disk.read_npz(path, FORMAT)
        try:
            known: dict[str, Any] = {name: torch.from_numpy(arrays[name]) for name in _ARRAYS}
            known |= {name: tuple(meta[name]) if isinstance(meta[name], list) else meta[name] for name in _META}
            return cls(**known)
        except (KeyError, TypeError) as problem:
            raise InputError(f"{path} is not a complete spectrum file: {problem}") from None


_ARRAYS = ("ritz_values", "ritz_weights")
_META = [field.name for field in fields(Spectrum) if field.name not in (*_ARRAYS, "vectors")]


@exactly
def spectrum_of(
    operator: LinearOperator,
    *,
    lanczos_steps: int = 100,
    probes: int = 1,
    seed: int = 0,
    tol: float = 1e-4,
    trace_probes: int = 4,
    refine: int = 0,
    keep_vectors: bool = False,
    callback: Callable[[int, Factorization], Any] | None = None,
    factorizations: list[Factorization] | None = None,
    **facts: Any,
) -> Spectrum:
    """The ``Spectrum`` of any symmetric operator: ``probes`` Lanczos runs of ``lanczos_steps`` steps from random signs.

    Then one certifying product for each extreme, and ``trace_probes`` products for the trace (0: read the trace from
    the runs alone). ``refine``: spend up to so many products more, by thick restart, on extremes that have not
    converged. ``callback(probe, factorization)`` after each step. ``factorizations``: runs already begun, to go on
    from; they are filled in place, so that the caller can save them when interrupted. ``facts`` are stored as they
    are, beside those of the operator's own (``HessianOperator.facts``).
    """
    if probes < 1:
        raise InputError(f"probes must be at least 1, not {probes}")
    runs = factorizations if factorizations is not None else []
    best_low: tuple[float, Tensor] | None = None
    best_high: tuple[float, Tensor] | None = None
    for probe in range(probes):
        if probe == len(runs):
            start = random_vector(operator.dim, operator.like, seed=seed, stream=probe, kind="rademacher")
            runs.append(Factorization(start, lanczos_steps))
        run = lanczos(
            operator,
            runs[probe].residual,
            lanczos_steps,
            state=runs[probe],
            callback=None if callback is None else partial(callback, probe),
        )
        values, columns = run.eigen()
        low, high = float(values[0]), float(values[-1])
        if best_low is None or low < best_low[0]:
            best_low = low, run.ritz_vectors(columns[:, :1])[0]
        if best_high is None or high > best_high[0]:
            best_high = high, run.ritz_vectors(columns[:, -1:])[0]
    assert best_low is not None and best_high is not None
    scale = max(abs(best_low[0]), abs(best_high[0]))
    pair_low, pair_high = certify(operator, best_low[1], tol, scale), certify(operator, best_high[1], tol, scale)
    products = sum(run.steps for run in runs) + 2
    rounding = max(pair_low.rounding, pair_high.rounding)
    if refine and not (pair_low.converged and pair_high.converged):
        more = extremes(
            operator, tol=tol, basis=min(lanczos_steps, 60), max_products=refine, factorization=runs[0], seed=seed
        )
        products += more.products
        pair_low = min(pair_low, more.smallest[0], key=lambda pair: pair.value)
        pair_high = max(pair_high, more.largest[0], key=lambda pair: pair.value)

    value, error = _trace_from_runs(runs, operator.dim)
    whole = runs[0].exhausted and runs[0].steps == operator.dim
    if whole:
        value, error = float(runs[0].alphas.sum()), 0.0
    elif trace_probes:
        estimate = deflated(operator, runs[0], trace_probes, seed=seed)
        value, error, products = estimate.value, estimate.stderr, products + estimate.products

    nodes = [quadrature(run) for run in runs]
    width = max(run.steps for run in runs)
    return Spectrum(
        ritz_values=torch.stack([_padded(theta, width, float(theta[-1])) for theta, _ in nodes]),
        ritz_weights=torch.stack([_padded(weight, width, 0.0) for _, weight in nodes]),
        num_params=operator.dim,
        lambda_min=pair_low.value,
        lambda_max=pair_high.value,
        residuals=(pair_low.residual, pair_high.residual),
        trace=value,
        trace_stderr=error,
        steps_taken=tuple(run.steps for run in runs),
        exhausted=tuple(run.exhausted for run in runs),
        tol=tol,
        rounding=rounding,
        products=products,
        dtype=str(operator.like.dtype).removeprefix("torch."),
        seed=seed,
        vectors=torch.stack([pair_low.vector, pair_high.vector]) if keep_vectors else None,
        **{"num_samples": 0, **(operator.facts() if isinstance(operator, HessianOperator) else {}), **facts},
    )


def _trace_from_runs(runs: list[Factorization], dim: int) -> tuple[float, float]:
    """Hutchinson with the probes of the runs: ``P q_1'H q_1 = P alpha_1``; error from ``||H q_1||``."""
    values = [dim * float(run.alphas[0]) for run in runs]
    squares = [dim * float(run.alphas[0] ** 2 + run.betas[0] ** 2) for run in runs]
    return sum(values) / len(runs), float(np.sqrt(2 * sum(squares))) / len(runs)


def _padded(row: Tensor, width: int, value: float) -> Tensor:
    return torch.cat([row, torch.full((width - len(row),), value, dtype=torch.float64)])
