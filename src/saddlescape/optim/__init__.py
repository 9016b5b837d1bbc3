"""Optimisers that look around before they step. Each wraps a built torch optimiser and is one itself."""

from __future__ import annotations

from saddlescape.optim.accumulation import accumulated_closure
from saddlescape.optim.asam import ASAM
from saddlescape.optim.class_conditional_sam import ClassConditionalSAM
from saddlescape.optim.focal_sam import FocalSAM
from saddlescape.optim.imbsam import ImbSAM
from saddlescape.optim.momentum_sam import MomentumSAM
from saddlescape.optim.partial_sam import PartialSAM
from saddlescape.optim.perturb import Perturbation
from saddlescape.optim.pgd import PerturbedGD
from saddlescape.optim.registry import NEED_CLASS_COUNTS, OPTIMIZERS, build_optimizer
from saddlescape.optim.sam import SAM
from saddlescape.optim.split import SplitOptimizer
from saddlescape.optim.sse_sam import SSESAM
from saddlescape.optim.wrapper import WrappedOptimizer

__all__ = [
    "ASAM",
    "NEED_CLASS_COUNTS",
    "OPTIMIZERS",
    "SAM",
    "SSESAM",
    "ClassConditionalSAM",
    "FocalSAM",
    "ImbSAM",
    "MomentumSAM",
    "PartialSAM",
    "Perturbation",
    "PerturbedGD",
    "SplitOptimizer",
    "WrappedOptimizer",
    "accumulated_closure",
    "build_optimizer",
]
