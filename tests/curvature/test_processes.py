"""The same products from one process and from two that share the batches."""

from __future__ import annotations

import subprocess
import sys

import torch
import torch.nn.functional as F

from saddlescape.curvature import build_operator

PROBLEM = """
import sys, torch, torch.nn.functional as F
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 3)).double()
x, y, v = torch.randn(23, 9, dtype=torch.float64), torch.arange(23) % 3, torch.randn(81, dtype=torch.float64)
"""

WORKER = (
    PROBLEM
    + """
import torch.distributed as dist
from saddlescape.curvature import build_operator
rank, meeting, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size=2)
operator = build_operator(model, F.cross_entropy, (x, y), batch_size=4, process_group=dist.group.WORLD)
torch.save([operator(v), *operator.loss_and_gradient()], out)
del operator  # it holds the group, whose threads abort a process that takes itself apart while they still have work
dist.destroy_process_group()
"""
)


def test_two_processes_give_the_product_of_one(tmp_path):
    scope: dict = {}
    exec(PROBLEM, scope)  # the same few lines for all three, so that none can differ
    operator = build_operator(scope["model"], F.cross_entropy, (scope["x"], scope["y"]), batch_size=4)
    alone = [operator(scope["v"]), *operator.loss_and_gradient()]
    outs = [tmp_path / f"{rank}.pt" for rank in (0, 1)]
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(rank), str(tmp_path / "meet"), str(outs[rank])])
        for rank in (0, 1)
    ]
    assert [worker.wait() for worker in workers] == [0, 0]
    first, second = (torch.load(out, weights_only=True) for out in outs)
    for a, b, c in zip(alone, first, second, strict=True):
        assert torch.equal(b, c)
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-13)
