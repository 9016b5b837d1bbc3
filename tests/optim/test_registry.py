"""Words to optimisers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from saddlescape.errors import InputError
from saddlescape.optim import ASAM, OPTIMIZERS, SAM, MomentumSAM, PerturbedGD, build_optimizer


def test_every_word_builds_its_class() -> None:
    model = nn.Linear(3, 2)
    kinds = {"sam": SAM, "asam": ASAM, "momentum-sam": MomentumSAM, "pgd": PerturbedGD}
    assert set(kinds) | {"sgd"} == set(OPTIMIZERS)
    for name, kind in kinds.items():
        base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        options = {"t_thr": 5} if name == "pgd" else {}
        optimizer = build_optimizer(base, name, rho=0.3, model=model, clip_grad_norm=1.0, **options)
        assert type(optimizer) is kind
        assert optimizer.param_groups[0]["rho"] == 0.3
        assert optimizer.clip_grad_norm == 1.0
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    assert build_optimizer(base, "sgd", rho=0.3, model=model) is base
    assert build_optimizer(base, "sam", model=model).param_groups[0]["rho"] == 0.05


def test_unknown_words_are_one_line() -> None:
    base = torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1)
    for call, words in (
        (lambda: build_optimizer(base, "sma"), "known are sgd, sam"),
        (lambda: build_optimizer(base, "pgd"), "give rho="),
        (lambda: build_optimizer(base, "sam", radius=3), "radius"),
        (lambda: build_optimizer(base, "pgd", rho=0.1), "t_thr"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
