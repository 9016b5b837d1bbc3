"""Every head with every kind of network: built by name, saved, loaded, replaced."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from saddlescape.errors import InputError
from saddlescape.models import HEADS, CentroidHead, HeadKind, PLDAHead, TwoBranchHead, build_model, make_head

MODELS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "smallcnn": ({"in_channels": 1}, (3, 1, 8, 8)),
    "resnet20": ({}, (3, 3, 8, 8)),
    "resnet18": ({"stem": "cifar"}, (2, 3, 8, 8)),
}
every_head = pytest.mark.parametrize("kind", HEADS)


def test_the_type_lists_what_the_table_has() -> None:
    assert set(get_args(HeadKind)) == set(HEADS)


@every_head
@pytest.mark.parametrize("name", MODELS)
def test_every_network_takes_every_head(kind: HeadKind, name: str) -> None:
    torch.manual_seed(0)
    options, shape = MODELS[name]
    model, x = build_model(name, 4, head=kind, **options), torch.randn(shape)
    assert type(model.head) is type(make_head(kind, 8, 4))
    model.eval()
    z, features = model(x), model.features(x)
    assert z.shape == (shape[0], 4) and features.shape == (shape[0], model.feature_dim)
    assert torch.isfinite(z).all()
    assert torch.equal(z, model.head(features))


@every_head
def test_the_state_dict_is_all_there_is_and_goes_through_safetensors(kind: HeadKind) -> None:
    torch.manual_seed(0)
    head, h = make_head(kind, 6, 4).eval(), torch.randn(20, 6)
    with torch.no_grad():
        for tensor in head.parameters():
            tensor.normal_()
    if isinstance(head, CentroidHead):
        head.set_mode("raw")
    if isinstance(head, CentroidHead | PLDAHead):
        head.fit(h, torch.arange(20) % 3)
    other = make_head(kind, 6, 4).eval()
    assert not torch.equal(other(h), head(h))
    other.load_state_dict(load(save(head.state_dict())))
    assert torch.equal(other(h), head(h))


@every_head
def test_a_head_of_another_kind_takes_the_place(kind: HeadKind) -> None:
    model = build_model("smallcnn", 4, in_channels=1).eval()
    before = [name for name in model.state_dict() if not name.startswith("linear")]
    model.head = make_head(kind, model.feature_dim, 7).eval()
    assert model(torch.randn(3, 1, 8, 8)).shape == (3, 7)
    assert [name for name in model.state_dict() if not name.startswith("linear")] == before


@every_head
def test_computed_twice_differentiable(kind: HeadKind) -> None:
    torch.manual_seed(0)
    head = make_head(kind, 3, 4).double().eval()
    h = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    # The wide layers of the projections have no part in the logits.
    parameters = {name: p.detach().requires_grad_() for name, p in head.named_parameters() if p.numel() <= 12}

    def logits(h: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(head, dict(zip(parameters, values, strict=True)), (h,))

    assert torch.autograd.gradcheck(logits, (h, *parameters.values()))
    assert torch.autograd.gradgradcheck(logits, (h, *parameters.values()))


@every_head
def test_huge_features_give_no_nan(kind: HeadKind) -> None:
    torch.manual_seed(0)
    head = make_head(kind, 6, 4).eval()
    assert not torch.isnan(head(1e15 * torch.randn(5, 6))).any()


def test_which_heads_a_network_initialises() -> None:
    """Kaiming for the linear head and GLMC's layers, as their codes have it; DisAlign's 0.1 has to survive."""
    torch.manual_seed(0)
    for kind in ("disalign-cvpods", "contrastive"):
        model = build_model("resnet20", 10, head=kind)  # type: ignore[arg-type]
        bound = 1 / 64**0.5  # of nn.Linear's own uniform initialisation
        assert model.head.linear.weight.abs().max() <= bound
    assert torch.equal(
        build_model("resnet20", 10, head="disalign-cvpods").head.confidence.weight, torch.full((1, 64), 0.1)
    )
    for layer in (build_model("resnet20", 10).head, *build_model("resnet20", 10, head="glmc").head.children()):
        assert isinstance(layer, nn.Linear)
        expected = (2 / layer.in_features) ** 0.5
        assert 0.85 * expected < layer.weight.std() < 1.15 * expected


def test_sizes_of_the_networks_of_glmc() -> None:
    def count(model: nn.Module) -> int:
        return sum(p.numel() for p in model.parameters())

    model = build_model("resnet32-wide", 10, head="glmc")
    assert isinstance(model.head, TwoBranchHead)
    assert model.feature_dim == 256
    assert round(count(model) / 1e6, 2) == 7.44
    # Convolutions and their norms by hand: stem, 10 of 64, then 1 + 9 of 128 and of 256; then both classifiers, P, Q.
    convolutions = 9 * (3 * 64 + 10 * 64 * 64 + 64 * 128 + 9 * 128 * 128 + 128 * 256 + 9 * 256 * 256)
    norms = 2 * (11 * 64 + 10 * 128 + 10 * 256)
    assert count(model) == convolutions + norms + 2 * 2570 + (256 + 1) * 128 + (128 + 1) * 128

    model = build_model("resnet34-cifar", 100)
    assert model.feature_dim == 512
    stem = 64 * 3 * 9  # in place of 64 * 3 * 49
    assert count(model) == 21_797_672 - (64 * 3 * 49 - stem) - 900 * 513  # torchvision's resnet34 has 1000 classes
    state = model.state_dict()
    plain = build_model("resnet34", 100, stem="cifar").state_dict()
    assert {name: t.shape for name, t in state.items()} == {name: t.shape for name, t in plain.items()}
    x = torch.zeros(1, 3, 32, 32)
    assert model.eval().maxpool(model.conv1(x)).shape == (1, 64, 32, 32)


def test_mistakes_are_one_line() -> None:
    with pytest.raises(InputError, match=r"unknown head 'lsw'; known are linear, cosine, lws, .*contrastive, bcl"):
        make_head("lsw", 5, 3)  # type: ignore[arg-type]
    for kind in HEADS:
        with pytest.raises(InputError, match="num_classes is 1"):
            make_head(kind, 5, 1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="model 'resnet34-cifar' has no option 'stem'; it has none"):
        build_model("resnet34-cifar", 10, stem="imagenet")
