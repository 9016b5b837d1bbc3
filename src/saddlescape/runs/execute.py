"""Carry out a run in its folder: build each stage, resume if a checkpoint is there, leave ``result.json``."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import torch

import saddlescape
from saddlescape.data.cores import usable_cores
from saddlescape.data.types import Dataset
from saddlescape.errors import InputError, counted
from saddlescape.parallel.ranks import ALONE, Ranks, device_of, sync_batchnorm
from saddlescape.records import files, metrics
from saddlescape.records.config import RunConfig, Stage
from saddlescape.records.metrics import EpochRow
from saddlescape.records.result import Result
from saddlescape.records.result_warnings import result_warnings
from saddlescape.runs import config as configuration
from saddlescape.runs.backbone import require_weights
from saddlescape.runs.first_stage import first_stage_hash, load_first_stage
from saddlescape.runs.frozen import image_preprocess, stored_preprocess, with_features
from saddlescape.runs.images import require_same, write_images
from saddlescape.training.checkpoint import Checkpoint, CheckpointFolder, Cursor
from saddlescape.training.closed_form import fit_head
from saddlescape.training.epoch import total_work
from saddlescape.training.loop import Watcher, fit
from saddlescape.training.parts import Parts, assemble, new_model, next_head
from saddlescape.training.precision import Precision
from saddlescape.training.running import Running

OTHER_OUT = "restore the data as it was, or choose another --out"
Say = Callable[[str], None]

SAVE_EVERY = 600.0  # seconds: what a kill in the middle of a long epoch may cost
FEATURES_SAVE = 2.0  # seconds between checkpoints after epochs on features
ECHO = 5.0  # seconds within which torchrun repeats a signal that its processes have had already


@contextmanager
def stop_on_signal(echo: float = 0.0) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into "stop at the next step"; a second one, not just its ``echo`` within so
    many seconds, stops at once."""
    asked = threading.Event()
    first = 0.0
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not asked.is_set():
            first = time.monotonic()
        elif time.monotonic() - first >= echo:
            raise KeyboardInterrupt
        asked.set()

    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def every(seconds: float) -> Callable[[], bool]:
    """True once whenever so many seconds have passed since it last was (or since this call); 0: never."""
    last = time.monotonic()

    def due() -> bool:
        nonlocal last
        if seconds <= 0 or time.monotonic() - last < seconds:
            return False
        last = time.monotonic()
        return True

    return due


@contextmanager
def _compiler_may_be_stopped(asked: Callable[[], bool]) -> Iterator[None]:
    """Ctrl-C reaches the programs of ``torch.compile`` too; their failure is then not an error.

    Raises:
        KeyboardInterrupt: in place of the compiler's error, where ``asked`` to stop. No step was under way.
    """
    try:
        yield
    except Exception as error:
        if asked() and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise KeyboardInterrupt from error
        raise


def execute(
    config: RunConfig,
    dataset: Dataset,
    folder: Path,
    *,
    watchers: Callable[[Stage, int], Sequence[Watcher]] = lambda stage, start: (),
    say: Say = lambda line: None,
    save_every: float = SAVE_EVERY,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Run or resume ``config`` in ``folder`` and return its result.

    A checkpoint is written after each epoch (on features at most every two seconds), and in the middle of one when
    ``save_every`` seconds have passed since the last of these (0: not then); it changes no bit of the result.

    With several ``ranks`` all of them call this; the first alone looks at the folder, writes, says and watches.

    Raises:
        InputError: the folder belongs to another configuration, is in use, cannot be written; or training failed.
        Interrupted: a signal came; a checkpoint has been written.
    """
    if config.processes != ranks.size:
        raise InputError(
            f"this run is one of {config.processes} processes and {ranks.size} run it: "
            + (f"start torchrun --nproc-per-node {config.processes}" if config.processes > 1 else "leave out torchrun")
        )
    if ranks.first:
        files.make_folder(folder, "choose another --out")
        _refuse_strangers(folder)  # before a lock file is added to somebody else's things
    with files.locked(folder) if ranks.first else nullcontext():
        finished = None
        if ranks.first:
            config = _settle(config, folder, say)
            finished = files.read_result(folder)
        config, finished = ranks.from_first((config, finished))
        if finished is not None:
            if ranks.first:
                require_same(folder, config, finished, dataset, OTHER_OUT)
                say(f"{folder} is finished: accuracy {finished['accuracy']:.2f}")
            return finished
        if config.threads and torch.device(config.device).type == "cpu":
            torch.set_num_threads(config.threads)
        if not ranks.first:
            watchers, say = (lambda stage, start: ()), (lambda line: None)
        return ranks.from_first(_run(config, dataset, folder, watchers, say, every(save_every), ranks))


def _refuse_strangers(folder: Path) -> None:
    """Raises InputError for a folder that holds something, but no run."""
    strangers = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if strangers and not files.is_run(folder):
        raise InputError(
            f"{folder} is not empty and not a run of saddlescape (it holds {strangers[0]!r}); choose another --out"
        )


def _settle(config: RunConfig, folder: Path, say: Say) -> RunConfig:
    """Write the configuration of a new run, or hold it against the one that is there."""
    if not files.is_run(folder):
        _refuse_strangers(folder)
        configuration.save(config, folder)
        return config
    old = configuration.load(folder)
    config = _with_threads_of(old, config, say)
    allowed = allowed_changes(old, config, folder)
    if allowed:
        say(f"resuming with {'; '.join(allowed)}")
        configuration.save(config, folder)
    return config


def allowed_changes(old: RunConfig, config: RunConfig, folder: Path) -> list[str]:
    """What differs from the configuration in ``folder`` and may. Raises InputError for what may not."""
    refused, allowed = configuration.differences(old, config)
    if refused:
        rest = f"; {len(refused) - 5} more" if len(refused) > 5 else ""
        raise InputError(
            f"{folder} was begun with other settings ({'; '.join(refused[:5])}{rest}): "
            "use those, or choose another --out; nothing was changed"
        )
    return allowed


def _with_threads_of(old: RunConfig, config: RunConfig, say: Say) -> RunConfig:
    """Sums over another number of threads round differently: a resumed run keeps its own where the machine has them."""
    if old.threads in (0, config.threads) or old.threads > (os.cpu_count() or 1):
        return config
    say(f"going on with {old.threads} threads, as the run was begun, so that its bits stay the same")
    return replace(config, threads=old.threads)


def _run(
    config: RunConfig, dataset: Dataset, folder: Path,
    watchers: Callable[[Stage, int], Sequence[Watcher]], say: Say, should_save: Callable[[], bool], ranks: Ranks,
) -> dict[str, Any]:  # fmt: skip
    device = device_of(torch.device(config.device), ranks)
    ranks = replace(ranks, sync_ascent=config.sync_sam)
    precision = Precision(config.precision, device.type)
    checkpoints = CheckpointFolder(folder / files.CHECKPOINT, config.keep_every)
    damaged: list[str] = []
    resumed = ranks.from_first(checkpoints.newest(damaged) if ranks.first else None)
    for problem in damaged:
        say(f"warning: {problem}; going on from the checkpoint before it")
    cursor = resumed.cursor if resumed is not None else Cursor(stage=1) if config.start else Cursor()
    was = image_preprocess(resumed.meta).get("white_level", 0.0) if resumed is not None else None
    if was not in (None, dataset.preprocess.white_level):
        raise InputError(
            f"{folder} was trained on images whose values of 0 to {was or 65535:g} became 0 to 255, now those of 0 to "
            f"{dataset.preprocess.white_level or 65535:g} do: choose another --out"
        )
    if resumed is not None:
        require_same(folder, config, resumed.meta, dataset, OTHER_OUT)
    if ranks.first:
        _go_back(config, folder, cursor, say)
    images = dataset.source or dataset
    if config.backbone.frozen:  # the first process computes the features, the others read them
        seen = None if resumed is None else stored_preprocess(resumed.meta["preprocess"])
        made = with_features(config, dataset, folder, say, seen) if ranks.first else None
        ranks.from_first(None)
        dataset = made or with_features(config, dataset, folder, trained_on=seen)
    # Pretrained weights are fetched once: a resumed run takes all weights from its checkpoint.
    fresh = resumed is None and ranks.first
    pretrained = bool(config.backbone.weights_hash) and not config.backbone.frozen
    options: dict[str, Any] = dict(config.network_options)
    if fresh and (config.pretrained or pretrained):
        options |= {"pretrained": True, "weights": config.backbone.weights}
    # The head that the stage before left: `_build` makes the one of the stage itself where it has its own.
    head = config.stages[max(cursor.stage - 1, 0)].head
    model = new_model(config.network, dataset, head, config.seed, **options)
    if fresh and pretrained:
        require_weights(config, model)
    if resumed is None and config.start and ranks.first:
        source = folder / config.start
        for remark in load_first_stage(model, source, config.start_hash, dataset):
            say(remark)
        say(f"first stage: that of {source} (weights {config.start_hash})")
    if resumed is None and dataset.base is not None and ranks.first:
        write_images(folder, images, folder / config.start if config.start else None)
    ranks.copy_first(model.state_dict().values())
    meta = {
        "draw_hash": dataset.draw_hash,
        "held_hash": dataset.held_hash,
        "classes": dataset.classes,
        "class_counts": dataset.class_counts,
        "groups": dataset.groups,
        "preprocess": asdict(dataset.preprocess),
        **({"image_preprocess": asdict(dataset.source.preprocess)} if dataset.source is not None else {}),
        "model": config.model,
        "head": config.stages[-1].head,
        "method": config.method,
        "saddlescape": saddlescape.__version__,
    }
    skipping = dataset.preprocess.features and not config.keep_every  # an epoch on features takes milliseconds
    due = every(FEATURES_SAVE)
    with stop_on_signal(0.0 if ranks.alone else ECHO) as should_stop, _compiler_may_be_stopped(should_stop):
        for index, stage in enumerate(config.stages):
            if index < cursor.stage:
                continue
            if resumed is None and index:
                torch.manual_seed(config.seed * 1000 + index)  # whichever run the stage before belongs to
            parts = _build(config, index, dataset, model, device, precision, resumed, ranks)
            running, start = None, 0
            if resumed is not None and resumed.cursor.stage == index:
                running, start = _restore(parts, resumed), resumed.cursor.epoch
                batch = f", batch {running.batch}" if running else ""
                say(f"resuming {folder} after stage {stage.name!r}, epoch {start}{batch}")
            resumed = None

            def save(epoch: int, running: Running | None, index: int = index, parts: Parts = parts) -> None:
                last = epoch >= config.stages[index].epochs
                if skipping and running is None and not (last or should_stop() or due()):
                    return
                at = Cursor(index, epoch, running.batch if running else 0)
                if ranks.first:
                    checkpoints.save(at, parts.model, _state(parts, running), meta)

            def record(row: dict[str, Any], index: int = index, stage: Stage = stage) -> None:
                if ranks.first:
                    metrics.append(folder / files.METRICS, metrics.epoch_of(row, index, stage.name))

            if start < stage.epochs and stage.head_fit:
                fit_head(stage, parts, save=save, record=record)
            elif start < stage.epochs:
                fit(
                    parts, start_epoch=start, running=running, save=save, record=record,
                    should_stop=should_stop, should_save=should_save, watchers=watchers(stage, start),
                )  # fmt: skip
    if not ranks.first:
        return {}
    outcome = summarise(config, dataset, metrics.read_metrics(folder / files.METRICS))
    if len(config.stages) > 1:
        outcome = msgspec.structs.replace(outcome, first_stage=config.start_hash or first_stage_hash(folder))
    result: dict[str, Any] = msgspec.to_builtins(outcome)
    files.write_json(folder / files.RESULT, result)
    return result


def _build(
    config: RunConfig, index: int, dataset: Dataset, model: torch.nn.Module,
    device: torch.device, precision: Precision, resumed: Checkpoint | None, ranks: Ranks,
) -> Parts:  # fmt: skip
    """Bring the network into the form stage ``index`` starts from, then assemble the stage around it."""
    stage = config.stages[index]
    if index:
        model.head = next_head(stage, config.stages[index - 1], model, dataset.num_classes, config.seed)
    if resumed is not None and resumed.cursor.stage == index:
        resumed.fill(model)
    if config.sync_batchnorm:
        sync_batchnorm(model, device, ranks)
    return assemble(
        stage, dataset, model, device=device, precision=precision, compile_model=config.compile,
        seed=config.seed * 1000 + index, eval_every=config.eval_every,
        workers=None if ranks.alone else max(1, min(16, usable_cores() // ranks.local_size)), ranks=ranks,
    )  # fmt: skip


def _state(parts: Parts, running: Running | None) -> dict[str, Any]:
    scaler = parts.step_options.get("scaler")
    state: dict[str, Any] = {
        "optimizer": parts.optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "running": running.state() if running is not None else None,
        "objective": parts.objective.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else None,
    }
    if parts.device.type == "cuda":
        state["cuda_rng"] = torch.cuda.get_rng_state(parts.device)
    return state


def _restore(parts: Parts, checkpoint: Checkpoint) -> Running | None:
    state = checkpoint.state
    parts.optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"])
    parts.objective.load_state_dict(state.get("objective", {}))
    if parts.device.type == "cuda" and "cuda_rng" in state:
        torch.cuda.set_rng_state(state["cuda_rng"], parts.device)
    if state["scaler"] is not None and "scaler" in parts.step_options:
        parts.step_options["scaler"].load_state_dict(state["scaler"])
    return Running(**state["running"]) if state["running"] is not None else None


def _go_back(config: RunConfig, folder: Path, cursor: Cursor, say: Say) -> None:
    """Leave in the metrics what the checkpoint at ``cursor`` knows of."""
    path = folder / files.METRICS
    before = (cursor.stage, cursor.epoch)  # a kill can leave the row of one epoch more than the checkpoint holds
    rows = [row for row in metrics.read_metrics(path) if (row.stage, row.epoch) < before]
    metrics.keep(path, rows)
    first = 1 if config.start else 0  # the stages before it were another run's
    done = sum(stage.epochs for stage in config.stages[first : cursor.stage]) + cursor.epoch
    if len(rows) < done:
        say(f"warning: {path} has {len(rows)} of {done} rows; best epoch and times lack the others")


def summarise(config: RunConfig, dataset: Dataset, rows: Sequence[EpochRow]) -> Result:
    """``result.json`` from the rows of ``metrics.jsonl``; see ``Result``.

    Raises:
        InputError: the rows of the last stage are missing, or lack a score.
    """
    tested = [(row, row.test) for row in rows if row.test is not None and row.stage == len(config.stages) - 1]
    if not tested:
        raise InputError(f"{files.METRICS} has lost its rows: restore it, or score the run with saddlescape evaluate")
    last, test = tested[-1]
    best, best_test = max(tested, key=lambda each: _score(each[1].accuracy))
    seconds = sum(row.seconds for row in rows)
    validated: dict[str, Any] = {}
    if last.val is not None:
        scored = [(row, test, row.val) for row, test in tested if row.val is not None]
        chosen, chosen_test, _ = max(scored, key=lambda each: _score(each[2].balanced_accuracy))
        validated = {
            "val_accuracy": last.val.accuracy,
            "val_balanced_accuracy": last.val.balanced_accuracy,
            "selected_epoch": chosen.epoch + 1,
            "selected_accuracy": chosen_test.accuracy,
            **{f"selected_{group}": getattr(chosen_test, group) for group in dataset.groups},
        }
    result = Result(
        method=config.method,
        dataset=dataset.name,
        imbalance=config.data.imbalance or None,
        seed=config.seed,
        model=config.model,
        epochs=sum(stage.epochs for stage in config.stages),
        stage_epochs=[stage.epochs for stage in config.stages],
        accuracy=_score(test.accuracy),
        head=test.head,
        mid=test.mid,
        tail=test.tail,
        balanced_accuracy=test.balanced_accuracy,
        ece=test.ece,
        per_class=test.per_class or [],
        classes=dataset.classes,
        class_counts=list(dataset.class_counts),
        groups=dataset.groups,
        present_classes=test.present,
        train_loss=last.train_loss,
        best_accuracy=best_test.accuracy,
        best_epoch=best.epoch + 1,
        seconds=seconds,
        images_per_second=sum(row.images for row in rows) / max(seconds, 1e-9),
        work=total_work(config.stages, sum(dataset.class_counts)),
        test_openings=sum(row.test is not None for row in rows),
        device=device_name(config.device),
        precision=config.precision,
        compiled=config.compile,
        processes=config.processes,
        draw_hash=dataset.draw_hash,
        held_hash=dataset.held_hash,
        skipped_images=len(dataset.skipped),
        version=saddlescape.__version__,
        commit=commit(),
        finished=time.strftime("%Y-%m-%d", time.gmtime()),
        torch=str(torch.__version__),
        **validated,
    )
    stages = [stage for stage in config.stages if not stage.head_fit]
    steps = sum(stage.epochs * -(-sum(dataset.class_counts) // stage.batch_size) for stage in stages)
    trained = [row.train_accuracy for row in rows if config.stages[row.stage] is stages[-1]] if stages else []
    known = trained[-1] if trained and stages[-1].objective == "classify" else None
    return msgspec.structs.replace(result, warnings=result_warnings(result, known, steps, config.start_kind))


def commit() -> str:
    """The commit of the checkout that saddlescape runs from, "+changes" where files differ from it; "" without one."""
    root = Path(saddlescape.__file__).resolve().parents[2]
    try:
        if not (root / ".git").exists():
            return ""
        command = ["git", "--no-optional-locks", "-C", str(root), "describe", "--always", "--dirty=+changes",
                   "--abbrev=40", "--exclude=*"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _score(value: float | None) -> float:
    if value is None:
        raise InputError(
            f"{files.METRICS}: a row is damaged, it has no accuracy; restore it, or score the run with saddlescape "
            "evaluate"
        )
    return value


def device_name(device: str) -> str:
    """A device as a person would name it, with the number of threads of a CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(torch.device(device))
    return f"{platform.machine()} CPU, {counted(torch.get_num_threads(), 'thread')}"
