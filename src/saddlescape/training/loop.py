"""The one loop: for each epoch, for each batch, one step. Under 200 lines, and it reads like what it does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

from torch import nn

from saddlescape.data.types import Batch
from saddlescape.training.failures import Save, all_finite, not_finite, salvaging
from saddlescape.training.metrics import score
from saddlescape.training.objective import EpochFacts, Losses
from saddlescape.training.parts import Parts
from saddlescape.training.running import Running
from saddlescape.training.step import train_step


class Watcher(Protocol):
    """Sees everything, changes nothing: progress bars, loggers, the curvature tracker."""

    def on_step(self, parts: Parts, epoch: int, running: Running) -> None: ...

    def on_epoch(self, parts: Parts, row: dict[str, Any]) -> None: ...


class Interrupted(Exception):
    """Somebody asked to stop; the state at this step boundary has been handed to ``save``."""


def fit(
    parts: Parts,
    *,
    start_epoch: int = 0,
    running: Running | None = None,
    save: Save,
    record: Callable[[dict[str, Any]], None],
    should_stop: Callable[[], bool] = lambda: False,
    should_save: Callable[[], bool] = lambda: False,
    watchers: Sequence[Watcher] = (),
    check_every: int | None = None,
) -> None:
    """Train ``parts`` from ``start_epoch`` (and from the middle of it, if ``running`` is given) to the end.

    ``record(row)`` gets one row an epoch, before ``save(epochs_done, None)``; ``save(epoch, running)`` is also called
    in mid-epoch whenever ``should_save()``, which is asked after every step, says so, where images cannot be read, and
    when ``should_stop()`` turns true, with :class:`Interrupted` raised after it. Several processes stop together.

    Raises:
        InputError: the loss or a weight is not finite (epoch, step, likely cause).
        Interrupted: see above.
    """
    ranks, check_every = parts.ranks, check_every or (1 if parts.device.type == "cpu" else 50)
    for epoch in range(start_epoch, parts.epochs):
        lr, rho = set_epoch(parts, epoch, resumed=running is not None)
        running = running or Running()
        before, started = running.seconds, time.perf_counter()
        batches = salvaging(parts.loader.epoch(epoch, start_batch=running.batch), parts, epoch, running, save)
        for micro in _grouped(batches, parts.accumulate):
            running.add(take_step(parts, micro), [ranks.shard_of(batch) for batch in micro], ranks)
            running.batch += len(micro)
            running.seconds = before + time.perf_counter() - started
            if running.batch % check_every == 0 and not math.isfinite(float(running.loss)):
                raise not_finite("the training loss is", epoch, running.batch, lr, rho, parts.precision)
            for watcher in watchers:
                watcher.on_step(parts, epoch, running)
            stop, due = ranks.any_of(should_stop(), should_save())
            if (stop or due) and running.batch < len(parts.loader) and not ranks.any(not all_finite(parts.model)):
                save(epoch, running)
                if stop:
                    raise Interrupted
        ranks.copy_first(parts.model.buffers())  # the running statistics that are scored and saved are process 0's
        if not math.isfinite(running.mean_loss()):
            raise not_finite("the training loss is", epoch, running.batch, lr, rho, parts.precision)
        if not all_finite(parts.model):
            raise not_finite("the weights are", epoch, running.batch, lr, rho, parts.precision)
        row = _row(parts, epoch, running, lr, rho, save)
        record(row)
        save(epoch + 1, None)
        for watcher in watchers:
            watcher.on_epoch(parts, row)
        running = None
        if ranks.any(should_stop()) and epoch + 1 < parts.epochs:
            raise Interrupted


def set_epoch(parts: Parts, epoch: int, resumed: bool = False) -> tuple[float, float | None]:
    """Put the learning rate, rho and class weights of an epoch in place; modes too. Returns (lr, rho).

    ``resumed``: in the middle of the epoch, so that the objective has seen its beginning already.
    """
    parts.model.train()
    if parts.backbone_mode == "eval":
        parts.model.eval()
        cast(nn.Module, parts.model.head).train()
    now = parts.setting(epoch)
    for group in parts.optimizer.param_groups:
        group["lr"] = now.lr * group.get("lr_factor", 1.0)
        if now.rho is not None:
            group["rho"] = now.rho
    parts.objective.loss = now.loss.to(parts.device)
    if not resumed:
        parts.objective.begin_epoch(EpochFacts(now.epoch, now.epochs, parts.model, parts.features))
    return now.lr, now.rho


def _grouped(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def take_step(parts: Parts, micro: list[Batch]) -> list[Losses]:
    """One step of a stage from one batch, or from several micro-batches; full batches may go through compiled code."""
    micro = [parts.ranks.shard_of(parts.objective.prepare(batch)) for batch in micro]
    full = all(len(batch.targets) == parts.full_batch for batch in micro)
    forward = parts.forward if full else parts.model
    with parts.ranks.own_draws(parts.model, parts.device):
        return train_step(
            parts.objective, forward, parts.optimizer, micro, parts.precision, parts.step_options, eager=parts.model,
            ranks=parts.ranks,
        )  # fmt: skip


def _row(parts: Parts, epoch: int, running: Running, lr: float, rho: float | None, save: Save) -> dict[str, Any]:
    images = int(running.images)
    row: dict[str, Any] = {"epoch": epoch, "lr": lr, "rho": rho, "train_loss": running.mean_loss()}
    row |= {"train_accuracy": 100 * float(running.correct) / max(images, 1), "images": images}
    row |= {"seconds": running.seconds, "images_per_second": images / max(running.seconds, 1e-9)}
    row["work"] = parts.setting(epoch).work
    if (epoch + 1) % parts.eval_every == 0 or epoch + 1 == parts.epochs:
        for name, loader in parts.evaluations.items():
            batches = salvaging(loader.epoch(0), parts, epoch, running, save)
            scorer = score(
                parts.model, batches, parts.num_classes, parts.precision,
                logit_scale=parts.objective.loss.logit_scale, ranks=parts.ranks,
            )  # fmt: skip
            row[name] = scorer.scores(parts.groups).row()
    return row
