"""Classifier heads: features [N, d] -> logits [N, C]; one file each, and one line in the table of the registry."""

from saddlescape.models.heads.alias import HeadAlias
from saddlescape.models.heads.centroid import CentroidHead, CentroidMode
from saddlescape.models.heads.cosine import CosineHead
from saddlescape.models.heads.disalign import DisAlignHead
from saddlescape.models.heads.disalign_cvpods import DisAlignCvpodsHead
from saddlescape.models.heads.linear import LinearHead, linear_map
from saddlescape.models.heads.plda import PLDAHead
from saddlescape.models.heads.projection import ProjectionHead
from saddlescape.models.heads.prototype import PrototypeHead
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
    "HeadAlias",
    "HeadKind",
    "LinearHead",
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
