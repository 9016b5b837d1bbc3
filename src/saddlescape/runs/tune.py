"""Search hyperparameters of a method on a validation split, with Optuna's TPE; resumable, one run folder a trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saddlescape.data.types import Dataset
from saddlescape.disk import write_text
from saddlescape.errors import InputError, MissingExtraError
from saddlescape.records import files
from saddlescape.records.config import RunConfig, Stage
from saddlescape.runs import config as configuration
from saddlescape.runs.config import to_toml
from saddlescape.runs.execute import OTHER_OUT, Say, execute
from saddlescape.runs.plan import Loaded, facts_of, plan, recipe_of
from saddlescape.runs.request import Request
from saddlescape.runs.search_space import Range, space
from saddlescape.training.loop import Watcher
from saddlescape.training.precision import resolve_device

TRIALS, TUNED, BEST = "trials.jsonl", "tuned.json", "best.toml"
CRITERION = "balanced accuracy on the validation split, last epoch"


def tune(
    request: Request,
    folder: Path,
    *,
    trials: int,
    searches: Sequence[str] = (),
    watchers: Callable[[str, Stage, int], Sequence[Watcher]] = lambda label, stage, start: (),
    say: Say = lambda line: None,
    progress: Callable[..., None] | None = None,
) -> dict[str, Any]:
    """Train ``trials`` runs of ``request.method`` and keep the one that is best on the validation split.

    Trial 0 has the recipe's own values. Trial n is a function of the trials before it and of ``request.seed``, so a
    search that was killed resumes and ends with the same result. The test set plays no part in the choice. Writes
    ``trials.jsonl``, ``tuned.json`` and ``best.toml`` (the best settings for training on all images, for
    ``train --recipe``).

    Raises:
        InputError: no validation split, a field that cannot be searched, a folder begun with another search.
        MissingExtraError: Optuna is not installed.
    """
    optuna = _optuna()
    if not request.val:
        raise InputError("--val 0: tuning needs a validation split, e.g. --val 0.2; the test set is not for choosing")
    if trials < 1:
        raise InputError(f"--trials {trials}: at least 1")
    loaded = Loaded()
    base, dataset, notes = plan(request, progress, loaded, configuration.begun(folder / "trial-000"))
    for note in notes:
        say(note)
    ranges = space(recipe_of(request, facts_of(dataset, resolve_device(base.device), base.backbone.frozen)), searches)
    if searches:  # a field that is unknown ends the search before the first trial
        plan(replace(request, settings=(*request.settings, *(one.setting(one.low) for one in ranges))), None, loaded)
    files.make_folder(folder, "choose another --out")
    _same_search(folder, base, ranges, dataset)
    done = files.read_rows(folder / TRIALS)
    files.keep_rows(folder / TRIALS, done)
    for number in range(len(done), trials):
        settings = _ask(optuna, ranges, done, request.seed or 0, number)
        chosen = replace(request, settings=(*request.settings, *settings))
        trial_folder = folder / f"trial-{number:03d}"
        config, dataset, _ = plan(chosen, progress, loaded, configuration.begun(trial_folder))
        if dataset.val is not None:  # nobody looks at the test set: what a trial calls test is the validation split
            dataset = replace(dataset, test=dataset.val)
        label = f"[{number + 1}/{trials}] {' '.join(settings) or 'as published'}"

        def watch(stage: Stage, start: int, label: str = label) -> Sequence[Watcher]:
            return watchers(label, stage, start)

        value, reason = None, ""
        try:
            result = execute(config, dataset, trial_folder, say=say, watchers=watch)
            value = result["val_balanced_accuracy"]
        except InputError as error:
            if "finite" not in str(error):
                raise
            reason = str(error)  # a setting that diverges is a bad setting, not the end of the search
            say(f"trial {number}: {reason}")
        row = {"trial": number, "settings": settings, "values": _values(settings, ranges), "value": value}
        files.append_row(folder / TRIALS, row | ({"failed": reason} if reason else {}))
        done.append(row)
    return _write(folder, base, done, ranges, request)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("tuning", "tune", "optuna") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _ask(optuna: Any, ranges: Sequence[Range], done: Sequence[dict[str, Any]], seed: int, number: int) -> list[str]:
    """The settings of trial ``number`` in view of those before it."""
    if number == 0:
        return []
    distributions = {one.path: optuna.distributions.FloatDistribution(one.low, one.high, log=one.log) for one in ranges}
    sampler = optuna.samplers.TPESampler(seed=1000 * seed + number, n_startup_trials=min(8, 2 + 2 * len(ranges)))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for row in done:
        if row["value"] is not None and len(row["values"]) == len(ranges):
            study.add_trial(
                optuna.trial.create_trial(params=row["values"], distributions=distributions, value=row["value"])
            )
    asked = study.ask(distributions)
    return [one.setting(asked.params[one.path]) for one in ranges]


def _values(settings: Sequence[str], ranges: Sequence[Range]) -> dict[str, float]:
    given = dict(setting.split("=") for setting in settings)
    return {one.path: float(given[one.path]) for one in ranges if one.path in given}


def _same_search(folder: Path, base: RunConfig, ranges: Sequence[Range], dataset: Dataset) -> None:
    """Raises InputError where the folder holds another search; writes what this one is into a new folder."""
    about = {"config": to_toml(replace(base, threads=0)), "ranges": [vars(one) for one in ranges]}
    images = {"draw_hash": dataset.draw_hash, "held_hash": dataset.held_hash}
    path = folder / "search.json"
    if not path.exists():
        files.write_json(path, about | images)
        return
    begun = files.read_json(path)
    try:
        refused, _ = configuration.differences(configuration.from_toml(begun["config"], str(path)), base)
        same = not refused and begun["ranges"] == about["ranges"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: incomplete ({error}); restore it, or choose another --out") from error
    if any(begun.get(name, value) != value for name, value in images.items()):
        raise InputError(f"{folder} was searched on other images: {OTHER_OUT}")
    if not same:
        raise InputError(f"{folder} holds a search with other settings or ranges: use those, or choose another --out")


def _write(
    folder: Path, base: RunConfig, done: Sequence[dict[str, Any]], ranges: Sequence[Range],
    request: Request,
) -> dict[str, Any]:  # fmt: skip
    finished = [row for row in done if row["value"] is not None]
    if not finished:
        raise InputError(f"{folder}: every trial failed; narrow the ranges with --search")
    best = max(finished, key=lambda row: row["value"])
    tuned = {
        "method": base.method,
        "dataset": base.data.name,
        "imbalance": base.data.imbalance or None,
        "epochs": base.stages[0].epochs,
        "val": base.data.val,
        "criterion": CRITERION,
        "trials": list(done),
        "as_published": done[0]["value"],
        "best": best["trial"],
        "best_value": best["value"],
        "settings": best["settings"],
    }
    files.write_json(folder / TUNED, tuned)
    everything = replace(request, val=0.0, settings=(*request.settings, *best["settings"]))
    config, _, _ = plan(everything)
    write_text(folder / BEST, to_toml(config))
    return tuned


def tuned_settings(folder: Path, method: str) -> list[str]:
    """The settings that a search in ``folder``, or in a folder under it, found for ``method``.

    Raises:
        InputError: no search of ``method`` is finished there.
    """
    for path in [folder / TUNED, *sorted(folder.glob(f"*/{TUNED}"))]:
        if path.is_file():
            tuned = files.read_json(path)
            if tuned.get("method") == method:
                return [str(setting) for setting in tuned["settings"]]
    raise InputError(f"--tuned {folder}: no finished search for {method}; run saddlescape tune with --method {method}")
