"""Image classifiers with ``features(x)`` and ``head``, and their heads."""

from saddlescape.models.heads import CosineHead, LinearHead, make_head
from saddlescape.models.registry import build_model, model_names
from saddlescape.models.resnet import ResNet
from saddlescape.models.resnet_cifar import ResNetCifar
from saddlescape.models.small_cnn import SmallCNN
from saddlescape.models.timm_models import TimmModel

__all__ = [
    "CosineHead",
    "LinearHead",
    "ResNet",
    "ResNetCifar",
    "SmallCNN",
    "TimmModel",
    "build_model",
    "make_head",
    "model_names",
]
