"""Image classifiers with ``features(x)`` and ``head``, and their heads."""

from saddlescape.models.backbone import Backbone, load_backbone, weights_hash
from saddlescape.models.heads import (
    HEADS,
    CentroidHead,
    CosineHead,
    DisAlignCvpodsHead,
    DisAlignHead,
    HeadKind,
    PLDAHead,
    ProjectionHead,
    PrototypeHead,
    ScaledHead,
    TauNormalizedHead,
    TwoBranchHead,
    linear_map,
    make_head,
    tau_normalized,
)
from saddlescape.models.registry import build_model, model_names
from saddlescape.models.resnet import ResNet
from saddlescape.models.resnet_cifar import ResNetCifar
from saddlescape.models.small_cnn import SmallCNN

__all__ = [
    "HEADS",
    "Backbone",
    "CentroidHead",
    "CosineHead",
    "DisAlignCvpodsHead",
    "DisAlignHead",
    "HeadKind",
    "PLDAHead",
    "ProjectionHead",
    "PrototypeHead",
    "ResNet",
    "ResNetCifar",
    "ScaledHead",
    "SmallCNN",
    "TauNormalizedHead",
    "TwoBranchHead",
    "build_model",
    "linear_map",
    "load_backbone",
    "make_head",
    "model_names",
    "tau_normalized",
    "weights_hash",
]
