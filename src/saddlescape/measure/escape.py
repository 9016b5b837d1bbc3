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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import saddlescape
from saddlescape.curvature import TrackPoint
from saddlescape.data.types import Dataset
from saddlescape.errors import InputError
from saddlescape.measure.course import Tracking, class_rows, group_rows, held_images, new_tracker
from saddlescape.measure.course import accuracy as accuracy_of
from saddlescape.measure.spectra import SPECTRA, duration
from saddlescape.measure.subject import Subject, set_aside, trained_epoch
from saddlescape.records import files
from saddlescape.records.config import Stage, check_stages
from saddlescape.runs.execute import device_name
from saddlescape.runs.images import require_same
from saddlescape.training.assemble import assemble
from saddlescape.training.batches import EVALUATION_BATCH, evaluation_loaders
from saddlescape.training.epoch import EpochSetting, at
from saddlescape.training.evaluate import evaluate
from saddlescape.training.loop import Parts, Watcher, as_row, fit
from saddlescape.training.precision import Precision
from saddlescape.training.tracker import CurvatureWatcher

FORMAT = "saddlescape-escape-1"
ESCAPE = "escape.json"
ARMS = (
    "sgd", "pgd@0.5", "sam@0.05", "sam@0.1", "sam@0.2", "sam@0.5",
    "momentum-sam@0.5", "momentum-sam@1.5", "momentum-sam@3",
)  # fmt: skip
OPTIMIZERS = ("sgd", "pgd", "sam", "momentum-sam")
LATE = 3  # epochs at the end of an arm whose mean is compared
Say = Callable[[str], None]


@dataclass(frozen=True)
class Arm:
    """An optimiser and its radius; PGD's is that of its kicks, one an epoch."""

    optimizer: str
    rho: float | None = None

    @property
    def name(self) -> str:
        return self.optimizer if self.rho is None else f"{self.optimizer}@{self.rho:g}"


@dataclass(frozen=True)
class Trial:
    """``epochs`` at ``lr`` for each arm and seed (of the data's order); curvature of ``samples`` images of each class
    to ``tol`` within ``products`` products."""

    arms: tuple[str, ...] = ARMS
    epochs: int = 10
    lr: float = 0.01
    seeds: tuple[int, ...] = (0,)
    samples: int = 256
    products: int = 60
    tol: float = 1e-2


def parse_arm(text: str) -> Arm:
    """``sgd``, ``pgd@0.5``, ``sam@0.1``, ``momentum-sam@1.5``.

    Raises:
        InputError: another optimiser, or a radius missing, not wanted or out of range.
    """
    name, at, value = text.partition("@")
    if name not in OPTIMIZERS:
        raise InputError(f"--arms {text}: unknown optimiser {name!r}; known are {', '.join(OPTIMIZERS)}")
    if name == "sgd":
        if at:
            raise InputError(f"--arms {text}: sgd has no radius")
        return Arm(name)
    try:
        rho = float(value)
    except ValueError:
        raise InputError(f"--arms {text}: give the radius as {name}@0.5") from None
    if not 0 < rho < math.inf:
        raise InputError(f"--arms {text}: a radius is finite and above 0")
    return Arm(name, rho)


def stage_for(arm: Arm, stage: Stage, epochs: int, lr: float, steps: int) -> Stage:
    """The run's own stage with another optimiser and a constant rate; its loss is that of ``held_setting``."""
    return dataclasses.replace(
        stage,
        name=arm.name,
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
    trial: Trial,
    *,
    classes: Sequence[int] | None = None,
    out: Path | None = None,
    say: Say = lambda line: None,
    watchers: Callable[[Stage], Sequence[Watcher]] = lambda stage: (),
) -> dict[str, Any]:
    """Run every arm with every seed that has no rows yet; returns what lies in ``RUN/escape.json`` (or ``out``).

    ``classes``: whose curvature is followed; default: the tail. Raises InputError for arms, numbers or classes that
    cannot be; an arm whose training diverges is recorded as such and the next one goes on.
    """
    arms = [parse_arm(text) for text in dict.fromkeys(trial.arms)]
    dataset = subject.dataset
    labels = [c for c in dataset.groups["tail"] if dataset.class_counts[c]] if classes is None else list(classes)
    if not labels:
        raise InputError("the tail of this data has no training images; name others with --classes")
    if not trial.seeds:
        raise InputError("--seeds: give at least one")
    opened = subject.opened
    # The arms are scored on the test images too.
    require_same(subject.folder, opened.config, opened.meta, dataset, "restore the data as it was")
    stage = opened.config.stages[opened.cursor.stage]
    steps = -(-sum(dataset.class_counts) // stage.batch_size)
    stages = {arm.name: stage_for(arm, stage, trial.epochs, trial.lr, steps) for arm in arms}
    check_stages(list(stages.values()))
    path = out if out is not None else subject.folder / ESCAPE
    files.make_folder(path.parent)
    files.make_folder(subject.folder / SPECTRA)
    with files.locked(subject.folder / SPECTRA):
        content = _begin(subject, trial, labels, path, say)
        todo = [
            (seed, arm) for seed in trial.seeds for arm in arms
            if not any((row["arm"], row["seed"]) == (arm.name, seed) for row in content["arms"])
        ]  # fmt: skip
        if not todo:
            say(f"already measured: {path}")
        bench = _Bench(subject, trial, labels) if todo else None
        for number, (seed, arm) in enumerate(todo, start=1):
            assert bench is not None
            content["arms"].append(bench.run(arm, stages[arm.name], seed, list(watchers(stages[arm.name]))))
            content["verdict"] = verdict(content["arms"], _tail_images(dataset))
            files.write_json(path, content)
            seconds = statistics.mean(row["seconds"] for row in content["arms"])
            say(f"{_told(content['arms'][-1])}; {number} of {len(todo)} arms, "
                f"about {duration(seconds * (len(todo) - number))} left")  # fmt: skip
        return content


def _begin(subject: Subject, trial: Trial, labels: Sequence[int], path: Path, say: Say) -> dict[str, Any]:
    """What was measured before under these settings; which arms and seeds were asked for does not matter."""
    plain = asdict(trial)
    del plain["arms"], plain["seeds"]
    settings = {
        "checkpoint": subject.checkpoint, "weights": subject.weights, "draw_hash": subject.dataset.draw_hash,
        "classes": list(labels), **plain,
    }  # fmt: skip
    if path.exists():
        old = files.read_json(path)
        if isinstance(old, dict) and (old.get("format"), old.get("settings")) == (FORMAT, settings):
            return old
        say(f"running again with other settings; the former file is now {set_aside(path)}")
    config = subject.opened.config
    return {
        "format": FORMAT,
        "method": config.method,
        "dataset": subject.dataset.name,
        "model": config.model,
        "settings": settings,
        "class_names": subject.dataset.classes,
        "group_labels": subject.dataset.groups,
        "device": device_name(str(subject.device)),
        "precision": config.precision,
        "arms": [],
        "verdict": None,
        "version": saddlescape.__version__,
        "torch": torch.__version__,
    }


class _Bench:
    """The starting point that all arms share, measured once."""

    def __init__(self, subject: Subject, trial: Trial, labels: Sequence[int]) -> None:
        self.subject, self.trial, self.labels = subject, trial, list(labels)
        self.tracking = Tracking(samples=trial.samples, products=trial.products, tol=trial.tol)
        self.images = held_images(subject.dataset, self.labels, self.tracking)
        self.precision = Precision(subject.opened.config.precision, subject.device.type)
        tracker = new_tracker(self.tracking, nn.CrossEntropyLoss(), self.images)
        points = tracker(subject.model, 0, force=True)
        self.warm = tracker.state_dict()
        loader = evaluation_loaders(subject.dataset, subject.device)["test"]
        scores = evaluate(
            subject.model, loader.epoch(0), subject.dataset.num_classes, subject.dataset.groups, self.precision
        )
        self.start = self._row(subject.model, 0, points, as_row(scores), None, warm=False)

    def run(self, arm: Arm, stage: Stage, seed: int, watchers: list[Watcher]) -> dict[str, Any]:
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
        return {
            "arm": arm.name,
            "optimizer": arm.optimizer,
            "rho": arm.rho,
            "seed": seed,
            "problem": problem,
            "epochs": rows,
            "seconds": watcher.seconds + watcher.training_seconds,
            "curvature_share": watcher.share,
        }

    def _row(
        self, model: nn.Module, epoch: int, points: Sequence[TrackPoint], test: Mapping[str, Any],
        train_loss: float | None, *, warm: bool,
    ) -> dict[str, Any]:  # fmt: skip
        dataset = self.subject.dataset
        rows = class_rows(
            points, dataset, stage=self.subject.opened.cursor.stage, source="escape", warm=warm,
            train_accuracy=accuracy_of(model, self.images, EVALUATION_BATCH), test_accuracy=test["per_class"],
        )  # fmt: skip
        for row in rows:
            del row["stage"], row["epoch"], row["source"]
        mean = group_rows([row | {"stage": 0, "epoch": epoch} for row in rows], {"followed": self.labels})[0]
        keys = ("lambda_min", "lambda_max", "nonconvexity", "loss", "converged")
        return {
            "epoch": epoch,
            "train_loss": train_loss,
            "accuracy": test["accuracy"],
            **{name: test.get(name) for name in dataset.groups},
            **{key: mean[key] for key in keys},
            "classes": rows,
        }


def _tail_images(dataset: Dataset) -> int:
    labels: Tensor = dataset.test.labels
    return int(torch.isin(labels, torch.tensor(dataset.groups["tail"], dtype=labels.dtype)).sum())


def verdict(arms: Sequence[Mapping[str, Any]], tail_images: int) -> dict[str, Any] | None:
    """Does Momentum-SAM help the tail as much as SAM? By rules, in words, with what is not known.

    An arm's figure is its mean tail accuracy over the last three epochs; its gain is over SGD with the same seed; the
    best radius of each optimiser is compared. Noise: with two or more seeds, twice the standard error of the difference
    between the two gains; with one, twice the standard error that the finite test set alone gives. None until the arms
    sgd, sam and momentum-sam have all been run.
    """
    late = {(row["arm"], row["seed"]): _late(row, "tail") for row in arms if row["problem"] is None}
    seeds = sorted({seed for name, seed in late if name == "sgd"})
    gains: dict[str, list[float]] = {}
    for row in arms:
        name = row["arm"]
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
    start = arms[0]["epochs"][0]
    tries = {kind: sum(name.startswith(f"{kind}@") for name in gains) for kind in best}
    text = (
        f"{words} Gains in tail accuracy over SGD: {sam} {gain:+.1f}, {momentum} {other:+.1f} points; noise "
        f"{noise:.1f} ({source}). Mean lambda_min of the followed classes, from {start['lambda_min']:.3g}: "
        + ", ".join(f"{name} {value:.3g}" for name, value in curvature.items() if value is not None)
        + f"; their mean loss, from {start['loss']:.3g}: "
        + ", ".join(f"{name} {value:.3g}" for name, value in losses.items() if value is not None)
        + f". The best of {tries['sam']} and of {tries['momentum-sam']} radii was chosen on the same test set."
    )
    return {
        "answer": answer,
        "text": text,
        "sam": {"arm": sam, "tail_gain": gain},
        "momentum_sam": {"arm": momentum, "tail_gain": other},
        "gains": {name: statistics.mean(values) for name, values in gains.items()},
        "noise": noise,
        "noise_from": source,
        "seeds": seeds,
        "late_epochs": LATE,
        "late_lambda_min": curvature,
        "late_loss": losses,
    }


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


def _late(row: Mapping[str, Any], key: str) -> float | None:
    values = [epoch[key] for epoch in row["epochs"][1:][-LATE:] if epoch[key] is not None]
    return statistics.mean(values) if values else None


def _mean_late(arms: Sequence[Mapping[str, Any]], name: str, key: str) -> float | None:
    values = [_late(row, key) for row in arms if row["arm"] == name and row["problem"] is None]
    present = [value for value in values if value is not None]
    return statistics.mean(present) if present else None


def _told(row: Mapping[str, Any]) -> str:
    if row["problem"] is not None:
        return f"{row['arm']}, seed {row['seed']}: {row['problem']}"
    first, last = row["epochs"][0], row["epochs"][-1]
    tail = "n/a" if last["tail"] is None or first["tail"] is None else f"{first['tail']:.1f} -> {last['tail']:.1f}"
    return (
        f"{row['arm']}, seed {row['seed']}: tail {tail}, lambda_min {first['lambda_min']:.3g} -> "
        f"{last['lambda_min']:.3g}, class loss {first['loss']:.3g} -> {last['loss']:.3g}"
    )
