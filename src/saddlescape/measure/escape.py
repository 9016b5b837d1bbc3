"""The escape experiment: from one checkpoint go on with SGD, PGD, SAM and Momentum-SAM, and see what the tail does.

SAM multiplies the gradient along a negative direction by ``1 + rho lambda / ||g||``, which is large in size only with
the sign turned round; Momentum-SAM by about ``1 - rho lambda / ||v||``, above 1 for every rho and with the gradient's
own sign. If amplified negative curvature is why SAM helps the tail, Momentum-SAM should help it as much: a test that
can fail (``verdict``).

Every arm starts from the same weights with an empty momentum and sees the same images in the same order, at a constant
learning rate, under the loss and class weights that held at the checkpoint. ``escape.json`` holds everything; a
finished arm is not run again.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from saddlescape.curvature import TrackPoint
from saddlescape.data.types import Dataset
from saddlescape.errors import InputError
from saddlescape.measure.course import Tracking, class_points, held_images, mean_of, new_tracker
from saddlescape.measure.harness import Clock, Growing, Say, measure_each, quiet
from saddlescape.measure.subject import Subject, trained_epoch
from saddlescape.records.config import Stage, check_stages
from saddlescape.records.escape import Arm, ArmEpoch, EscapeFile, TailGain, Verdict
from saddlescape.runs.images import require_same
from saddlescape.runs.request import EscapeOptions
from saddlescape.training.batches import EVALUATION_BATCH, evaluation_loaders
from saddlescape.training.epoch import EpochSetting, at
from saddlescape.training.loop import Watcher, fit
from saddlescape.training.metrics import score
from saddlescape.training.parts import Parts, assemble
from saddlescape.training.precision import Precision
from saddlescape.training.tracker import CurvatureWatcher

ARMS = (
    "sgd", "pgd@0.5", "sam@0.05", "sam@0.1", "sam@0.2", "sam@0.5",
    "momentum-sam@0.5", "momentum-sam@1.5", "momentum-sam@3",
)  # fmt: skip
OPTIMIZERS = ("sgd", "pgd", "sam", "momentum-sam")
LATE = 3  # epochs at the end of an arm whose mean is compared


def parse_arm(text: str) -> Arm:
    """An arm without its epochs; its radius is, of PGD, that of its kicks, one an epoch.

    ``sgd``, ``pgd@0.5``, ``sam@0.1``, ``momentum-sam@1.5``.

    Raises:
        InputError: another optimiser, or a radius missing, not wanted or out of range.
    """
    name, at, value = text.partition("@")
    if name not in OPTIMIZERS:
        raise InputError(f"--arms {text}: unknown optimiser {name!r}; known are {', '.join(OPTIMIZERS)}")
    if name == "sgd":
        if at:
            raise InputError(f"--arms {text}: sgd has no radius")
        return Arm(arm=name, optimizer=name)
    try:
        rho = float(value)
    except ValueError:
        raise InputError(f"--arms {text}: give the radius as {name}@0.5") from None
    if not 0 < rho < math.inf:
        raise InputError(f"--arms {text}: a radius is finite and above 0")
    return Arm(arm=f"{name}@{rho:g}", optimizer=name, rho=rho)


def stage_for(arm: Arm, stage: Stage, epochs: int, lr: float, steps: int) -> Stage:
    """The run's own stage with another optimiser and a constant rate; its loss is that of ``held_setting``."""
    return dataclasses.replace(
        stage,
        name=arm.arm,
        epochs=epochs,
        reset_head=False,
        lr=lr,
        lr_schedule="constant",
        optimizer=arm.optimizer,
        optimizer_options={"t_thr": steps} if arm.optimizer == "pgd" else {},
        rho=() if arm.rho is None else (arm.rho,),
        rho_schedule="constant",
        rho_start=0,
    )


def held_setting(stage: Stage, epoch: int, class_counts: Sequence[int], arm: Stage) -> Callable[[int], EpochSetting]:
    """In every epoch the loss and class weights that ``stage`` has in ``epoch``, with the lr and rho of ``arm``."""
    stood = at(stage, class_counts, epoch)

    def setting(later: int) -> EpochSetting:
        now = at(arm, class_counts, later)
        return stood._replace(lr=now.lr, rho=now.rho)

    return setting


def escape(
    subject: Subject,
    trial: EscapeOptions,
    *,
    classes: Sequence[int] | None = None,
    say: Say = quiet,
    watchers: Callable[[Stage], Sequence[Watcher]] = lambda stage: (),
) -> EscapeFile:
    """Run every arm with every seed that has no rows yet; returns what lies in ``RUN/escape.json`` (or ``trial.out``).

    ``classes``: whose curvature is followed; default: the tail. Raises InputError for arms, numbers or classes that
    cannot be; an arm whose training diverges is recorded as such and the next one goes on.
    """
    arms = [parse_arm(text) for text in dict.fromkeys(trial.arms or ARMS)]
    seeds = trial.seeds or (0,)
    dataset = subject.dataset
    labels = [c for c in dataset.groups["tail"] if dataset.class_counts[c]] if classes is None else list(classes)
    if not labels:
        raise InputError("the tail of this data has no training images; name others with --classes")
    opened = subject.opened
    # The arms are scored on the test images too.
    require_same(subject.folder, opened.config, opened.meta, dataset, "restore the data as it was")
    stage = opened.config.stages[opened.cursor.stage]
    steps = -(-sum(dataset.class_counts) // stage.batch_size)
    stages = {arm.arm: stage_for(arm, stage, trial.epochs, trial.lr, steps) for arm in arms}
    check_stages(list(stages.values()))
    path = trial.out or subject.folder / EscapeFile.NAME
    with Growing(path, _fresh(subject, trial, labels), subject.folder, say) as file:
        content = file.content
        known = {(row.arm, row.seed) for row in content.arms}
        todo = [(seed, arm) for seed in seeds for arm in arms if (arm.arm, seed) not in known]
        bench = _Bench(subject, trial, labels) if todo else None

        def measure(item: tuple[int, Arm], clock: Clock) -> Arm:
            assert bench is not None
            seed, arm = item
            return bench.run(arm, stages[arm.arm], seed, list(watchers(stages[arm.arm])))

        def add(item: tuple[int, Arm], row: Arm) -> str:
            content.arms.append(row)
            content.verdict = verdict(content.arms, _tail_images(dataset))
            return _figures(row)

        measure_each(file, todo, measure, add, say)
        return content


def _fresh(subject: Subject, trial: EscapeOptions, labels: Sequence[int]) -> EscapeFile:
    """Which arms and seeds were asked for does not matter to what was measured."""
    identity = {key: value for key, value in subject.identity.items() if key not in ("loss", "dtype")}
    settings = identity | {
        "classes": list(labels), "epochs": trial.epochs, "lr": trial.lr, "samples": trial.samples_per_class,
        "products": trial.products, "tol": Tracking.tol,
    }  # fmt: skip
    return EscapeFile(**subject.header, settings=settings, precision=subject.opened.config.precision)


class _Bench:
    """The starting point that all arms share, measured once."""

    def __init__(self, subject: Subject, trial: EscapeOptions, labels: Sequence[int]) -> None:
        self.subject = subject
        self.tracking = Tracking(samples=trial.samples_per_class, products=trial.products)
        self.images = held_images(subject.dataset, labels, self.tracking)
        self.precision = Precision(subject.opened.config.precision, subject.device.type)
        tracker = new_tracker(self.tracking, nn.CrossEntropyLoss(), self.images)
        points = tracker(subject.model, 0, force=True)
        self.warm = tracker.state_dict()
        loader = evaluation_loaders(subject.dataset, subject.device)["test"]
        scorer = score(subject.model, loader.epoch(0), subject.dataset.num_classes, self.precision)
        scores = scorer.scores(subject.dataset.groups)
        self.start = self._row(subject.model, 0, points, scores.row(), None, warm=False)

    def run(self, arm: Arm, stage: Stage, seed: int, watchers: list[Watcher]) -> Arm:
        config = self.subject.opened.config
        model = copy.deepcopy(self.subject.model)
        parts = assemble(
            stage, self.subject.dataset, model, device=self.subject.device, precision=self.precision,
            seed=config.seed * 1000 + self.subject.opened.cursor.stage + 1_000_000 * seed,
        )  # fmt: skip
        own, cursor = config.stages[self.subject.opened.cursor.stage], self.subject.opened.cursor
        parts.setting = held_setting(own, trained_epoch(cursor), self.subject.dataset.class_counts, stage)
        tracker = new_tracker(self.tracking, nn.CrossEntropyLoss(), self.images)
        tracker.load_state_dict(self.warm)
        rows = [self.start]

        def record(parts: Parts, row: dict[str, Any], points: list[TrackPoint]) -> None:
            rows.append(self._row(parts.model, row["epoch"] + 1, points, row["test"], row["train_loss"], warm=True))

        watcher = CurvatureWatcher(tracker, 1, record)
        problem = None
        torch.manual_seed(seed)
        try:
            fit(parts, save=lambda epoch, running: None, record=lambda row: None, watchers=[*watchers, watcher])
        except InputError as error:  # it diverged: a finding, not an accident
            problem = str(error)
        return Arm(
            arm=arm.arm,
            optimizer=arm.optimizer,
            rho=arm.rho,
            seed=seed,
            problem=problem,
            epochs=rows,
            seconds=watcher.seconds + watcher.training_seconds,
            curvature_share=watcher.share,
        )

    def _row(
        self, model: nn.Module, epoch: int, points: Sequence[TrackPoint], test: Mapping[str, Any],
        train_loss: float | None, *, warm: bool,
    ) -> ArmEpoch:  # fmt: skip
        rows = class_points(
            points, self.subject.dataset, model, self.images, batch=EVALUATION_BATCH,
            test_accuracy=test["per_class"], warm=warm,
        )  # fmt: skip
        mean = mean_of(rows, "followed")
        return ArmEpoch(
            epoch=epoch,
            train_loss=train_loss,
            accuracy=test["accuracy"],
            head=test.get("head"),
            mid=test.get("mid"),
            tail=test.get("tail"),
            lambda_min=mean.lambda_min,
            lambda_max=mean.lambda_max,
            nonconvexity=mean.nonconvexity,
            loss=mean.loss,
            converged=mean.converged,
            classes=rows,
        )


def _tail_images(dataset: Dataset) -> int:
    labels = dataset.test.labels
    return int(torch.isin(labels, torch.tensor(dataset.groups["tail"], dtype=labels.dtype)).sum())


def verdict(arms: Sequence[Arm], tail_images: int) -> Verdict | None:
    """Does Momentum-SAM help the tail as much as SAM? By rules, in words, with what is not known.

    An arm's figure is its mean tail accuracy over the last three epochs; its gain is over SGD with the same seed; the
    best radius of each optimiser is compared. Noise: with two or more seeds, twice the standard error of the difference
    between the two gains; with one, twice the standard error that the finite test set alone gives. None until the arms
    sgd, sam and momentum-sam have all been run.
    """
    late = {(row.arm, row.seed): _late(row, "tail") for row in arms if row.problem is None}
    seeds = sorted({seed for name, seed in late if name == "sgd"})
    gains: dict[str, list[float]] = {}
    for row in arms:
        name = row.arm
        here = [(late.get((name, seed)), late[("sgd", seed)]) for seed in seeds]
        pairs = [(mine, base) for mine, base in here if mine is not None and base is not None]
        if pairs and len(pairs) == len(seeds):
            gains[name] = [mine - base for mine, base in pairs]
    best = {
        kind: max((name for name in gains if name.startswith(f"{kind}@")), key=lambda n: statistics.mean(gains[n]),
                  default=None)
        for kind in ("sam", "momentum-sam")
    }  # fmt: skip
    sam, momentum = best["sam"], best["momentum-sam"]
    if sam is None or momentum is None or not tail_images:
        return None
    gain, other = statistics.mean(gains[sam]), statistics.mean(gains[momentum])
    if len(seeds) > 1:
        apart = [a - b for a, b in zip(gains[sam], gains[momentum], strict=True)]
        noise, source = 2 * statistics.stdev(apart) / math.sqrt(len(seeds)), f"{len(seeds)} seeds"
    else:
        share = min(max((late[(sam, seeds[0])] or 0.0) / 100, 0.0), 1.0)
        noise = 2 * 100 * math.sqrt(2 * share * (1 - share) / tail_images)
        source = "the finite test set alone; one seed says nothing of the spread between seeds"
    answer, words = _rule(gain, other, noise)
    curvature = {name: _mean_late(arms, name, "lambda_min") for name in ("sgd", sam, momentum)}
    losses = {name: _mean_late(arms, name, "loss") for name in ("sgd", sam, momentum)}
    start = arms[0].epochs[0]
    tries = {kind: sum(name.startswith(f"{kind}@") for name in gains) for kind in best}
    text = (
        f"{words} Gains in tail accuracy over SGD: {sam} {gain:+.1f}, {momentum} {other:+.1f} points; noise "
        f"{noise:.1f} ({source}). Mean lambda_min of the followed classes, from {start.lambda_min:.3g}: "
        + ", ".join(f"{name} {value:.3g}" for name, value in curvature.items() if value is not None)
        + f"; their mean loss, from {start.loss:.3g}: "
        + ", ".join(f"{name} {value:.3g}" for name, value in losses.items() if value is not None)
        + f". The best of {tries['sam']} and of {tries['momentum-sam']} radii was chosen on the same test set."
    )
    return Verdict(
        answer=answer,
        text=text,
        sam=TailGain(arm=sam, tail_gain=gain),
        momentum_sam=TailGain(arm=momentum, tail_gain=other),
        gains={name: statistics.mean(values) for name, values in gains.items()},
        noise=noise,
        noise_from=source,
        seeds=seeds,
        late_epochs=LATE,
        late_lambda_min=curvature,
        late_loss=losses,
    )


def _rule(sam: float, momentum: float, noise: float) -> tuple[str, str]:
    if sam <= noise:
        return "no gain to explain", "SAM does not lift the tail beyond noise here, so there is nothing to explain."
    if momentum >= sam - noise:
        return "as much", (
            "Momentum-SAM helps the tail as much as SAM: what amplified negative curvature predicts (other causes may "
            "predict it too)."
        )
    if momentum > noise:
        return "less", "Momentum-SAM helps the tail, but less than SAM: amplified negative curvature is not all of it."
    return "not at all", (
        "Momentum-SAM does not help the tail where SAM does: amplified negative curvature is not why SAM helps here."
    )


def _late(row: Arm, key: str) -> float | None:
    return _mean(getattr(epoch, key) for epoch in row.epochs[1:][-LATE:])


def _mean_late(arms: Sequence[Arm], name: str, key: str) -> float | None:
    return _mean(_late(row, key) for row in arms if row.arm == name and row.problem is None)


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.mean(present) if present else None


def _figures(row: Arm) -> str:
    if row.problem is not None:
        return f"{row.arm}, seed {row.seed}: {row.problem}"
    first, last = row.epochs[0], row.epochs[-1]
    tail = "n/a" if last.tail is None or first.tail is None else f"{first.tail:.1f} -> {last.tail:.1f}"
    return (
        f"{row.arm}, seed {row.seed}: tail {tail}, lambda_min {first.lambda_min:.3g} -> {last.lambda_min:.3g}, "
        f"class loss {first.loss:.3g} -> {last.loss:.3g}"
    )
