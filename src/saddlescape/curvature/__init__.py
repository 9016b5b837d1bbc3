"""Class-wise curvature: Hessian-vector products, Lanczos, spectra with their errors, SAM's gain, loss surfaces."""

from __future__ import annotations

from saddlescape.curvature.classwise import class_spectra
from saddlescape.curvature.extremes import extreme_eigenpairs, extremes
from saddlescape.curvature.gauss_newton import GaussNewtonOperator
from saddlescape.curvature.lanczos import Factorization, FunctionOperator, lanczos
from saddlescape.curvature.operator import HessianOperator, build_operator, hessian_vector_product
from saddlescape.curvature.spectrum import Spectrum, spectrum, spectrum_of
from saddlescape.curvature.trace import TraceEstimate, trace

__all__ = [
    "Factorization",
    "FunctionOperator",
    "GaussNewtonOperator",
    "HessianOperator",
    "Spectrum",
    "TraceEstimate",
    "build_operator",
    "class_spectra",
    "extreme_eigenpairs",
    "extremes",
    "hessian_vector_product",
    "lanczos",
    "spectrum",
    "spectrum_of",
    "trace",
]
