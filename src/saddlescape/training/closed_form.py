"""Stages that fit the head without training: nearest class mean, PLDA, and tau-normalisation of a trained classifier.

Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020, sections 4.2 and 4.3;
Ioffe, "Probabilistic Linear Discriminant Analysis", ECCV 2006.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from saddlescape.errors import InputError
from saddlescape.models import CentroidHead, TauNormalizedHead
from saddlescape.models.heads.plda import check_shrinkage
from saddlescape.records.config import Stage
from saddlescape.training.metrics import score
from saddlescape.training.parts import Parts

PROBE_STEPS = 200  # of L-BFGS
TAUS = tuple(step / 10 for step in range(21))


def fit_head(
    stage: Stage,
    parts: Parts,
    *,
    save: Callable[[int, None], None],
    record: Callable[[dict[str, Any]], None],
) -> None:
    """Fit the head of ``parts.model`` in place, then score, record and save as one epoch.

    Raises:
        InputError: a fit that nobody knows.
    """
    check_head_fit(stage)
    started = time.perf_counter()
    features, labels = parts.features()
    fitted = HEAD_FITS[stage.head_fit](stage, parts, features, labels)
    with torch.no_grad():
        logits = cast(nn.Module, parts.model.head)(features).float()
        loss = nn.functional.cross_entropy(logits, labels)
        accuracy = (logits.argmax(dim=1) == labels).double().mean()
    seconds = time.perf_counter() - started
    row: dict[str, Any] = {"epoch": 0, "lr": 0.0, "rho": None, "train_loss": float(loss)}
    row |= {"train_accuracy": 100 * float(accuracy), "images": len(labels), "seconds": seconds}
    row |= {"images_per_second": len(labels) / max(seconds, 1e-9), "fitted": fitted}
    row["work"] = parts.setting(0).work
    for name, loader in parts.evaluations.items():
        scorer = score(parts.model, loader.epoch(0), parts.num_classes, parts.precision, ranks=parts.ranks)
        row[name] = scorer.scores(parts.groups).row()
    record(row)
    save(1, None)


def check_head_fit(stage: Stage) -> None:
    """Raises InputError: a fit that nobody knows, more than its one epoch, or an option it has not or cannot take."""
    if not stage.head_fit:
        return
    if stage.head_fit not in HEAD_FITS:
        raise InputError(f"stage {stage.name!r}: unknown head_fit {stage.head_fit!r}; known are {', '.join(HEAD_FITS)}")
    if stage.epochs != 1:
        raise InputError(f"stage {stage.name!r}: a fit in closed form is one epoch, not {stage.epochs}")
    known, check = OPTIONS[stage.head_fit]
    for name, value in stage.head_fit_options.items():
        if name != known:
            told = f"stage {stage.name!r}: head_fit {stage.head_fit!r}"
            raise InputError(f"{told} has no option {name!r}, only {known!r}")
        if (known == "mode") != isinstance(value, str):
            raise InputError(f"stage {stage.name!r}: head_fit_options.{name} cannot be {value!r}")
        check(value)


def check_decay(decay: float) -> None:
    """Raises InputError below 0."""
    if decay < 0:
        raise InputError(f"decay is {decay:g}; it must be at least 0")


def _nearest_class_mean(
    stage: Stage, parts: Parts, features: torch.Tensor, labels: torch.Tensor
) -> dict[str, float | str]:
    head: Any = parts.model.head
    mode = str(stage.head_fit_options.get("mode", head.mode))
    head.set_mode(mode)
    head.fit(features, labels)
    return {"mode": mode}


def _plda(stage: Stage, parts: Parts, features: torch.Tensor, labels: torch.Tensor) -> dict[str, float | str]:
    head: Any = parts.model.head
    given = stage.head_fit_options.get("shrinkage")
    shrinkage = head.choose(features, labels) if given is None else float(given)
    between = head.fit(features, labels, shrinkage)
    return {"shrinkage": shrinkage, "between": float(between.sum()), "directions": int((between > 0).sum())}


def _tau_normalized(stage: Stage, parts: Parts, features: torch.Tensor, labels: torch.Tensor) -> dict[str, float | str]:
    """Tau as given; else the best of 0, 0.1, ... 2 by balanced accuracy on the validation split; else 1."""
    head: Any = parts.model.head
    if "tau" in stage.head_fit_options:
        head.set_tau(float(stage.head_fit_options["tau"]))
        return {"tau": float(stage.head_fit_options["tau"]), "chosen": "as given"}
    if "val" not in parts.evaluations:
        head.set_tau(1.0)
        return {"tau": 1.0, "chosen": "full normalisation: no validation split to choose on"}
    reached = []
    for tau in TAUS:
        head.set_tau(tau)
        batches = parts.evaluations["val"].epoch(0)
        scorer = score(parts.model, batches, parts.num_classes, parts.precision, ranks=parts.ranks)
        reached.append(scorer.scores(parts.groups).balanced_accuracy)
    best = TAUS[max(range(len(TAUS)), key=reached.__getitem__)]
    head.set_tau(best)
    return {"tau": best, "chosen": "balanced accuracy on the validation split"}


def _probe(stage: Stage, parts: Parts, features: torch.Tensor, labels: torch.Tensor) -> dict[str, float | str]:
    """A linear head by the stage's loss on centred and scaled features (L-BFGS); a cosine one from class means.

    The start of fine-tuning: Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
    Out-of-Distribution", ICLR 2022; class means: Shi et al., "Long-Tail Learning with Foundation Model", ICML 2024.
    """
    head: Any = parts.model.head
    decay = float(stage.head_fit_options.get("decay", 1e-3))
    x = features.float()
    if not isinstance(head, nn.Linear):
        weight = getattr(head, "weight", None)
        if weight is None or weight.numel() != parts.num_classes * x.shape[1]:
            return {"start": "as initialised"}
        with torch.no_grad():
            sums = x.new_zeros(parts.num_classes, x.shape[1]).index_add_(0, labels, nn.functional.normalize(x))
            means = nn.functional.normalize(sums)
            weight.copy_(means if weight.shape == means.shape else means.T)
        return {"start": "class means"}
    # One scale for all features: a weight for a feature that hardly varies would be so large that fine-tuning diverges.
    mean, scale = x.mean(dim=0), x.std(dim=0).square().mean().sqrt()
    x = (x - mean) / scale
    weight = torch.zeros_like(head.weight).requires_grad_()
    bias = torch.zeros_like(head.bias).requires_grad_()
    loss_of_stage = parts.setting(0).loss.to(x.device)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=PROBE_STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of_stage(x @ weight.T + bias, labels) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        loss = optimizer.step(closure)
    with torch.no_grad():
        head.weight.copy_(weight / scale)
        head.bias.copy_(bias - head.weight @ mean)
    return {"decay": decay, "loss": float(loss.detach())}


HEAD_FITS: dict[str, Callable[..., dict[str, float | str]]] = {
    "ncm": _nearest_class_mean,
    "plda": _plda,
    "tau-norm": _tau_normalized,
    "probe": _probe,
}

# The option of each fit, and what complains of a value that it cannot take: before the stages that come first are run.
OPTIONS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "ncm": ("mode", lambda mode: CentroidHead(1, 2).set_mode(mode)),
    "plda": ("shrinkage", check_shrinkage),
    "tau-norm": ("tau", lambda tau: TauNormalizedHead(1, 2).set_tau(tau)),
    "probe": ("decay", check_decay),
}
