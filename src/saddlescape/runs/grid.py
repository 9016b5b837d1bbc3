"""A grid of runs (rows x seeds): executed by an engine, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saddlescape.data.types import Dataset
from saddlescape.errors import InputError
from saddlescape.methods.grammar import OPTIMIZERS
from saddlescape.methods.resolve import canonical
from saddlescape.records import files
from saddlescape.records.config import RunConfig
from saddlescape.runs import config as configuration
from saddlescape.runs.engines.events import Epoch, Event, Note, Step
from saddlescape.runs.engines.job import Engine, Job, Outcome, serial
from saddlescape.runs.execute import Say, allowed_changes
from saddlescape.runs.first_stage import same_first_stage
from saddlescape.runs.plan import Loaded, plan
from saddlescape.runs.request import Request
from saddlescape.runs.tune import tuned_settings


def run_folder(grid: Path, method: str, seed: int) -> Path:
    return grid / f"{method}-seed{seed}"


class FailedRuns(InputError):
    """Some runs of a grid failed; all the others are done. ``results`` are theirs, ``failures`` the failed outcomes."""

    def __init__(self, results: list[dict[str, Any]], failures: Sequence[Outcome]) -> None:
        names = ", ".join(f"{outcome.job.config.method} seed {outcome.job.config.seed}" for outcome in failures)
        first = failures[0].failed if len(failures) == 1 else f"the first of them: {failures[0].failed}"
        super().__init__(
            f"{len(failures)} of {len(results) + len(failures)} runs failed ({names}); {first}; "
            "run the same command again to try again"
        )
        self.results, self.failures = results, list(failures)
        for outcome in failures:
            if outcome.trace:
                self.add_note(f"{outcome.job.label}:\n{outcome.trace}")


def plan_grid(
    request: Request,
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    tuned: Path | None = None,
    threads: int | None = None,
) -> list[RunConfig]:
    """The configuration of every run of a grid, seeds innermost; nothing is trained. Arguments as ``run_grid``."""
    return [config for config, _, _ in _plan(_requests(request, methods, seeds, tuned), None, threads)]


def run_grid(
    request: Request,
    methods: Sequence[str],
    seeds: Sequence[int],
    grid: Path,
    *,
    tuned: Path | None = None,
    engine: Engine = serial,
    threads: int | None = None,
    say: Say = lambda line: None,
    watch: Callable[[Sequence[Job], Step | Epoch], None] = lambda jobs, event: None,
    progress: Callable[..., None] | None = None,
) -> list[dict[str, Any]]:
    """Execute every row with every seed in ``grid``; a finished run is read, an unfinished one resumes.

    Args:
        request: of every run; its ``rho`` is that of the rows which have one.
        tuned: a folder of searches (``saddlescape tune``) with whose best settings each row is trained.
        engine: executes the runs; which one it is changes no bit of a result.
        threads: of each run (default: those of this process).
        watch: receives the progress of all runs.

    Returns:
        The results, seeds innermost.

    Raises:
        InputError: as ``plan``, or a folder was begun with other settings; nothing has been trained then.
        FailedRuns: some runs failed; the others are done.
        Interrupted: a signal came; whatever was running has written a checkpoint.
    """
    planned = _plan(_requests(request, methods, seeds, tuned), grid, threads, progress)
    for note in dict.fromkeys(note for _, _, notes in planned for note in notes):
        say(note)
    jobs = _jobs(grid, planned)
    files.make_folder(grid, "choose another --out")
    outcomes: dict[Path, Outcome] = {}

    def emit(event: Event) -> None:
        if isinstance(event, Note):
            say(f"{event.label}: {event.line}")
        else:
            watch(jobs, event)

    for outcome in engine(jobs, emit, {config.data: dataset for config, dataset, _ in planned}):
        job = outcome.job
        outcomes[job.folder] = outcome
        if outcome.result is None:
            say(f"{job.label} failed: {outcome.failed}")
        watch(jobs, Step(job.label, job.epochs, job.epochs, ""))
    results = [result for job in jobs if (result := outcomes[job.folder].result) is not None]
    failures = [outcomes[job.folder] for job in jobs if outcomes[job.folder].result is None]
    if failures:
        raise FailedRuns(results, failures)
    return results


Planned = tuple[RunConfig, Dataset, list[str]]


def _requests(
    request: Request, methods: Sequence[str], seeds: Sequence[int], tuned: Path | None
) -> list[Request]:
    requests = []
    for method in methods:
        climbs = any(word in OPTIMIZERS and word != "pgd" for word in method.lower().split("+"))
        rho = request.rho if climbs else None
        settings = request.settings if tuned is None else tuned_settings(tuned, canonical(method))
        requests += [replace(request, method=method, seed=seed, rho=rho, settings=settings) for seed in seeds]
    return requests


def _plan(
    requests: Sequence[Request],
    grid: Path | None,
    threads: int | None,
    progress: Callable[..., None] | None = None,
) -> list[Planned]:
    """Configuration, data and notes of each run. What was begun in ``grid`` keeps what was decided there.

    Raises:
        InputError: as ``plan``; a run that occurs twice, which would count twice in the mean and shrink the spread.
    """
    loaded, planned = Loaded(), list[Planned]()
    seen: set[tuple[str, int]] = set()
    for request in requests:
        folder = None if grid is None else run_folder(grid, canonical(str(request.method)), request.seed or 0)
        begun = None if folder is None else configuration.begun(folder)
        config, dataset, notes = plan(request, progress, loaded, begun)
        if (config.method, config.seed) in seen:
            raise InputError(f"the grid has {config.method} with seed {config.seed} twice; name each row and seed once")
        seen.add((config.method, config.seed))
        planned.append((config if threads is None else replace(config, threads=threads), dataset, notes))
    return planned


def _jobs(grid: Path, planned: Sequence[Planned]) -> list[Job]:
    """The runs as jobs. Raises InputError, before anything is trained, for a folder begun with other settings."""
    sources = shared_first_stages([config for config, _, _ in planned])
    jobs = []
    for number, (config, dataset, _) in enumerate(planned, start=1):
        folder = run_folder(grid, config.method, config.seed)
        source = sources.get((config.method, config.seed))
        old = configuration.begun(folder)
        if old is not None and not old.start and source is None:  # another run's first stage may differ from ours
            allowed_changes(old, config, folder)
        label = f"[{number}/{len(planned)}] {config.method} seed {config.seed}"
        jobs.append(Job(label, config, folder, source and run_folder(grid, *source), dataset.draw_hash))
    return jobs


def shared_first_stages(configs: Sequence[RunConfig]) -> dict[tuple[str, int], tuple[str, int]]:
    """(method, seed) of a system -> that of the run before it in the grid which trains the same first stage."""
    sources: dict[tuple[str, int], tuple[str, int]] = {}
    for number, config in enumerate(configs):
        same = (one for one in configs[:number] if len(config.stages) > 1 and same_first_stage(config, one))
        source = next(same, None)
        if source is not None:
            sources[config.method, config.seed] = (source.method, source.seed)
    return sources


def parse_methods(text: str, known: Sequence[str]) -> list[str]:
    """ "ce,ce+sam" -> its rows, "all" -> ``known``. Raises InputError for an empty list or one named twice."""
    methods = list(known) if text.strip() == "all" else [piece.strip() for piece in text.split(",") if piece.strip()]
    if not methods:
        raise InputError("--methods names no method; e.g. --methods ce+drw,ce+drw+sam")
    twice = sorted({method for method in methods if methods.count(method) > 1})
    if twice:
        raise InputError(f"--methods names {twice[0]} twice")
    return methods
