"""What holds of every model (with every head: heads/test_registry.py): two derivatives, memory formats, mistakes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from saddlescape.errors import InputError
from saddlescape.models import SmallCNN, build_model

SMALL: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "smallcnn": ({"in_channels": 1}, (3, 1, 8, 8)),
    "resnet20": ({}, (3, 3, 16, 16)),
    "resnet18": ({"stem": "cifar"}, (3, 3, 16, 16)),
}
every_model = pytest.mark.parametrize("name", SMALL)


def build(name: str, head: str = "linear") -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    options, shape = SMALL[name]
    return build_model(name, 4, head=head, **options), torch.randn(shape)  # type: ignore[arg-type]


def test_small_cnn_is_small() -> None:
    model = build_model("smallcnn", 10, in_channels=1)
    assert isinstance(model, SmallCNN)
    # 9*16 + 2*16 + 9*16*32 + 2*32 + 9*32*64 + 2*64 + 65*10
    assert sum(p.numel() for p in model.parameters()) == 24_058


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("smallcnn", "linear"),
        ("smallcnn", "cosine"),
        ("resnet20", "linear"),
        ("resnet20", "cosine"),
        ("resnet18", "linear"),
    ],
)
def test_double_backward_is_the_derivative_of_the_gradient(name: str, head: str) -> None:
    """Hessian-vector product in float64 against a central difference, too short to cross a kink of a ReLU."""
    model, x = build(name, head)
    model, x = model.double().eval(), x.double()[..., :8, :8]
    y = torch.tensor([0, 1, 3])
    params = list(model.parameters())
    vector = [torch.randn_like(p) for p in params]
    length = sum(v.square().sum() for v in vector).sqrt()
    vector = [v / length for v in vector]

    def gradient(create_graph: bool = False) -> tuple[torch.Tensor, ...]:
        loss = nn.functional.cross_entropy(model(x), y)
        return torch.autograd.grad(loss, params, create_graph=create_graph)

    @torch.no_grad()
    def move(by: float) -> None:
        for p, v in zip(params, vector, strict=True):
            p.add_(v, alpha=by)

    product = torch.autograd.grad(gradient(create_graph=True), params, grad_outputs=vector)
    step = 1e-6
    move(step)
    above = gradient()
    move(-2 * step)
    below = gradient()
    difference = [(a - b) / (2 * step) for a, b in zip(above, below, strict=True)]
    error = sum((d - h).square().sum() for d, h in zip(difference, product, strict=True)).sqrt()
    assert error < 1e-4 * sum(h.square().sum() for h in product).sqrt()


@every_model
def test_channels_last_computes_and_saves_the_same(name: str) -> None:
    model, x = build(name)
    model.eval()
    expected = model(x)
    model = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-4)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    other, _ = build(name)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_state_dict(load(save(state)))
    torch.testing.assert_close(other.eval()(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet23", {}, "unknown model 'resnet23'; did you mean resnet"),
        ("densenet", {}, "unknown model 'densenet'"),
        ("zzz", {}, "unknown model 'zzz'; known are smallcnn, resnet20"),
        ("resnet32", {"stem": "cifar"}, "model 'resnet32' has no option 'stem'; it has none"),
        ("resnet50", {"steam": "cifar"}, "model 'resnet50' has no option 'steam'; it has stem"),
        ("smallcnn", {"head": "round"}, "unknown head 'round'"),
        ("smallcnn", {"num_classes": 1}, "num_classes is 1"),
        ("smallcnn", {"in_channels": 0}, "in_channels is 0"),
    ],
)
def test_mistakes_are_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_model(name, **{"num_classes": 4, **options})
