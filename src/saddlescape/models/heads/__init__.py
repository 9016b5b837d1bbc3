"""Classifier heads: features [N, d] -> logits [N, C]; one file each, and one line in the table of the registry."""

from saddlescape.models.heads.centroid import CentroidHead, CentroidMode
from saddlescape.models.heads.cosine import CosineHead
from saddlescape.models.heads.disalign import DisAlignCvpodsHead, DisAlignHead
from saddlescape.models.heads.linear import linear_map
from saddlescape.models.heads.plda import PLDAHead
from saddlescape.models.heads.projection import ProjectionHead, PrototypeHead
from saddlescape.models.heads.registry import HEADS, HeadKind, make_head
from saddlescape.models.heads.scaled import ScaledHead
from saddlescape.models.heads.tau_normalized import TauNormalizedHead, tau_normalized
from saddlescape.models.heads.two_branch import TwoBranchHead

__all__ = [
    "HEADS",
    "CentroidHead",
    "CentroidMode",
    "CosineHead",
    "DisAlignCvpodsHead",
    "DisAlignHead",
    "HeadKind",
    "PLDAHead",
    "ProjectionHead",
    "PrototypeHead",
    "ScaledHead",
    "TauNormalizedHead",
    "TwoBranchHead",
    "linear_map",
    "make_head",
    "tau_normalized",
]
