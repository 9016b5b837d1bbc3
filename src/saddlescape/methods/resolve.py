"""From a method's word and a data set's facts to a recipe with every number filled in."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from saddlescape.errors import InputError, near
from saddlescape.methods import fine_tuning, own_data, single_stage
from saddlescape.methods.grammar import TERMS, Sum, parse
from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.systems import SYSTEMS
from saddlescape.methods.systems.system import build as build_system
from saddlescape.published import recipes
from saddlescape.records.config import Stage
from saddlescape.records.milestones import beginnings, reweighting_start
from saddlescape.schedules import never_begins
from saddlescape.training.epoch import total_work, without_usual_normalization

PAPER_DEFAULT = "ce+drw+sam"


def canonical(method: str) -> str:
    """The one spelling of a method: a system's name, or the words of a sum in their order. Raises InputError."""
    system, first = read(method)
    if not system:
        return str(first)
    rest = str(first).removeprefix("ce").lstrip("+")
    return f"{system}+{rest}" if rest else system


def read(method: str) -> tuple[str, Sum]:
    """A method's system ("" for a plain sum) and the sum that is its first stage: "crt+sam" -> ("crt", ce+sam).

    Raises:
        InputError: an unknown word (with near matches), two systems, or a first stage that the system does not take.
    """
    words = [word.strip().lower() for word in method.split("+")]
    named = [word for word in words if word in SYSTEMS]
    if not named:
        unknown = [word for word in words if word not in TERMS]
        if unknown and (sum_ := _with_plus(method)):
            raise InputError(f"method {method!r}: unknown term {unknown[0]!r} (did you mean {sum_!r}?)")
        close = difflib.get_close_matches(unknown[0], SYSTEMS, n=1, cutoff=0.6) if unknown else []
        if close and not difflib.get_close_matches(unknown[0], TERMS, n=1, cutoff=0.6):
            raise InputError(f"method {method!r}: unknown term {unknown[0]!r} (did you mean the system {close[0]!r}?)")
        return "", parse(method)
    if len(named) > 1:
        raise InputError(f"method {method!r}: {named[0]!r} and {named[1]!r} are both systems; name one")
    rest = [word for word in words if word not in SYSTEMS]
    has_loss = any(word in TERMS and TERMS[word].kind == "loss" for word in rest)
    first = parse("+".join(rest if has_loss else ["ce", *rest]))
    if not (SYSTEMS[named[0]].any_sum or first.optimizer_only):
        raise InputError(
            f"method {method!r}: {named[0]} has a first stage of its own; only an optimiser can be added, "
            f"as in {named[0]}+sam"
        )
    return named[0], first


def _with_plus(method: str) -> str:
    """ "ldam_drw_sam" -> "ldam+drw+sam": what is meant where another sign than a plus joins known words, else ""."""
    for signs in (r"[+_,/\s]+", r"[+_,/\s-]+"):  # names of systems have hyphens
        words = [word for word in re.split(signs, method.lower()) if word]
        if len(words) > 1 and all(word in TERMS or word in SYSTEMS for word in words):
            return "+".join(words)
    return ""


def resolve(
    method: str | None,
    facts: Facts,
    *,
    epochs: int | None = None,
    budget: float | None = None,
    flags: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    model: str | None = None,
    tune: str = "",
) -> Recipe:
    """Fill in a recipe.

    ``tune``: of a pretrained network ``model``, what is trained of it beside the head (see ``methods.fine_tuning``).

    ``method`` None takes the default for the data. ``budget``: as many epochs as bring the work of all stages closest
    to it (see ``training.epoch.work``). ``flags`` overrides fields of every stage (None values are
    skipped); ``settings`` are ``stage.field=value`` strings, applied last: another loss, objective,
    optimiser ... begins without the options of the one before.

    Raises:
        InputError: an illegal method, an unknown field, a value of the wrong type.
    """
    if epochs is not None and epochs < 1:
        raise InputError(f"--epochs {epochs}: a run has at least one epoch")
    if budget is not None:
        if epochs is not None:
            raise InputError("--epochs and --budget both say how long to train: leave one of them out")
        fill = partial(resolve, method, facts, flags=flags, settings=settings, model=model, tune=tune)
        return _within(fill, budget, facts.images)
    published = recipes()
    notes: list[str] = []
    if tune:
        table = fine_tuning.table_of(tune)
        method = fine_tuning.DEFAULT if method is None else method
    elif facts.dataset in published and facts.dataset not in ("own", "features") and not facts.features:
        table = published[facts.dataset]
        method = PAPER_DEFAULT if method is None else method
    else:
        decided = {
            name for name, value in {**(flags or {}), "epochs": epochs, "model": model}.items() if value is not None
        }
        kind = "features" if facts.features else "own"
        table, reasons = own_data.adapt(published[kind], facts, decided)
        if method is None:
            method, reason = own_data.default_method(facts)
            notes.append(f"method {method}: {reason}")
        notes += reasons
    system, first = read(method)
    if system:
        recipe = build_system(system, SYSTEMS[system], first, facts, table, epochs)
    else:
        recipe = single_stage.build(first, facts, table, epochs)
    if tune:
        recipe = fine_tuning.fine_tuned(recipe, tune)
    begin = next(number for number, stage in enumerate(recipe.stages) if _trains(stage))
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    stages = [
        dataclasses.replace(stage, **{k: v for k, v in given.items() if _applies(stage, k, number == begin)})
        for number, stage in enumerate(recipe.stages)
    ]
    for name in given:
        if not any(_applies(stage, name, number == begin) for number, stage in enumerate(recipe.stages)):
            raise InputError(
                f"--{name.replace('_', '-')} has no meaning for {recipe.method}: no stage of it uses {name}"
            )
    # Names before the options of what they name, so that the order on the command line does not matter.
    for setting in sorted(settings, key=lambda each: each.partition("=")[0].count(".")):
        stages = _set(stages, setting)
    notes += [*recipe.notes, *too_late(stages), *corrections(stages), *map(loss_line, filter(_trains, stages))]
    stages = [without_usual_normalization(stage) for stage in stages]
    return dataclasses.replace(recipe, model=model or recipe.model, stages=tuple(stages), notes=tuple(notes))


def _within(fill: Callable[..., Recipe], budget: float, images: int) -> Recipe:
    """The recipe of the number of epochs whose work is closest to ``budget``; of several the longest."""
    found, least = None, math.inf
    for epochs in range(1, math.floor(3 * budget) + 2):  # an epoch is a third of a unit at least
        recipe = fill(epochs=epochs)
        spent = total_work(recipe.stages, images)
        if abs(spent - budget) <= least:
            found, least, work = recipe, abs(spent - budget), spent
        if spent > 2 * budget:
            break
    assert found is not None
    note = f"budget {budget:g}: {found.stages[0].epochs} epochs, the work of {work:.4g} epochs of SGD"
    return dataclasses.replace(found, notes=(*found.notes, note))


def too_late(stages: Sequence[Stage]) -> list[str]:
    """One line for whatever would only start after the last epoch of its stage."""
    lines = []
    for stage in stages:
        names = {"DRW": "deferred re-weighting", "its loss": f"the loss {stage.loss}"}
        lines += [never_begins(names.get(what, what), start, stage.epochs) for start, what in beginnings(stage)]
    return [line for line in lines if line is not None]


PRIOR_LOSSES = {"la": "logit adjustment", "vs": "vector scaling", "bs": "balanced softmax"}


def corrections(stages: Sequence[Stage]) -> list[str]:
    """A warning for each stage that corrects for class frequencies in more than one of loss, weights, sampler."""
    lines = []
    for stage in filter(_trains, stages):
        found = [f"{PRIOR_LOSSES[stage.loss]} (loss {stage.loss})"] if stage.loss in PRIOR_LOSSES else []
        if stage.reweight in ("drw", "always") or (stage.reweight == "power" and stage.power > 0):
            found.append(f"class weights (reweight {stage.reweight})")
        if stage.sampler != "instance-balanced":
            found.append(f"the sampler {stage.sampler}")
        if len(found) > 1:
            told = " and ".join(found)
            lines.append(f"warning: stage {stage.name!r} corrects for class frequencies more than once, by {told}")
    return lines


def loss_line(stage: Stage) -> str:
    """Loss, class weights and sampler of a stage, on one line."""
    start = reweighting_start(stage)
    usual = f"effective numbers, beta {stage.beta:g}"
    weights = {"none": "none", "power": f"n^-{stage.power:g}"}.get(stage.reweight, usual)
    since = f" from epoch {start + 1}" if start else ""
    loss = f"{stage.early_loss}, from epoch {stage.loss_start + 1} {stage.loss}" if stage.early_loss else stage.loss
    return f"stage {stage.name!r}: loss {loss}; class weights {weights}{since}; sampler {stage.sampler}"


def _trains(stage: Stage) -> bool:
    return not stage.head_fit


def _applies(stage: Stage, name: str, first: bool) -> bool:
    """Whether a flag is for this stage: lr and batch size are the first one's, later ones have their own."""
    if name in ("lr", "batch_size"):
        return first
    return name != "rho" or bool(stage.rho)


def _set(stages: list[Stage], setting: str) -> list[Stage]:
    """Apply one ``stage.field=value`` or ``stage.group.key=value``."""
    path, separator, text = setting.partition("=")
    names = path.strip().split(".")
    if not separator or len(names) not in (2, 3):
        raise InputError(f"--set {setting}: expected stage.field=value, e.g. train.weight_decay=5e-4")
    known = [stage.name for stage in stages]
    if names[0] not in known:
        raise InputError(f"--set {setting}: no stage {names[0]!r}; this method has {', '.join(known)}")
    return [_replace(stage, names[1:], text.strip(), setting) if stage.name == names[0] else stage for stage in stages]


def _replace(stage: Stage, names: list[str], text: str, setting: str) -> Stage:
    types = typing.get_type_hints(Stage)
    fields = [field.name for field in dataclasses.fields(Stage)]
    if names[0] not in fields:
        raise InputError(f"--set {setting}: a stage has no field {names[0]!r}; {near(names[0], fields)}")
    wanted = types[names[0]]
    if len(names) == 2:
        group = getattr(stage, names[0])
        if not isinstance(group, dict):
            raise InputError(f"--set {setting}: {names[0]} is a single value, not a group")
        changes: dict[str, Any] = {names[0]: group | {names[1]: _member(text, wanted, group.get(names[1]), setting)}}
    else:
        changes = {names[0]: _read(text, wanted, setting)}
        options = f"{names[0]}_options"
        if options in fields and changes[names[0]] != getattr(stage, names[0]):
            changes[options] = {}  # they were the former one's
    return dataclasses.replace(stage, **changes)


def _member(text: str, group: Any, present: float | str | None, setting: str) -> float | str:
    """A value of a group: a number where it reads like one, a word where the group takes words and none is a number."""
    try:
        return float(text)
    except ValueError:
        if typing.get_args(group)[1] is float or isinstance(present, int | float):
            raise InputError(f"--set {setting}: {text!r} is not a float") from None
        return text


def _read(text: str, wanted: Any, setting: str) -> Any:
    try:
        if wanted is bool:
            return {"true": True, "false": False}[text.lower()]
        if wanted in (int, float, str):
            return wanted(text)
        if wanted == tuple[str, ...]:
            return tuple(piece.strip() for piece in text.split(",") if piece.strip())
        return tuple(float(piece) for piece in text.replace(",", " ").split())
    except (ValueError, KeyError):
        name = getattr(wanted, "__name__", str(wanted))
        raise InputError(f"--set {setting}: {text!r} is not a {name}") from None
