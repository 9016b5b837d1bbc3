from __future__ import annotations

from typing import Any

import pytest

from saddlescape.errors import InputError
from saddlescape.losses import LOSSES, FocalLoss, LDAMLoss, build_loss


@pytest.mark.parametrize("name", LOSSES)
def test_each_name_gives_its_class_for_these_classes(name: str) -> None:
    options = {"smooth_head": 0.3, "smooth_tail": 0.0} if name == "las" else {}
    loss = build_loss(name, [5, 3, 2], **options)
    assert type(loss) is LOSSES[name]
    assert loss.num_classes == 3
    assert loss.uses_cosine_head == (name == "ldam")
    assert loss.needs_features == (name == "ib")


def test_options_arrive() -> None:
    loss = build_loss("ldam", [5, 3], max_margin=0.3, scale=10, reduction="sum")
    assert isinstance(loss, LDAMLoss)
    assert (loss.max_margin, loss.scale, loss.reduction) == (0.3, 10.0, "sum")
    focal = build_loss("focal", [5, 3], gamma=2.0, weighted_probability=True)
    assert isinstance(focal, FocalLoss)
    assert (focal.gamma, focal.weighted_probability, focal.normalization) == (2.0, True, "samples")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ldma", {}, "unknown loss 'ldma'; did you mean ldam"),
        ("zzz", {}, "unknown loss 'zzz'; known are ce, ldam"),
        ("vs", {"gama": 1}, "loss 'vs' has no option 'gama'; it has gamma, tau, weight"),
        ("focal", {"num_classes": 4}, "has no option 'num_classes'"),
        ("ce", {"tau": 1}, "loss 'ce' has no option 'tau'"),
        ("las", {"smooth_head": 0.3}, "loss 'las' needs smooth_tail"),
    ],
)
def test_mistakes_are_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_loss(name, [5, 3], **options)
