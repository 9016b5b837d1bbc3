"""A grid of runs (rows x seeds): carried out by an engine, resumable, then read back as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saddlescape.data.types import Dataset
from saddlescape.errors import InputError
from saddlescape.methods.grammar import OPTIMIZERS
from saddlescape.methods.resolve import canonical
from saddlescape.runs import config as configuration
from saddlescape.runs import format as files
from saddlescape.runs.config import RunConfig
from saddlescape.runs.engines.events import Epoch, Event, Note, Step
from saddlescape.runs.engines.job import Engine, Job, Outcome, serial
from saddlescape.runs.execute import Say, allowed_changes
from saddlescape.runs.first_stage import same_first_stage
from saddlescape.runs.plan import Loaded, Request, plan
from saddlescape.runs.tune import tuned_settings


def run_folder(grid: Path, method: str, seed: int) -> Path:
    return grid / f"{method}-seed{seed}"


class FailedRuns(InputError):
    """Some runs of a grid failed; all the others are done. ``results`` are theirs, ``failures`` the failed outcomes."""

    def __init__(self, results: list[dict[str, Any]], failures: Sequence[Outcome]) -> None:
        names = ", ".join(f"{outcome.job.config.method} seed {outcome.job.config.seed}" for outcome in failures)
        first = f"{failures[0].failed}" if len(failures) == 1 else f"the first of them: {failures[0].failed}"
        super().__init__(
            f"{len(failures)} of {len(results) + len(failures)} runs failed ({names}); {first}; "
            "run the same command again to try again"
        )
        self.results, self.failures = results, list(failures)
        for outcome in failures:
            if outcome.story:
                self.add_note(f"{outcome.job.label}:\n{outcome.story}")


def plan_grid(
    request: Request,
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    radius: float | None = None,
    tuned: Path | None = None,
    threads: int | None = None,
) -> list[RunConfig]:
    """The configuration of every run of a grid, seeds innermost; nothing is trained."""
    loaded = Loaded()
    configs = [plan(one, None, loaded)[0] for one in _requests(request, methods, seeds, radius, tuned)]
    _once(configs)
    return [_with_threads(config, threads) for config in configs]


def run_grid(
    request: Request,
    methods: Sequence[str],
    seeds: Sequence[int],
    grid: Path,
    *,
    radius: float | None = None,
    tuned: Path | None = None,
    engine: Engine = serial,
    threads: int | None = None,
    say: Say = lambda line: None,
    watch: Callable[[Sequence[Job], Step | Epoch], None] = lambda jobs, event: None,
    progress: Callable[..., None] | None = None,
) -> list[dict[str, Any]]:
    """Execute every row with every seed in ``grid``; a finished one is read, an unfinished one goes on.

    ``radius`` overrides rho in the rows that have one; ``tuned`` is a folder of searches (``saddlescape tune``) whose
    best settings each row is trained with. ``engine`` carries the runs out (default: one after the other, in this
    process), each with ``threads`` threads (default: those of this process); which engine it is moves no bit of a
    result. ``watch`` is told of steps and epochs. Returns the results, seeds innermost.

    Raises:
        InputError: as ``plan``, or a folder was begun with other settings; nothing has been trained then.
        FailedRuns: some runs failed; the others are done.
        Interrupted: a signal came; whatever was running has written a checkpoint.
    """
    loaded = Loaded()
    requests = _requests(request, methods, seeds, radius, tuned)
    planned = [plan(one, progress, loaded, _begun(grid, one)) for one in requests]
    configs = [_with_threads(config, threads) for config, _, _ in planned]
    _once(configs)
    for note in dict.fromkeys(note for _, _, notes in planned for note in notes):
        say(note)
    datasets = [dataset for _, dataset, _ in planned]
    jobs = _jobs(grid, configs, datasets)
    _same_settings(jobs)
    files.make_folder(grid)
    places = {job.folder: place for place, job in enumerate(jobs)}
    outcomes: dict[int, Outcome] = {}

    def tell(event: Event) -> None:
        if isinstance(event, Note):
            say(f"{event.label}: {event.line}")
        else:
            watch(jobs, event)

    for outcome in engine(jobs, tell, dict(zip((config.data for config in configs), datasets, strict=True))):
        outcomes[places[outcome.job.folder]] = outcome
        if outcome.result is None:
            say(f"{outcome.job.label} failed: {outcome.failed}")
        watch(jobs, Step(outcome.job.label, outcome.job.epochs, outcome.job.epochs, ""))
    ended = [outcomes[place] for place in range(len(jobs))]
    results = [outcome.result for outcome in ended if outcome.result is not None]
    failures = [outcome for outcome in ended if outcome.result is None]
    if failures:
        raise FailedRuns(results, failures)
    return results


def _jobs(grid: Path, configs: Sequence[RunConfig], datasets: Sequence[Dataset]) -> list[Job]:
    sources = shared_first_stages(configs)
    jobs = []
    for number, (config, dataset) in enumerate(zip(configs, datasets, strict=True), start=1):
        source = sources.get((config.method, config.seed))
        jobs.append(
            Job(
                label=f"[{number}/{len(configs)}] {config.method} seed {config.seed}",
                config=config,
                folder=run_folder(grid, config.method, config.seed),
                source=None if source is None else run_folder(grid, *source),
                draw_hash=dataset.draw_hash,
            )
        )
    return jobs


def _same_settings(jobs: Sequence[Job]) -> None:
    """Raises InputError, before anything is trained, for a folder that was begun with other settings."""
    for job in jobs:
        old = configuration.begun(job.folder)
        if old is not None and not old.start and job.source is None:  # another run's first stage may differ from ours
            allowed_changes(old, job.config, job.folder)


def _with_threads(config: RunConfig, threads: int | None) -> RunConfig:
    return config if threads is None else replace(config, threads=threads)


def shared_first_stages(configs: Sequence[RunConfig]) -> dict[tuple[str, int], tuple[str, int]]:
    """(method, seed) of a system -> that of the run before it in the grid which trains the same first stage."""
    sources: dict[tuple[str, int], tuple[str, int]] = {}
    for number, config in enumerate(configs):
        if len(config.stages) < 2:
            continue
        for other in configs[:number]:
            if same_first_stage(config, other):
                sources[config.method, config.seed] = (other.method, other.seed)
                break
    return sources


def _once(configs: Sequence[RunConfig]) -> None:
    """One run named twice would count twice in the mean and shrink the spread. Raises InputError."""
    seen: set[tuple[str, int]] = set()
    for config in configs:
        if (config.method, config.seed) in seen:
            raise InputError(f"the grid has {config.method} with seed {config.seed} twice; name each row and seed once")
        seen.add((config.method, config.seed))


def _begun(grid: Path, request: Request) -> RunConfig | None:
    return configuration.begun(run_folder(grid, canonical(str(request.method)), request.seed))


def _requests(
    request: Request, methods: Sequence[str], seeds: Sequence[int], radius: float | None, tuned: Path | None
) -> list[Request]:
    requests = []
    for method in methods:
        flags = dict(request.flags)
        if radius is not None and _has_radius(method):
            flags["rho"] = (radius,)
        settings = request.settings if tuned is None else tuned_settings(tuned, canonical(method))
        requests += [replace(request, method=method, seed=seed, flags=flags, settings=settings) for seed in seeds]
    return requests


def _has_radius(method: str) -> bool:
    return any(word in OPTIMIZERS and word != "pgd" for word in method.lower().split("+"))


def parse_methods(text: str, known: Sequence[str]) -> list[str]:
    """ "ce,ce+sam" -> its rows, "all" -> ``known``. Raises InputError for an empty list or one named twice."""
    methods = list(known) if text.strip() == "all" else [piece.strip() for piece in text.split(",") if piece.strip()]
    if not methods:
        raise InputError("--methods names no method; e.g. --methods ce+drw,ce+drw+sam")
    twice = sorted({method for method in methods if methods.count(method) > 1})
    if twice:
        raise InputError(f"--methods names {twice[0]} twice")
    return methods
