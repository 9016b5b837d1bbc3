from __future__ import annotations

import hashlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from saddlescape.errors import InputError
from saddlescape.models import ResNet, build_model

# Parameters at 1000 classes (torchvision's documentation), and tensors in the state dict with the first digits of the
# SHA-256 of "name [shape]" lines at 7 classes, taken from torchvision 0.29.1's own models, whose outputs on the same
# state dict were the same to the last bit.
ARCHITECTURES = {
    "resnet18": (11_689_512, 122, "2a3a9abd8112b2dc"),
    "resnet34": (21_797_672, 218, "8ab9bd5d22542cca"),
    "resnet50": (25_557_032, 320, "d4852e1465da1aec"),
    "resnet101": (44_549_160, 626, "569c60c266460b62"),
    "resnet152": (60_192_808, 932, "1166af7098fa7e4b"),
    "resnext50_32x4d": (25_028_904, 320, "e0e79173acd9a42f"),
}


def on_meta(name: str, num_classes: int, **options: object) -> torch.nn.Module:
    """Without memory or initialisation: only names and shapes."""
    with torch.device("meta"):
        return build_model(name, num_classes, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_and_state_dict_of_torchvision(name: str) -> None:
    count, tensors, digest = ARCHITECTURES[name]
    assert sum(p.numel() for p in on_meta(name, 1000).parameters()) == count
    state = on_meta(name, 7).state_dict()
    lines = "\n".join(f"{key} {list(value.shape)}" for key, value in state.items())
    assert len(state) == tensors
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == digest


def test_parameters_with_the_paper_s_classes_and_heads() -> None:
    assert sum(p.numel() for p in on_meta("resnet50", 8142).parameters()) == 40_190_990
    assert sum(p.numel() for p in on_meta("resnet50", 1000, head="cosine").parameters()) == 25_556_032


def literal_forward(state: dict[str, Tensor], x: Tensor, blocks: tuple[int, ...], groups: int) -> Tensor:
    """Version 1.5 of the bottleneck ResNet in evaluation mode, layer by layer from the state dict."""

    def conv_norm(conv: str, norm: str, x: Tensor, **options: int) -> Tensor:
        x = F.conv2d(x, state[f"{conv}.weight"], **options)
        mean, var, weight, bias = (state[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias)

    x = F.max_pool2d(conv_norm("conv1", "bn1", x, stride=2, padding=3).relu(), 3, stride=2, padding=1)
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            out = conv_norm(f"{name}.conv1", f"{name}.bn1", x).relu()
            out = conv_norm(f"{name}.conv2", f"{name}.bn2", out, stride=stride, padding=1, groups=groups).relu()
            out = conv_norm(f"{name}.conv3", f"{name}.bn3", out)
            if block == 0:
                x = conv_norm(f"{name}.downsample.0", f"{name}.downsample.1", x, stride=stride)
            x = (out + x).relu()
    return x.flatten(2).mean(2) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize(("name", "groups"), [("resnet50", 1), ("resnext50_32x4d", 32)])
def test_forward_against_the_layers_written_out(name: str, groups: int) -> None:
    torch.manual_seed(0)
    model = build_model(name, 5)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        model(x)  # running statistics other than 0 and 1
        model.eval()
        torch.testing.assert_close(
            model(x), literal_forward(model.state_dict(), x, (3, 4, 6, 3), groups), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 2), ("cifar", 8)])
def test_stems(stem: str, side: int) -> None:
    torch.manual_seed(0)
    model = build_model("resnet18", 5, in_channels=1, stem=stem).eval()
    sizes: list[tuple[int, ...]] = []
    model.layer4.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape)))
    with torch.no_grad():
        assert model(torch.randn(2, 1, 64, 64)).shape == (2, 5)
    assert sizes == [(2, 512, side, side)]


def test_initialisation_is_torchvisions() -> None:
    torch.manual_seed(0)
    model = build_model("resnet18", 1000)
    for name, p in model.named_parameters():
        if p.ndim == 4:
            fan_out = p.shape[0] * p[0, 0].numel()
            assert p.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05), name
        elif name == "fc.weight":
            assert p.abs().max().item() == pytest.approx(1 / math.sqrt(512), rel=1e-3)
        elif name.endswith("bn2.weight"):
            assert torch.equal(p, torch.ones_like(p))


def test_unknown_stem() -> None:
    with pytest.raises(InputError, match="unknown stem 'round'; known are imagenet, cifar"):
        build_model("resnet18", 5, stem="round")
    assert isinstance(on_meta("resnet18", 5), ResNet)
