from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from saddlescape.models import build_model


def parameters(*arguments: object, **options: object) -> int:
    return sum(p.numel() for p in build_model(*arguments, **options).parameters())  # type: ignore[arg-type]


def test_parameter_counts() -> None:
    assert parameters("resnet32", 10) == 464_154
    assert parameters("resnet32", 100) == 470_004
    assert parameters("resnet32", 10, head="cosine") == 464_144
    assert parameters("resnet32", 100, head="cosine") == 469_904
    # He et al. 2016, table 6: 0.27, 0.46, 0.66 and 0.85 million.
    for depth, millions in ((20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)):
        assert round(parameters(f"resnet{depth}", 10) / 1e6, 2) == millions


def literal_forward(state: dict[str, Tensor], x: Tensor, blocks: int) -> Tensor:
    """The architecture of He et al., section 4.2, in evaluation mode, layer by layer from the state dict."""

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        x = (x - mean.view(-1, 1, 1)) / (var.view(-1, 1, 1) + 1e-5).sqrt()
        return x * state[f"{name}.weight"].view(-1, 1, 1) + state[f"{name}.bias"].view(-1, 1, 1)

    x = norm("bn1", F.conv2d(x, state["conv1.weight"], padding=1)).relu()
    for stage in (1, 2, 3):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            out = norm(f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)).relu()
            out = norm(f"{name}.bn2", F.conv2d(out, state[f"{name}.conv2.weight"], padding=1))
            if stride == 2:
                quarter = x.shape[1] // 2
                zeros = torch.zeros(len(x), quarter, *out.shape[2:], dtype=x.dtype)
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
            x = (out + x).relu()
    return x.flatten(2).mean(2) @ state["linear.weight"].T + state["linear.bias"]


def test_forward_against_the_layers_written_out() -> None:
    torch.manual_seed(0)
    model = build_model("resnet32", 10).double()
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        model(x)  # running statistics other than 0 and 1
        model.eval()
        torch.testing.assert_close(model(x), literal_forward(model.state_dict(), x, 5), rtol=1e-9, atol=1e-9)


def test_initialisation_is_kaiming_normal_fan_in_and_leaves_the_cosine_head() -> None:
    torch.manual_seed(0)
    model = build_model("resnet32", 100)
    for name, p in model.named_parameters():
        if p.ndim >= 2 and p.numel() > 2000:
            fan_in = p[0].numel()
            assert p.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.06), name
        elif "bn" in name:
            assert torch.equal(p, torch.ones_like(p) if name.endswith("weight") else torch.zeros_like(p))
    cosine = build_model("resnet32", 10, head="cosine")
    torch.testing.assert_close(cosine.head.weight.norm(dim=0), torch.ones(10))


def test_images_of_other_sizes_and_channels() -> None:
    model = build_model("resnet20", 4, in_channels=1).eval()
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 4)
    assert model(torch.randn(2, 1, 48, 40)).shape == (2, 4)
