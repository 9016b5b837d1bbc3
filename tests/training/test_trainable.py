"""Which parameters a stage trains, at which rate, and how a frozen backbone's layers behave."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from saddlescape.errors import InputError
from saddlescape.losses.registry import build_loss
from saddlescape.models import build_model
from saddlescape.records.config import Stage
from saddlescape.training.objective import Classify
from saddlescape.training.objectives import OBJECTIVES
from saddlescape.training.trainable import is_frozen, own_names, parameter_groups, select_trainable


def model(head: str = "linear") -> Any:
    return build_model("smallcnn", 4, head=head, in_channels=1)  # type: ignore[arg-type]


def objective(**options: Any) -> Classify:
    return Classify(build_loss("ce", [8, 4, 2, 1]), **options)


def gradients_on(network: nn.Module) -> set[str]:
    return {name for name, parameter in own_names(network).items() if parameter.requires_grad}


def test_the_head_is_called_head_whatever_the_network_calls_it() -> None:
    for name, network in (("smallcnn", model()), ("resnet18", build_model("resnet18", 4))):
        names = own_names(network)
        assert {"head.weight", "head.bias"} <= set(names), name
        assert len(names) == len(list(network.parameters()))
        assert not [one for one in names if one.startswith(("linear.", "fc."))]


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("head", {"head.linear.weight", "head.linear.bias", "head.scale"}),
        ("head.scale", {"head.scale"}),
        ("head.linear, head.scale", {"head.linear.weight", "head.linear.bias", "head.scale"}),
        ("none", set()),
    ],
)
def test_names_and_their_beginnings(spec: str, wanted: set[str]) -> None:
    network = model("lws")
    chosen = select_trainable(network, spec)
    assert {name for name, _ in chosen} == wanted == gradients_on(network)
    assert is_frozen(spec)


def test_all_backbone_and_back_again() -> None:
    """Gradients that a stage before switched off are on again where the next one wants them."""
    network = model()
    every = set(own_names(network))
    select_trainable(network, "none")
    select_trainable(network, "backbone")
    assert gradients_on(network) == {name for name in every if not name.startswith("head.")}
    select_trainable(network, "backbone,head.bias")
    assert every - gradients_on(network) == {"head.weight"}
    select_trainable(network, "all")
    assert gradients_on(network) == every
    assert not any(is_frozen(spec) for spec in ("all", "backbone", "conv1", "head,conv1", "header"))


@pytest.mark.parametrize("spec", ["head.scale", "hea", "conv", "head.", ""])
def test_a_name_that_nothing_begins_with_is_refused(spec: str) -> None:
    with pytest.raises(InputError, match=r"no parameter is called .*those of the head are head.weight, head.bias"):
        select_trainable(model(), spec)


def test_rates_by_name_make_groups() -> None:
    network = model("lws")
    stage = Stage(trainable="head", lr_factors={"head.linear": 0.2})
    groups = parameter_groups(stage, network, objective())
    by_factor = {group.get("lr_factor", 1.0): group["params"] for group in groups}
    assert by_factor[1.0] == [network.head.scale]
    assert by_factor[0.2] == [network.head.linear.weight, network.head.linear.bias]
    with pytest.raises(InputError, match="no trained parameter is called 'conv1'"):
        parameter_groups(Stage(trainable="head", lr_factors={"conv1": 0.2}), network, objective())


def test_the_objective_s_own_parameters_are_trained_too() -> None:
    network = model()
    own = OBJECTIVES["dro-lt"](build_loss("ce", [8, 4, 2, 1]), class_counts=[8, 4, 2, 1], model=network)
    groups = parameter_groups(Stage(trainable="backbone"), network, own)
    assert groups[-1]["params"] == [own.robust.eps]  # type: ignore[union-attr]
    assert not any(parameter is network.head.weight for group in groups for parameter in group["params"])


def test_a_stage_that_trains_nothing_still_has_an_optimiser() -> None:
    groups = parameter_groups(Stage(trainable="none"), model("ncm"), objective())
    optimizer = torch.optim.SGD(groups, lr=0.1)
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
