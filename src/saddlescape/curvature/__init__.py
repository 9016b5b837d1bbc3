"""Class-wise curvature: Hessian-vector products, Lanczos, spectra with their errors, SAM's gain, loss surfaces."""

from __future__ import annotations

from saddlescape.curvature.classwise import class_spectra, spectrum
from saddlescape.curvature.extremes import Eigenpair, Extremes, extreme_eigenpairs, extremes
from saddlescape.curvature.gain import SamGain, rho_threshold, sam_gain
from saddlescape.curvature.gauss_newton import GaussNewtonOperator
from saddlescape.curvature.lanczos import Factorization, FunctionOperator, lanczos
from saddlescape.curvature.operator import HessianOperator, build_operator, hessian_vector_product
from saddlescape.curvature.spectrum import Spectrum, spectrum_of
from saddlescape.curvature.surface import Surface, loss_surface
from saddlescape.curvature.trace import TraceEstimate, trace
from saddlescape.curvature.tracking import CurvatureTracker, TrackPoint

__all__ = [
    "CurvatureTracker",
    "Eigenpair",
    "Extremes",
    "Factorization",
    "FunctionOperator",
    "GaussNewtonOperator",
    "HessianOperator",
    "SamGain",
    "Spectrum",
    "Surface",
    "TraceEstimate",
    "TrackPoint",
    "build_operator",
    "class_spectra",
    "extreme_eigenpairs",
    "extremes",
    "hessian_vector_product",
    "lanczos",
    "loss_surface",
    "rho_threshold",
    "sam_gain",
    "spectrum",
    "spectrum_of",
    "trace",
]
