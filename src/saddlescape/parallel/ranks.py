"""One run by several processes: each takes a shard of every batch, and gradients are summed over all of them.

What is exchanged, and nothing else: after a backward pass one flat sum of all gradients, with the loss and its
normaliser; after a step the running sums; at the end of an epoch the running statistics of process 0; and whether
somebody was asked to stop. SAM's two passes stay two passes of ``training/step.py``: the first exchanges nothing
(every process climbs its own gradient, as published for many devices) unless ``sync_ascent``.
"""

from __future__ import annotations

import datetime
import functools
import importlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from saddlescape.data.batching import derived_seed
from saddlescape.data.shards import copies, shard_bounds, shard_of
from saddlescape.data.types import Batch
from saddlescape.errors import InputError
from saddlescape.parallel.launch import Launch, ReportedElsewhere

# How long a process waits for the others: process 0 may be measuring curvature or writing to a slow disk meanwhile. A
# process that dies is noticed at once, by its closed connection.
PATIENCE = datetime.timedelta(hours=2)
MEETING = datetime.timedelta(minutes=5)
FIRST_TO_SPEAK = 2.0  # seconds that the other processes leave to process 0 to report an error

_MEETINGS = itertools.count()  # of this process with the others: each has names of its own in the store

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Ranks:
    """The processes of a run as seen from one of them; :data:`ALONE` where there is one, and nothing then costs or
    changes anything.

    ``sync_ascent``: whether SAM climbs the gradient of the whole batch. ``store`` holds small texts for all to see.
    All methods but ``shard_of``, ``put`` and ``get`` are to be called by all processes, in the same order.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    sync_ascent: bool = False
    store: Any = None

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is process 0, which writes, prints and decides."""
        return self.rank == 0

    # Shares of the work.

    def shard_of(self, batch: Batch) -> Batch:
        """This process's shard of a batch; see :func:`saddlescape.data.shards.shard_bounds`."""
        return shard_of(batch, self.rank, self.size)

    def shard_size(self, count: int) -> int:
        """Images of this process's shard of a batch of ``count``."""
        begin, end = shard_bounds(count, self.rank, self.size)
        return end - begin

    def copies(self, batch: Batch) -> int:
        """How many processes have the images of ``batch``, a shard, in theirs."""
        return copies(batch.whole, self.size) if batch.whole else 1

    # Exchange.

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if not self.alone:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether any process says so; does not wait for the device."""
        return self.any_of(flag)[0]

    def any_of(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether any process says so."""
        if self.alone:
            return flags
        return tuple(count > 0 for count in self.sum(torch.tensor(flags, dtype=torch.int32)).tolist())

    @torch.no_grad()
    def average(
        self, optimizer: torch.optim.Optimizer, images: int, loss: Tensor, normaliser: Tensor | float
    ) -> Tensor:
        """From the gradients of this process's mean over its ``images`` losses to those of the whole batch's loss.

        The loss of a batch is ``sum of all losses / sum of all normalisers``, so shards may differ in size and weight:
        ``loss`` is this process's sum of losses and ``normaliser`` its share of the divisor. Gradients are changed in
        place; returns the loss of the whole batch, 0-dim.
        """
        tail = torch.stack([loss.double(), torch.as_tensor(normaliser, dtype=torch.float64, device=loss.device)])
        self.sum(tail)
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._exchange(gradients, lambda flat: self.sum(flat.mul_(images)).div_(tail[1].to(flat.dtype)))
        return tail[0] / tail[1]

    @torch.no_grad()
    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes its mean over all processes, in place; one exchange a dtype."""
        self._exchange(tensors, lambda flat: self.sum(flat).div_(self.size))

    def _exchange(self, tensors: Sequence[Tensor], change: Callable[[Tensor], Tensor]) -> None:
        """Change all numbers of the tensors, as one vector for each dtype."""
        groups: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            groups.setdefault(tensor.dtype, []).append(tensor)
        for group in groups.values():
            flat = change(torch.cat([tensor.reshape(-1) for tensor in group]))
            pieces = flat.split([tensor.numel() for tensor in group])
            torch._foreach_copy_(group, [piece.view(own.shape) for piece, own in zip(pieces, group, strict=True)])

    @torch.no_grad()
    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Fill ``tensors`` with what they are in process 0."""
        if not self.alone:
            for tensor in tensors:
                dense = tensor.detach().contiguous()  # a copy where memory is laid out otherwise (channels last)
                dist.broadcast(dense, src=0)
                if dense.data_ptr() != tensor.data_ptr():
                    tensor.detach().copy_(dense)

    def from_first(self, thing: Thing) -> Thing:
        """What process 0 has, any object that pickles; the others' ``thing`` is not looked at."""
        if self.alone:
            return thing
        box = [thing]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes one after the other, process 0's first; they may differ in length ([n, ...])."""
        if self.alone:
            return tensor
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(tensor)
        self.sum(lengths)
        padded = tensor.new_zeros(int(lengths.max()), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        received = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(received, padded)
        return torch.cat([each[:length] for each, length in zip(received, lengths.tolist(), strict=True)])

    # Random numbers.

    def own_draws(self, model: nn.Module, device: torch.device) -> AbstractContextManager[None]:
        """Around the passes of a step: random layers (dropout) draw other numbers in each process.

        Outside all processes draw the same, so that what is drawn once a step, mixup's lambda, is drawn alike.
        """
        if self.alone or not has_random_layers(model):
            return nullcontext()
        drawn = int(torch.randint(2**62, ()))  # by all alike, from the generator whose state checkpoints keep
        return _own_draws(derived_seed(drawn, self.rank), device)

    # Small texts for all, without waiting.

    def put(self, key: str, text: str) -> None:
        """Leave ``text`` where every process finds it."""
        self.store.set(key, text)

    def get(self, key: str, wait: bool) -> str | None:
        """What was put under ``key``; None where nothing was and ``wait`` is False."""
        if not wait and not self.store.check([key]):
            return None
        if wait:
            self.store.wait([key], PATIENCE)
        return cast(bytes, self.store.get(key)).decode()


ALONE = Ranks()


def has_random_layers(model: nn.Module) -> bool:
    """Whether the model has dropout, or drop paths as timm has them."""
    return any(
        isinstance(rate := getattr(module, name, None), float) and rate > 0
        for module in model.modules()
        for name in ("p", "drop_prob", "drop_rate")
    )


@contextmanager
def _own_draws(seed: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def device_of(device: torch.device, ranks: Ranks) -> torch.device:
    """Where this process computes: a GPU of its own on its machine, or the CPU.

    Raises:
        InputError: a certain GPU, or fewer of them than processes.
    """
    if ranks.alone or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise InputError(f"--device {device}: several processes run on CPUs or CUDA devices; use --device cpu")
    if device.index is not None:
        raise InputError(f"--device {device}: each of {ranks.size} processes takes a GPU of its own: use --device cuda")
    present = torch.cuda.device_count()
    if ranks.local_size > present:
        raise InputError(
            f"{ranks.local_size} processes on this machine and {present} GPUs: each needs one of its own; "
            f"use torchrun --nproc-per-node {present}, or --device cpu"
        )
    own = torch.device("cuda", ranks.local_rank)
    torch.cuda.set_device(own)
    return own


def sync_batchnorm(model: nn.Module, device: torch.device, ranks: Ranks) -> None:
    """Have the network's BatchNorm layers see the whole batch (torch's ``SyncBatchNorm``, in place).

    Raises:
        InputError: on a CPU, for which torch has none.
    """
    if ranks.alone:
        return
    check_sync_batchnorm(device)
    nn.SyncBatchNorm.convert_sync_batchnorm(model)


def check_sync_batchnorm(device: torch.device) -> None:
    """Raises InputError where torch cannot synchronise BatchNorm."""
    if device.type != "cuda":
        raise InputError("--sync-batchnorm: torch synchronises BatchNorm on GPUs only; leave it out, or --device cuda")


@contextmanager
def together(launch: Launch | None) -> Iterator[Ranks]:
    """Join the other processes of ``launch`` (None: :data:`ALONE`) and leave them at the end.

    An error that several processes run into is raised by one of them, process 0 if it is among them; the others raise
    :class:`ReportedElsewhere`. The death of another process is an ``InputError``.
    """
    if launch is None:
        yield ALONE
        return
    store = _meet(launch)
    ranks = Ranks(launch.rank, launch.size, launch.local_rank, launch.local_size, store=store)
    try:
        yield ranks
        ranks.any(False)  # nobody leaves before all are done
    except GeneratorExit:
        raise
    except BaseException as error:
        lost = _lost(error)
        # One that fails speaks before it leaves, so who loses it need not wait: torchrun will end this process at once.
        speaks = _speaks(store, patient=not lost and not ranks.first)
        if not (lost and torch.cuda.is_initialized()):  # NCCL would wait for those that are gone
            with suppress(RuntimeError):
                dist.destroy_process_group()
        if not speaks:
            raise ReportedElsewhere from error
        if lost:
            raise InputError(
                "another process of this run has ended or cannot be reached: what was saved is kept; run the same "
                f"command again to resume ({_first_line(error)})"
            ) from error
        raise
    dist.destroy_process_group()


def _meet(launch: Launch) -> Any:
    # Its functions have the group of all processes as a default argument, so whoever imports it while there is one (the
    # first optimiser does, by torch's compiler) keeps the group, and gloo's threads, until Python takes itself apart;
    # a thread that then still has work aborts the process.
    importlib.import_module("torch.distributed.nn.functional")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    # torchrun keeps the store itself, and under the same address for every restart of the processes.
    keeper = launch.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True)
    try:
        root = _store(launch.host, launch.port, launch.size, keeper)
        attempt = f"saddlescape-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}-{next(_MEETINGS)}"
        dist.init_process_group(
            backend, store=dist.PrefixStore(f"{attempt}-group", root), rank=launch.rank, world_size=launch.size,
            timeout=PATIENCE,
        )  # fmt: skip
        dist.all_reduce(
            torch.zeros(1)
        )  # all are connected: one may fail and leave now without breaking another's start
    except RuntimeError as error:
        raise InputError(
            f"process {launch.rank} of {launch.size} did not meet the others at {launch.host}:{launch.port} "
            f"({_first_line(error)}): start all of them with torchrun"
        ) from error
    return dist.PrefixStore(f"{attempt}-texts", root)


@functools.cache  # for all meetings of this process: its port is taken once
def _store(host: str, port: int, size: int, keeper: bool) -> Any:
    return dist.TCPStore(host, port, size, keeper, MEETING)


def _speaks(store: Any, patient: bool) -> bool:
    """Whether this process reports an error: the first that asks, process 0 being given the lead."""
    try:
        if store.check(["reported"]):
            return False
        if patient:
            try:
                store.wait(["reported"], datetime.timedelta(seconds=FIRST_TO_SPEAK))
                return False
            except RuntimeError:  # nobody has within that time
                pass
        speaks = int(store.add("asked", 1)) == 1
        store.set("reported", "yes")
    except RuntimeError:  # the store went with the process that kept it: better twice than not at all
        return True
    return speaks


def _lost(error: BaseException) -> bool:
    """Whether it is what gloo or NCCL raise when another process has ended."""
    words = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "connection refused", "socket")
    known = isinstance(error, dist.DistError) or (type(error) is RuntimeError)
    return known and (isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
