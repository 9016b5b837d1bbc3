"""Words to optimisers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from saddlescape.errors import InputError
from saddlescape.optim import (
    ASAM,
    NEED_CLASS_COUNTS,
    OPTIMIZERS,
    SAM,
    SSESAM,
    ClassConditionalSAM,
    FocalSAM,
    ImbSAM,
    MomentumSAM,
    PartialSAM,
    PerturbedGD,
    SplitOptimizer,
    build_optimizer,
)

KINDS = {
    "sam": SAM,
    "asam": ASAM,
    "sam-on": SAM,
    "momentum-sam": MomentumSAM,
    "pgd": PerturbedGD,
    "imbsam": ImbSAM,
    "focal-sam": FocalSAM,
    "cc-sam": ClassConditionalSAM,
    "partial-sam": PartialSAM,
    "sse-sam": SSESAM,
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 2)


def test_every_word_builds_its_class() -> None:
    model = Net()
    assert set(KINDS) | {"sgd"} == set(OPTIMIZERS)
    for name, kind in KINDS.items():
        base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        options = {"t_thr": 5} if name == "pgd" else {}
        for counts in ([30, 3],) if name in NEED_CLASS_COUNTS else ([30, 3], None):
            optimizer = build_optimizer(
                base, name, rho=0.3, model=model, class_counts=counts, clip_grad_norm=1.0, **options
            )
            assert type(optimizer) is kind
            assert optimizer.per_sample == isinstance(optimizer, SplitOptimizer) == (name in NEED_CLASS_COUNTS)
            assert optimizer.param_groups[0]["rho"] == 0.3
            assert optimizer.clip_grad_norm == 1.0
    assert build_optimizer(torch.optim.SGD(model.parameters(), lr=0.1), "sam-on", model=model).layers == "norm"
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    conditional = build_optimizer(base, "cc-sam", model=model, class_counts=[30, 3])
    assert conditional.head is model.head
    assert base.param_groups[0]["rho"] == 1e-6
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    assert build_optimizer(base, "sgd", rho=0.3, model=model, class_counts=[30, 3]) is base
    assert build_optimizer(base, "sgd", rho=0.3, model=model) is base
    assert build_optimizer(base, "sam", model=model).param_groups[0]["rho"] == 0.05


def test_unknown_words_are_one_line() -> None:
    base = torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1)
    for call, words in (
        (lambda: build_optimizer(base, "sma"), "known are sgd, sam"),
        (lambda: build_optimizer(base, "pgd"), "give rho="),
        (lambda: build_optimizer(base, "sam", radius=3), "radius"),
        (lambda: build_optimizer(base, "pgd", rho=0.1), "t_thr"),
        (lambda: build_optimizer(base, "imbsam"), "give class_counts="),
        (lambda: build_optimizer(base, "focal-sam", class_counts=[30, 3], lamda=1), "lamda"),
        (lambda: build_optimizer(base, "imbsam", class_counts=[30, 0]), "class 1 has no training images"),
        (lambda: build_optimizer(base, "cc-sam", class_counts=[30, 3], model=nn.Linear(3, 2)), "a .head"),
        (lambda: build_optimizer(base, "sam-on"), "needs model="),
        (lambda: build_optimizer(base, "sam-on", model=nn.Linear(3, 2)), "no normalisation layer"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
