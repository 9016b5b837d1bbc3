"""Heads by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import nn

from saddlescape.errors import InputError
from saddlescape.models.heads.centroid import CentroidHead
from saddlescape.models.heads.cosine import CosineHead
from saddlescape.models.heads.disalign import DisAlignCvpodsHead, DisAlignHead
from saddlescape.models.heads.plda import PLDAHead
from saddlescape.models.heads.projection import ProjectionHead, PrototypeHead
from saddlescape.models.heads.scaled import ScaledHead
from saddlescape.models.heads.tau_normalized import TauNormalizedHead
from saddlescape.models.heads.two_branch import TwoBranchHead

HeadKind = Literal[
    "linear", "cosine", "lws", "disalign", "disalign-cvpods", "tau-norm", "ncm", "plda", "glmc", "contrastive", "bcl"
]

# A head is built from (in_features, num_classes) alone, so that a checkpoint needs no more than its name.
HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": nn.Linear,
    "cosine": CosineHead,
    "lws": ScaledHead,
    "disalign": DisAlignHead,
    "disalign-cvpods": DisAlignCvpodsHead,
    "tau-norm": TauNormalizedHead,
    "ncm": CentroidHead,
    "plda": PLDAHead,
    "glmc": TwoBranchHead,
    "contrastive": ProjectionHead,
    "bcl": PrototypeHead,
}


def make_head(kind: HeadKind, in_features: int, num_classes: int) -> nn.Module:
    """A fresh head of this kind (a key of ``HEADS``): features [N, in_features] -> logits [N, num_classes].

    Raises:
        InputError: an unknown kind, or fewer than two classes.
    """
    if num_classes < 2:
        raise InputError(f"num_classes is {num_classes}; a classifier has at least two classes")
    if kind not in HEADS:
        raise InputError(f"unknown head {kind!r}; known are {', '.join(HEADS)}")
    return HEADS[kind](in_features, num_classes)
