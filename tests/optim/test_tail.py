"""Which classes are the tail."""

from __future__ import annotations

import pytest
import torch

from saddlescape.errors import InputError
from saddlescape.optim.tail import tail_classes

EXP_10 = [int(5000 * 0.01 ** (i / 9)) for i in range(10)]
EXP_100 = [int(500 * 0.01 ** (i / 99)) for i in range(100)]


@pytest.mark.parametrize(("counts", "threshold", "usual", "expected"), [
    (EXP_100, None, 20, list(range(70, 100))),  # the few-shot classes of CIFAR-100-LT at imbalance 100
    (EXP_100, 50, 20, [c for c, n in enumerate(EXP_100) if n < 50]),
    (EXP_100, None, 100, list(range(35, 100))),
    (EXP_10, None, 20, [7, 8, 9]),  # none is that small: the smallest third
    (EXP_10, 20000, 20, list(range(10))),
    ([500] * 5 + [50] * 5, None, 20, [5, 6, 7, 8, 9]),  # equal classes go together
    ([19, 5, 3, 2], None, 20, [3]),  # all are that small: the smallest third
    ([9, 100], None, 20, [0]),  # in any order
    ([100, 9], 9, 20, None),
    ([50, 50, 50], None, 20, None),
])  # fmt: skip
def test_the_rule(counts: list[int], threshold: float | None, usual: float, expected: list[int] | None) -> None:
    exact = torch.tensor(counts, dtype=torch.float64)
    if expected is None:
        with pytest.raises(InputError, match=r"^ImbSAM: ") as caught:
            tail_classes(exact, threshold, "ImbSAM", usual)
        assert "\n" not in str(caught.value)
        assert "threshold" in str(caught.value)
    else:
        assert tail_classes(exact, threshold, "ImbSAM", usual).nonzero().flatten().tolist() == expected
