"""Optimisers that look around before they step. Each wraps a built torch optimiser and is one itself."""

from __future__ import annotations

from saddlescape.optim.accumulation import accumulated_closure
from saddlescape.optim.asam import ASAM
from saddlescape.optim.momentum_sam import MomentumSAM
from saddlescape.optim.perturb import Perturbation
from saddlescape.optim.pgd import PerturbedGD, PGDConstants, pgd_constants
from saddlescape.optim.registry import OPTIMIZERS, build_optimizer
from saddlescape.optim.sam import SAM
from saddlescape.optim.wrapper import WrappedOptimizer

__all__ = [
    "ASAM",
    "OPTIMIZERS",
    "SAM",
    "MomentumSAM",
    "PGDConstants",
    "Perturbation",
    "PerturbedGD",
    "WrappedOptimizer",
    "accumulated_closure",
    "build_optimizer",
    "pgd_constants",
]
