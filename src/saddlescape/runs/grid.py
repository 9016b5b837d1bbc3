"""A grid of runs (rows x seeds): executed one after the other, resumable, then read back as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saddlescape.errors import InputError
from saddlescape.methods.grammar import OPTIMIZERS
from saddlescape.methods.resolve import canonical
from saddlescape.runs import config as configuration
from saddlescape.runs import format as files
from saddlescape.runs.config import RunConfig
from saddlescape.runs.execute import Say, execute
from saddlescape.runs.first_stage import continue_from, same_first_stage
from saddlescape.runs.plan import Loaded, Request, changed, plan
from saddlescape.runs.tune import tuned_settings
from saddlescape.training.loop import Watcher
from saddlescape.training.stage import Stage


def run_folder(grid: Path, method: str, seed: int) -> Path:
    return grid / f"{method}-seed{seed}"


def plan_grid(
    request: Request,
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    radius: float | None = None,
    tuned: Path | None = None,
) -> list[RunConfig]:
    """The configuration of every run of a grid, seeds innermost; nothing is trained."""
    loaded = Loaded()
    configs = [plan(one, None, loaded)[0] for one in _requests(request, methods, seeds, radius, tuned)]
    _once(configs)
    return configs


def run_grid(
    request: Request,
    methods: Sequence[str],
    seeds: Sequence[int],
    grid: Path,
    *,
    radius: float | None = None,
    tuned: Path | None = None,
    watchers: Callable[[str, Stage, int], Sequence[Watcher]] = lambda label, stage, start: (),
    say: Say = lambda line: None,
    progress: Callable[..., None] | None = None,
) -> list[dict[str, Any]]:
    """Execute every row with every seed in ``grid``; a finished one is read, an unfinished one goes on.

    ``radius`` overrides rho in the rows that have one; ``tuned`` is a folder of searches (``saddlescape tune``) whose
    best settings each row is trained with. Returns the results, seeds innermost.

    Raises:
        InputError: as ``plan`` and ``execute``; before the first run starts, every row has been planned.
    """
    loaded = Loaded()
    requests = _requests(request, methods, seeds, radius, tuned)
    planned = [plan(one, progress, loaded, _begun(grid, one)) for one in requests]
    _once([config for config, _, _ in planned])
    sources = shared_first_stages([config for config, _, _ in planned])
    files.make_folder(grid)
    said: set[str] = set()
    results = []
    for number, (config, dataset, notes) in enumerate(planned, start=1):
        for note in notes:
            if note not in said:
                said.add(note)
                say(note)
        label = f"[{number}/{len(planned)}] {config.method} seed {config.seed}"

        def watch(stage: Stage, start: int, label: str = label) -> Sequence[Watcher]:
            return watchers(label, stage, start)

        folder = run_folder(grid, config.method, config.seed)
        source = sources.get((config.method, config.seed))
        if source is not None:
            config, remarks = continue_from(config, run_folder(grid, *source), folder)
            for remark in remarks:
                say(remark)
        result = execute(config, dataset, folder, say=say, watchers=watch)
        results.append({**result, "settings": changed(config, dataset)})
    return results


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
