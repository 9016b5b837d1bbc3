"""Two real processes share each batch: what they do together is what one process does with the whole batch."""

from __future__ import annotations

import copy
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from saddlescape.curvature import build_operator, class_spectra
from saddlescape.data.shards import copies, shard_bounds, shard_of
from saddlescape.data.types import Batch
from saddlescape.errors import InputError
from saddlescape.losses.registry import build_loss
from saddlescape.optim import PartialSAM
from saddlescape.optim.registry import build_optimizer
from saddlescape.optim.split import SplitOptimizer
from saddlescape.parallel import ranks as parallel_ranks
from saddlescape.parallel.launch import ReportedElsewhere, launched
from saddlescape.parallel.ranks import ALONE, Ranks, check_sync_batchnorm, device_of, has_random_layers, together
from saddlescape.training.metrics import Scorer
from saddlescape.training.objective import Classify
from saddlescape.training.objectives.mixup import Mixup
from saddlescape.training.precision import Precision
from saddlescape.training.running import Running
from saddlescape.training.step import train_step

pytestmark = [
    pytest.mark.skipif(
        not (dist.is_available() and dist.is_gloo_available()), reason="this torch is built without gloo"
    ),
]
WORLD = 2
FLOAT32 = Precision("float32", "cpu")
WEIGHT = torch.tensor([0.2, 0.5, 2.3], dtype=torch.float64)
SIZES = (7, 6, 3, 5)  # images of the batches: parts of 3 and 4, of 3 and 3, a batch that both take whole, 2 and 3
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "sam": {"rho": 0.3},
    "asam": {"rho": 0.5},
    "sam-on": {"rho": 0.3},
    "momentum-sam": {"rho": 0.5},
    "pgd": {"rho": 0.1, "t_thr": 2},
    "clipped sam": {"rho": 0.3, "clip_grad_norm": 0.1},
    "imbsam": {"rho": 0.3},
    "focal-sam": {"rho": 0.3},
    "sse-sam": {"rho": 0.3, "threshold": 20},
    "partial-sam": {"rho": 0.3, "share": 1.0},
    "clipped imbsam": {"rho": 0.3, "clip_grad_norm": 0.1},
}
COUNTS = [30, 10, 2]
SPLIT: dict[str, dict[str, Any]] = {  # those of the next tests, in which each process climbs by its own images
    name: OPTIMIZERS[name] for name in ("imbsam", "focal-sam", "sse-sam", "partial-sam")
} | {"cc-sam": {"rho": 0.5, "phi": 0.4}}


class Net(nn.Module):
    """Float64, with a LayerNorm for SAM-ON and nothing that looks across a batch."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.LayerNorm(8), nn.Tanh(), nn.Dropout(dropout))
        self.head = nn.Linear(8, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def batches() -> list[Batch]:
    """The parts of these batches differ in size and, by far, in the weight of their classes."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for count in SIZES:
        inputs = torch.randn(count, 3, 2, 2, generator=generator, dtype=torch.float64)
        targets = torch.randint(3, (count,), generator=generator).sort().values
        made.append(Batch(inputs, targets, torch.arange(count)))
    return made


def optimizer_of(name: str, model: nn.Module) -> torch.optim.Optimizer:
    base = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=0.01)
    options = (OPTIMIZERS | SPLIT)[name]
    return build_optimizer(base, name.removeprefix("clipped "), model=model, class_counts=COUNTS, **options)


def objective_of(normalization: str, kind: type[Classify] = Classify) -> Classify:
    loss = build_loss("ce", COUNTS, normalization=normalization)
    loss.set_weight(WEIGHT)
    return kind(loss)


def share(optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
    if isinstance(optimizer, SplitOptimizer) and not ranks.alone:
        optimizer.share_batches(ranks.mean, ranks.rank, ascent=ranks.sync_ascent)


def train(
    name: str, ranks: Ranks, normalization: str = "weights", kind: type[Classify] = Classify, dropout: float = 0.0
) -> list[Tensor]:
    """Weights after four steps, and the running sums."""
    model = Net(dropout)
    optimizer, objective, running = optimizer_of(name, model), objective_of(normalization, kind), Running()
    share(optimizer, ranks)
    torch.manual_seed(5)
    for whole in batches():
        micro = [ranks.shard_of(objective.prepare(whole))]
        with ranks.own_draws(model, torch.device("cpu")):
            losses = train_step(objective, model, optimizer, micro, FLOAT32, {}, ranks=ranks)
        running.add(losses, [ranks.shard_of(whole)], ranks)
    sums = [running.mean_loss(), float(running.correct), float(running.images)]
    return [*(p.detach() for p in model.parameters()), torch.tensor(sums, dtype=torch.float64)]


def accumulated(ranks: Ranks, name: str = "sam") -> list[Tensor]:
    """Two micro-batches a step; in the second step one is shared and the other, of three images, whole in both."""
    model = Net()
    optimizer, objective = optimizer_of(name, model), objective_of("weights")
    share(optimizer, ranks)
    for pair in (batches()[:2], batches()[2:]):
        train_step(objective, model, optimizer, [ranks.shard_of(b) for b in pair], FLOAT32, {}, ranks=ranks)
    return [p.detach() for p in model.parameters()]


def parts(ranks: Ranks) -> dict[str, Any]:
    """What PartialSAM draws of parts that differ in size, and its generator afterwards."""
    model = Net()
    optimizer = build_optimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), "partial-sam", model=model, class_counts=COUNTS, share=0.5,
        class_aware=False,
    )  # fmt: skip
    assert isinstance(optimizer, PartialSAM)
    share(optimizer, ranks)
    drawn = [optimizer._draw(torch.zeros(41 + ranks.rank, dtype=torch.int64)) for _ in range(3)]
    return {"drawn": drawn, "state": optimizer.state_dict()["saddlescape"]["draws"]}


def tail_ascent(ranks: Ranks) -> list[Tensor]:
    """PartialSAM climbs by the tail alone, so that nothing is drawn: 2 of 5 images in one part, 4 of 5 in the other."""
    model = Net()
    base = torch.optim.SGD(model.parameters(), lr=0.2)
    optimizer = build_optimizer(
        base, "partial-sam", model=model, class_counts=COUNTS, rho=0.3, share=0.01, threshold=20
    )
    share(optimizer, ranks)
    inputs = torch.randn(10, 3, 2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    whole = Batch(inputs, torch.tensor([0, 0, 0, 1, 2, 1, 2, 1, 2, 0]), torch.arange(10))
    for _ in range(3):
        train_step(objective_of("samples"), model, optimizer, [ranks.shard_of(whole)], FLOAT32, {}, ranks=ranks)
    return [p.detach() for p in model.parameters()]


def scores(ranks: Ranks, images: int) -> dict[str, Any]:
    """Scores of ``images`` images of which each process sees its share; the last may see none."""
    generator = torch.Generator().manual_seed(2)
    logits, targets = torch.randn(images, 3, generator=generator), torch.randint(3, (images,), generator=generator)
    scorer = Scorer(3)
    share = slice(ranks.rank * images // ranks.size, (ranks.rank + 1) * images // ranks.size)
    if len(targets[share]):
        scorer.add(logits[share], targets[share])
    scorer.join(ranks)
    return vars(scorer.scores({"tail": [2]}))


def spectra(group: Any = None) -> list[list[float]]:
    """The figures of each class, whose images are divided between the processes of ``group``."""
    whole = batches()
    inputs, targets = torch.cat([b.inputs for b in whole]), torch.cat([b.targets for b in whole])
    found = class_spectra(
        Net().eval(),
        F.cross_entropy,
        (inputs, targets),
        lanczos_steps=12,
        batch_size=2,
        process_group=group,
        method="double_backward",
    )
    return [[s.lambda_min, s.lambda_max, s.trace, float(s.loss or 0), float(s.steps_taken[0])] for s in found.values()]


def product(group: Any = None) -> list[Tensor]:
    """A Hessian product, the loss and the gradient over images that are divided between the processes."""
    whole = batches()
    data = torch.cat([b.inputs for b in whole]), torch.cat([b.targets for b in whole])
    operator = build_operator(Net().eval(), F.cross_entropy, data, batch_size=4, process_group=group)
    v = torch.randn(operator.dim, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return [operator(v), *operator.loss_and_gradient()]


# What the workers do; the parent compares.


def worker(folder: Path) -> None:
    torch.set_num_threads(1)
    with together(launched()) as ranks:
        in_step = Ranks(ranks.rank, ranks.size, sync_ascent=True)
        results: dict[str, Any] = {name: train(name, in_step) for name in OPTIMIZERS}
        results["samples"] = train("sam", in_step, "samples")
        results["samples imbsam"] = train("imbsam", in_step, "samples")
        results["mixup"] = train("sam", in_step, kind=Mixup)
        results["accumulated"] = accumulated(in_step)
        results["accumulated imbsam"] = accumulated(in_step, "imbsam")
        results["mixup partial-sam"] = train("partial-sam", in_step, kind=Mixup)
        results["local"] = train("sam", ranks)
        results |= {f"local {name}": train(name, ranks) for name in SPLIT}
        results["parts"] = parts(ranks)
        results["tail in step"], results["tail local"] = tail_ascent(in_step), tail_ascent(ranks)
        results["spectra"], results["product"] = spectra(dist.group.WORLD), product(dist.group.WORLD)
        results["dropout"] = train("sgd", ranks, dropout=0.5)
        results["scores"] = {count: scores(ranks, count) for count in (1, 11)}
        results["flags"] = [ranks.any_of(ranks.first, False), ranks.any(False), ranks.any(not ranks.first)]
        results["object"] = ranks.from_first({"from": ranks.rank})
        channels_last = torch.full((2, 3, 2, 2), float(ranks.rank)).to(memory_format=torch.channels_last)
        ranks.copy_first([channels_last])
        results["copied"] = channels_last
        ranks.put(f"text-{ranks.rank}", f"of {ranks.rank}")
        results["text"] = [ranks.get(f"text-{rank}", wait=True) for rank in range(WORLD)]
        results["nothing"] = ranks.get("nobody put it", wait=False)
        draws = torch.rand(1)  # the generator that all share is where it was in all
        results["draws"] = draws
        torch.save(results, folder / f"{ranks.rank}.pt")
    for who in ("all", "1", "kill 1"):
        failing(folder, who)


def failing(folder: Path, who: str) -> None:
    """All processes fail, or one does, or one is killed; each writes down what it would tell."""
    rank = os.environ["RANK"]
    try:
        with together(launched()) as ranks:
            if who in ("all", rank):
                raise InputError("the same mistake")
            if who == f"kill {rank}":
                os.kill(os.getpid(), signal.SIGKILL)
            ranks.any(False)  # waits for the one that fails or is no more
        said = "nothing went wrong"
    except InputError as error:
        said = str(error)
    except ReportedElsewhere as error:
        said = f"told elsewhere: {type(error.__cause__).__name__}"
    (folder / f"{who}-{rank}.said").write_text(said)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    """What each process found: this file run in fresh processes, as torchrun would; in the end one is killed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(WORLD):
        environment = os.environ | {
            "RANK": str(rank), "WORLD_SIZE": str(WORLD), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(WORLD),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        command = [sys.executable, __file__, str(folder)]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, -signal.SIGKILL], errors
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def off(one: list[Tensor], two: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_in_step_two_processes_are_one(ranks: list[dict[str, Any]], name: str) -> None:
    alone = train(name, ALONE)
    found = off(ranks[0][name], alone)
    assert found < (1e-7 if name == "pgd" or name in SPLIT else 1e-12)  # the split ones' normaliser is a float32
    assert float(alone[-1][2]) == sum(SIZES)


SHARED = [
    *OPTIMIZERS, "samples", "mixup", "mixup partial-sam", "accumulated", "accumulated imbsam", "local", "dropout",
    *(f"local {name}" for name in SPLIT),
]  # fmt: skip


@pytest.mark.parametrize("name", SHARED)
def test_processes_agree_bit_for_bit(ranks: list[dict[str, Any]], name: str) -> None:
    assert off(ranks[0][name], ranks[1][name]) == 0


def test_in_step_also_by_samples_with_mixup_and_with_micro_batches(ranks: list[dict[str, Any]]) -> None:
    assert off(ranks[0]["samples"], train("sam", ALONE, "samples")) < 1e-12
    assert off(ranks[0]["mixup"], train("sam", ALONE, kind=Mixup)) < 1e-12
    # The normaliser of micro-batches is told in float32 where there is one process.
    assert off(ranks[0]["accumulated"], accumulated(ALONE)) < 1e-7
    assert off(ranks[0]["accumulated imbsam"], accumulated(ALONE, "imbsam")) < 1e-7
    assert off(ranks[0]["mixup partial-sam"], train("partial-sam", ALONE, kind=Mixup)) < 1e-7
    assert off(ranks[0]["samples imbsam"], train("imbsam", ALONE, "samples")) < 1e-12
    assert off(train("sam", ALONE, "samples"), train("sam", ALONE)) > 1e-3  # or it would not matter which


def test_each_process_climbs_its_own_gradient(ranks: list[dict[str, Any]]) -> None:
    """Against the algorithm written out: a replica for each part climbs, the sums over both descend."""
    model = Net()
    base = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=0.01)
    for whole in batches():
        total, parts = WEIGHT[whole.targets].sum(), [shard_of(whole, rank, WORLD) for rank in range(WORLD)]
        shares = copies(len(whole.targets), WORLD)
        sums = [torch.zeros_like(p) for p in model.parameters()]
        for part in parts:
            replica = copy.deepcopy(model)

            def loss(net: nn.Module, part: Batch = part) -> Tensor:
                return (WEIGHT[part.targets] * F.cross_entropy(net(part.inputs), part.targets, reduction="none")).sum()

            uphill = torch.autograd.grad(loss(replica), list(replica.parameters()))
            norm = torch.stack([g.norm() for g in uphill]).norm()
            with torch.no_grad():
                for p, g in zip(replica.parameters(), uphill, strict=True):
                    p.add_(0.3 * g / norm)
            for held, g in zip(sums, torch.autograd.grad(loss(replica), list(replica.parameters())), strict=True):
                held += g / total / shares
        for p, g in zip(model.parameters(), sums, strict=True):
            p.grad = g
        base.step()
    by_hand = [p.detach() for p in model.parameters()]
    assert off(ranks[0]["local"][:-1], by_hand) < 1e-10
    assert off(ranks[0]["local"][:-1], ranks[0]["sam"][:-1]) > 1e-3


@pytest.mark.parametrize("name", SPLIT)
def test_each_process_splits_its_own_part(ranks: list[dict[str, Any]], name: str) -> None:
    """A replica for each part makes the optimiser's step alone; the mean of what they descend by moves the weights.

    The losses of a part are scaled such that the mean of the parts' means is the loss of the batch.
    """
    model = Net()
    base = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=0.01)
    for whole in batches():
        total, shares = WEIGHT[whole.targets].sum(), copies(len(whole.targets), WORLD)
        found = []
        for rank in range(WORLD):
            part, replica = shard_of(whole, rank, WORLD), copy.deepcopy(model)
            scale = len(part.targets) * WORLD / shares / total
            probe = build_optimizer(
                torch.optim.SGD(replica.parameters(), lr=0.0), name, model=replica, class_counts=COUNTS, **SPLIT[name]
            )

            def closure(
                subset: Any = slice(None), net: Net = replica, part: Batch = part, scale: Any = scale
            ) -> Tensor:
                targets = part.targets[subset]
                losses = F.cross_entropy(net(part.inputs[subset]), targets, reduction="none")
                return losses * WEIGHT[targets] * scale

            probe.step(closure, targets=part.targets)  # type: ignore[call-arg, arg-type]
            found.append([p.grad for p in replica.parameters()])
        for p, *gradients in zip(model.parameters(), *found, strict=True):
            p.grad = torch.stack([g for g in gradients if g is not None]).mean(0)
        base.step()
    assert off(ranks[0][f"local {name}"][:-1], [p.detach() for p in model.parameters()]) < 1e-7
    if name in OPTIMIZERS:
        assert off(ranks[0][f"local {name}"][:-1], ranks[0][name][:-1]) > 1e-3


def test_each_process_draws_its_own_images_and_all_have_one_generator(ranks: list[dict[str, Any]]) -> None:
    one, two = (mine["parts"] for mine in ranks)
    assert torch.equal(one["state"], two["state"])
    assert [len(drawn) for drawn in one["drawn"]] == [21, 21, 21]
    assert not any(torch.equal(a, b) for a, b in zip(one["drawn"], two["drawn"], strict=True))
    assert not torch.equal(one["drawn"][0], one["drawn"][1])


def test_in_step_the_ascent_is_that_of_all_parts_images_however_many_each_has(ranks: list[dict[str, Any]]) -> None:
    assert off(ranks[0]["tail in step"], tail_ascent(ALONE)) < 1e-12
    assert off(ranks[0]["tail in step"], ranks[1]["tail in step"]) == 0
    assert off(ranks[0]["tail local"], tail_ascent(ALONE)) > 1e-4


def test_cc_sam_in_step_is_refused() -> None:
    model = Net()
    optimizer = build_optimizer(torch.optim.SGD(model.parameters(), lr=0.1), "cc-sam", model=model, class_counts=COUNTS)
    with pytest.raises(InputError, match=r"each process climbs by its own images.*leave ascent out"):
        optimizer.share_batches(lambda tensors: None, 0, ascent=True)  # type: ignore[attr-defined]


def test_dropout_differs_between_processes_and_leaves_the_shared_draws_alone(ranks: list[dict[str, Any]]) -> None:
    """Two replicas that draw the masks of ranks 0 and 1; the same masks for both would end elsewhere."""
    assert has_random_layers(Net(0.5))
    assert not has_random_layers(Net())
    assert torch.equal(ranks[0]["draws"], ranks[1]["draws"])
    model = Net(0.5)
    objective, base = objective_of("weights"), optimizer_of("sgd", model)
    torch.manual_seed(5)
    for whole in batches():
        seed = int(torch.randint(2**62, ()))
        base.zero_grad()
        for rank in range(WORLD):
            part = shard_of(whole, rank, WORLD)
            with torch.random.fork_rng([]):
                torch.manual_seed(parallel_ranks.derived_seed(seed, rank))
                losses = objective(model, part)
            (losses.per_sample.sum() / WEIGHT[whole.targets].sum() / copies(len(whole.targets), WORLD)).backward()
        base.step()
    assert off(ranks[0]["dropout"][:-1], [p.detach() for p in model.parameters()]) < 1e-10


def test_class_spectra_over_a_group_are_those_of_one_process(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["spectra"] == ranks[1]["spectra"]
    for shared, alone in zip(ranks[0]["spectra"], spectra(), strict=True):
        assert shared == pytest.approx(alone, rel=1e-10, abs=1e-10)
    assert off(ranks[0]["product"], ranks[1]["product"]) == 0 and off(ranks[0]["product"], product()) < 1e-11


def test_scores_are_those_of_all_images(ranks: list[dict[str, Any]]) -> None:
    for count in (1, 11):  # of one image process 0 has no share
        assert ranks[0]["scores"][count] == ranks[1]["scores"][count] == scores(ALONE, count)


def test_what_else_is_exchanged(ranks: list[dict[str, Any]]) -> None:
    for mine in ranks:
        assert mine["flags"] == [(True, False), False, True]
        assert mine["object"] == {"from": 0}
        assert torch.equal(mine["copied"], torch.zeros(2, 3, 2, 2))
        assert mine["text"] == ["of 0", "of 1"]
        assert mine["nothing"] is None


@pytest.mark.parametrize(("who", "said"), [
    ("all", ["the same mistake", "told elsewhere: InputError"]),
    ("1", ["told elsewhere: ", "the same mistake"]),
    ("kill 1", ["another process of this run has ended or cannot be reached", None]),
])  # fmt: skip
def test_an_error_is_told_once_by_whoever_met_it(
    ranks: list[dict[str, Any]], folder: Path, who: str, said: list[str | None]
) -> None:
    for rank, expected in enumerate(said):
        path = folder / f"{who}-{rank}.said"
        assert path.exists() == (expected is not None)
        if expected is not None:
            assert path.read_text().startswith(expected)


# Without processes.


def test_parts_follow_each_other_and_differ_by_one_at_most() -> None:
    for size in range(1, 6):
        for count in range(1, 40):
            bounds = [shard_bounds(count, rank, size) for rank in range(size)]
            if copies(count, size) == size:
                assert bounds == [(0, count)] * size
                continue
            lengths = [end - begin for begin, end in bounds]
            assert bounds[0][0] == 0
            assert bounds[-1][1] == count
            assert all(one[1] == two[0] for one, two in pairwise(bounds))
            assert max(lengths) - min(lengths) <= 1
            assert min(lengths) >= 2


def test_a_part_of_a_batch_is_a_view_with_views_and_partner() -> None:
    whole = Batch(torch.arange(7.0).view(7, 1, 1, 1), torch.arange(7), torch.arange(7) + 10)
    whole = whole._replace(views=(whole.inputs + 100,), partner=whole._replace(inputs=whole.inputs + 200))
    part = shard_of(whole, 1, 2)
    assert part.inputs.flatten().tolist() == [3, 4, 5, 6]
    assert part.inputs.data_ptr() == whole.inputs[3:].data_ptr()
    assert part.indices.tolist() == [13, 14, 15, 16]
    assert part.views[0].flatten().tolist() == [103, 104, 105, 106]
    assert part.partner is not None
    assert part.partner.inputs.flatten().tolist() == [203, 204, 205, 206]
    assert part.whole == 7
    assert shard_of(part, 1, 2) is part
    assert shard_of(whole, 0, 1) is whole


def test_alone_nothing_is_exchanged() -> None:
    tensor = torch.ones(2)
    assert ALONE.sum(tensor) is tensor
    assert ALONE.any_of(True, False) == (True, False)
    assert ALONE.gather(tensor) is tensor
    assert ALONE.from_first("mine") == "mine"
    assert device_of(torch.device("cuda", 3), ALONE) == torch.device("cuda", 3)
    with together(None) as ranks:
        assert ranks is ALONE


def environment(**values: str) -> dict[str, str]:
    return {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "29500"} | values


def test_what_the_environment_says() -> None:
    assert launched({}) is None
    assert launched({"WORLD_SIZE": "2", "RANK": "0"}) is None  # somebody else's variables
    assert launched(environment(WORLD_SIZE="1", RANK="0")) is None
    found = launched(environment())
    assert found is not None
    assert (found.rank, found.size, found.local_rank, found.local_size, found.host, found.port) == (
        1, 2, 1, 2, "here", 29500,
    )  # fmt: skip
    assert launched(environment(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")).local_size == 1  # type: ignore[union-attr]
    with pytest.raises(InputError, match="MASTER_PORT is 'none', no number"):
        launched(environment(MASTER_PORT="none"))


def test_devices_that_cannot_be_shared() -> None:
    two = Ranks(0, 2, 0, 2)
    assert device_of(torch.device("cpu"), two) == torch.device("cpu")
    with pytest.raises(InputError, match="takes a GPU of its own: use --device cuda"):
        device_of(torch.device("cuda", 1), two)
    if torch.cuda.device_count() < 2:
        with pytest.raises(InputError, match="each needs one of its own"):
            device_of(torch.device("cuda"), two)
    with pytest.raises(InputError, match="on GPUs only"):
        check_sync_batchnorm(torch.device("cpu"))


@pytest.fixture(autouse=True)
def seeds() -> Iterator[None]:
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
