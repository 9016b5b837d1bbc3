from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from mpmath import besseli, log, mp, mpf, sqrt
from scipy.integrate import quad
from torch import Tensor

from saddlescape.errors import InputError
from saddlescape.losses import LogitAdjustedLoss, ProCoLoss

COUNTS = [50, 20, 5, 1]


def unit(*shape: int, seed: int = 0) -> Tensor:
    points = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return F.normalize(points, dim=-1)


def fitted(dim: int, **options: object) -> ProCoLoss:
    """A loss that has seen 40 clustered points of four classes, in one earlier epoch."""
    loss = ProCoLoss(COUNTS, dim, **options).double()  # type: ignore[arg-type]
    target = torch.arange(40) % 4
    loss.observe(F.normalize(unit(4, dim, seed=1)[target] + 0.4 * unit(40, dim, seed=2), dim=1), target)
    loss.start_epoch()
    return loss


def test_on_the_ordinary_sphere_everything_is_elementary() -> None:
    """p = 3: the normaliser is kappa / (4 pi sinh kappa)."""
    loss, z = fitted(3, temperature=0.5), unit(6, 3, seed=3)
    mean = loss.last_mean
    length = mean.norm(dim=1)
    kappa = 3 * length / (1 - length**2)
    torch.testing.assert_close(loss.concentrations(), kappa)
    logits = loss.class_logits(z)
    for i in range(6):
        for c in range(4):
            joint = (kappa[c] * mean[c] / length[c] + z[i] / 0.5).norm()
            expected = (joint.sinh() / joint).log() - (kappa[c].sinh() / kappa[c]).log()
            torch.testing.assert_close(logits[i, c], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dim", [2, 5, 16])
def test_the_logits_are_logs_of_expectations(dim: int) -> None:
    """Along and against the mean direction the expectation of exp(z.v / T) is a one-dimensional integral."""
    loss = fitted(dim, temperature=0.4)
    kappa = loss.concentrations()
    poles = F.normalize(loss.last_mean, dim=1)
    for c in range(4):
        for sign in (1.0, -1.0):

            def density(angle: float, tilt: float, own: float = float(kappa[c])) -> float:
                return math.exp((own + tilt) * (math.cos(angle) - 1)) * math.sin(angle) ** (dim - 2)

            tilt = sign / 0.4
            top, bottom = (quad(density, 0, math.pi, (t,), epsabs=0, epsrel=1e-11)[0] for t in (tilt, 0.0))
            expected = math.log(top) + tilt - math.log(bottom)
            assert loss.class_logits(sign * poles[c : c + 1])[0, c].item() == pytest.approx(
                expected, rel=1e-9, abs=1e-9
            )


def test_the_published_size_against_forty_digits() -> None:
    loss, z = fitted(128), unit(3, 128, seed=5)
    logits, kappa = loss.class_logits(z), loss.concentrations()
    with mp.workdps(40):
        for i in range(3):
            for c in range(4):
                pole = [mpf(v.item()) for v in loss.last_mean[c]]
                length = sqrt(sum(v * v for v in pole))
                own = mpf(kappa[c].item())
                joint = sqrt(sum((own * v / length + 10 * mpf(w.item())) ** 2 for v, w in zip(pole, z[i], strict=True)))
                expected = log(besseli(63, joint) / besseli(63, own)) - 63 * log(joint / own)
                assert logits[i, c].item() == pytest.approx(float(expected), rel=1e-10, abs=1e-10)


def test_concentrations() -> None:
    simple, sra = fitted(16), fitted(16, concentration="sra")
    length = sra.last_mean.norm(dim=1)
    torch.testing.assert_close(sra.concentrations(), length * (16 - length**2) / (1 - length**2))
    ratio = sra.concentrations() / simple.concentrations()
    assert (ratio < 1).all()
    assert (ratio > 1 - 1 / 16).all()
    # Sra's form nearly solves A_p(kappa) = R, the likelihood equation.
    for kappa, r in zip(sra.concentrations().tolist(), length.tolist(), strict=True):
        assert float(besseli(8, kappa) / besseli(7, kappa)) == pytest.approx(r, rel=2e-2)


def test_the_loss_is_logit_adjusted_cross_entropy_of_the_logits() -> None:
    loss, z, target = fitted(8).eval(), unit(6, 2, 8, seed=3), torch.tensor([0, 1, 2, 3, 0, 0])
    adjusted = LogitAdjustedLoss(COUNTS, reduction="none")
    expected = (adjusted(loss.class_logits(z[:, 0]), target) + adjusted(loss.class_logits(z[:, 1]), target)) / 2
    torch.testing.assert_close(loss.per_sample(z, target), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(loss(z, target), expected.mean())


def test_running_means_over_batches_and_epochs() -> None:
    loss = ProCoLoss(COUNTS, 4).double()
    first, second, third = unit(12, 4, seed=1), unit(5, 4, seed=2), unit(7, 4, seed=3)
    a, b, c = torch.arange(12) % 3, torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 0, 0, 1, 1])
    for z, y in ((first, a), (second, b)):
        loss(z, y)
    z, y = torch.cat((first, second)), torch.cat((a, b))
    for label in range(3):
        torch.testing.assert_close(loss.last_mean[label], z[y == label].mean(0))
    torch.testing.assert_close(loss.last_mean[3].norm(), torch.tensor(0.9).double(), rtol=1e-6, atol=0)  # not seen
    loss.start_epoch()
    loss(third, c)
    z, y = torch.cat((z, third)), torch.cat((y, c))
    for label in range(3):  # the last epoch and this one
        torch.testing.assert_close(loss.last_mean[label], z[y == label].mean(0))
    loss.start_epoch()
    for label in range(2):  # only the one that ended
        torch.testing.assert_close(loss.last_mean[label], third[c == label].mean(0))
    torch.testing.assert_close(loss.last_mean[2], z[y == 2].mean(0))  # not shown in it: the older one stays


def test_views_are_seen_one_after_the_other() -> None:
    z, target = unit(6, 2, 8, seed=3), torch.tensor([0, 1, 2, 3, 0, 0])
    whole, parts = fitted(8), fitted(8)
    separate = (parts.per_sample(z[:, 0], target) + parts.per_sample(z[:, 1], target)) / 2
    torch.testing.assert_close(whole.per_sample(z, target), separate)
    assert torch.equal(whole.last_mean, parts.last_mean)


def test_who_is_observed() -> None:
    loss, z, target = fitted(8), unit(6, 8, seed=3), torch.tensor([0, 1, 2, 3, 0, 0])
    before = {name: t.clone() for name, t in loss.state_dict().items()}
    loss(z, target, observe=False)
    loss.eval()(z, target)
    loss.class_logits(z)
    assert all(torch.equal(t, before[name]) for name, t in loss.state_dict().items())
    loss(z, target, observe=True)
    assert not torch.equal(loss.last_mean, before["last_mean"])


def test_resumes_bit_for_bit() -> None:
    z, target = unit(3, 6, 8, seed=3), torch.tensor([0, 1, 2, 3, 0, 0])
    one = ProCoLoss(COUNTS, 8, seed=4)
    one(z[0].float(), target)
    other = ProCoLoss(COUNTS, 8, seed=5)
    other.load_state_dict(one.state_dict())
    for loss in (one, other):
        loss(z[1].float(), target)
        loss.start_epoch()
    assert torch.equal(one(z[2].float(), target), other(z[2].float(), target))
    assert all(torch.equal(t, other.state_dict()[name]) for name, t in one.state_dict().items())


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    ProCoLoss(COUNTS, 8).start_epoch()
    assert torch.equal(torch.rand(3), expected)


def test_derivatives_and_where_they_go() -> None:
    loss, z, target = fitted(4, temperature=0.3), unit(2, 2, 4, seed=3).requires_grad_(), torch.tensor([1, 3])
    assert torch.autograd.gradcheck(lambda z: loss(z, target, observe=False), (z,))
    assert torch.autograd.gradgradcheck(lambda z: loss(z, target, observe=False), (z,))
    loss(z, target).backward()
    assert z.grad.abs().sum(dim=2).min() > 0
    assert not any(t.requires_grad for t in loss.state_dict().values())


def test_extremes() -> None:
    loss = ProCoLoss(COUNTS, 128)
    z, target = unit(4, 128).float().requires_grad_(), torch.arange(4)
    value = loss(z, target)
    loss.start_epoch()
    value = loss(z, target)  # each class is one point: R = 1, and z lies on it
    value.backward()
    assert torch.equal(loss.concentrations(), torch.full((4,), 1e5).double())
    assert torch.isfinite(value)
    assert torch.isfinite(z.grad).all()
    loss.observe(-z, target)  # opposite points: R = 0, kappa = 0 with rounding
    opposite = loss.class_logits(z)
    assert torch.isfinite(opposite).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = loss(z.detach().bfloat16(), target)
    assert half.dtype == torch.float32
    assert torch.isfinite(half)


def worker(rank: int) -> None:
    dist.init_process_group("gloo", rank=rank, world_size=2)
    loss = ProCoLoss(COUNTS, 8).double()
    z, target = unit(10, 8, seed=3), torch.tensor([0, 0, 0, 1, 1, 0, 0, 2, 1, 0])
    part = slice(0, 5) if rank == 0 else slice(5, 10)
    loss.observe(z[part], target[part])
    alone = ProCoLoss(COUNTS, 8).double()
    expected = torch.stack([z[target == c].mean(0) for c in range(3)])
    torch.testing.assert_close(loss.last_mean[:3], expected)
    assert torch.equal(loss.last_mean[3], alone.last_mean[3])
    assert loss.last_count.tolist() == [6, 3, 1, 0]
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="this torch is built without gloo")
def test_two_processes_share_their_means() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    env = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    started = [subprocess.Popen([sys.executable, __file__, str(rank)], env=env) for rank in range(2)]
    assert [process.wait() for process in started] == [0, 0]


def test_mistakes_are_one_line() -> None:
    loss = ProCoLoss(COUNTS, 8)
    with pytest.raises(InputError, match=r"\[N, V, 8\] or \[N, 8\], got \[6, 7\]"):
        loss(torch.zeros(6, 7), torch.zeros(6, dtype=torch.int64))
    with pytest.raises(InputError, match="outside 0"):
        loss(unit(2, 8), torch.tensor([0, 4]))
    with pytest.raises(InputError, match="not soft labels"):
        loss(unit(2, 8), torch.full((2, 4), 0.25))
    with pytest.raises(InputError, match="dim is 1"):
        ProCoLoss(COUNTS, 1)
    with pytest.raises(InputError, match="temperature is 0"):
        ProCoLoss(COUNTS, 8, 0)
    with pytest.raises(InputError, match="concentration is 'exact'"):
        ProCoLoss(COUNTS, 8, concentration="exact")  # type: ignore[arg-type]


if __name__ == "__main__":
    worker(int(sys.argv[1]))


@pytest.mark.parametrize("name", ["sgd", "sam", "asam", "momentum-sam", "pgd", "imbsam", "focal-sam", "partial-sam"])
def test_the_means_take_a_batch_in_once_a_step_in_a_persons_own_closure(name: str) -> None:
    """However often the optimiser runs the closure: the counts are those of one look at each image of each batch."""
    from saddlescape.optim.registry import build_optimizer

    torch.manual_seed(0)
    model, loss = torch.nn.Linear(6, 8), ProCoLoss(COUNTS, 8)
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    split = name in ("imbsam", "focal-sam", "partial-sam")
    options: dict[str, Any] = {"class_counts": COUNTS} if split else {"t_thr": 1} if name == "pgd" else {}
    optimizer = base if name == "sgd" else build_optimizer(base, name, rho=0.1, model=model, **options)
    target = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3])
    for _ in range(3):
        images = torch.randn(8, 6)

        def closure(subset: Tensor | None = None, images: Tensor = images) -> Tensor:
            chosen = slice(None) if subset is None else subset
            losses = loss.per_sample(F.normalize(model(images[chosen]), dim=1), target[chosen])
            if split:
                return losses
            optimizer.zero_grad()
            losses.mean().backward()
            return losses.mean()

        optimizer.step(closure, targets=target) if split else optimizer.step(closure)
    assert loss.count.tolist() == [9, 6, 3, 6]
    loss.per_sample(F.normalize(model(torch.randn(8, 6)), dim=1), target)  # outside a step every call observes
    assert loss.count.sum() == 32
