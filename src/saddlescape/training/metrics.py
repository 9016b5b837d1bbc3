"""Figures of merit of a classifier on imbalanced data, from running counts (memory does not grow with C * N), and the
pass over a split that collects them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saddlescape.data.types import Batch
from saddlescape.parallel.ranks import ALONE, Ranks
from saddlescape.training.precision import Precision


@dataclass(frozen=True)
class Scores:
    """Percentages, except ``ece`` (also percent) and ``loss`` (nats). A class or group without images is None.

    An image whose logits are not finite numbers counts as wrong; ``loss`` and ``ece`` are None if there is one.
    ``accuracy`` is over images; ``balanced_accuracy`` is the mean of the per-class accuracies of the ``present``
    classes; a group's accuracy is the unweighted mean over its present classes.
    """

    accuracy: float
    balanced_accuracy: float
    loss: float | None
    ece: float | None
    per_class: list[float | None]
    groups: dict[str, float | None]
    present: int
    images: int

    def row(self) -> dict[str, Any]:
        """As plain JSON, the groups spread out as ``head``, ``mid``, ``tail``."""
        plain = asdict(self)
        return plain | plain.pop("groups")


def mean_or_none(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """ECE in percent over equal-width bins (lo, hi] of the top-1 confidence (Guo et al., ICML 2017, eq. 3)."""
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    size = np.bincount(which, minlength=bins)
    gap = np.bincount(which, weights=correct - confidence, minlength=bins)
    return float(100 * np.abs(gap).sum() / max(size.sum(), 1))


class Scorer:
    """Collects batches of logits, then gives :class:`Scores`; keeps two numbers an image and two a class."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.targets: list[Tensor] = []
        self.predictions: list[Tensor] = []
        self.confidences: list[Tensor] = []
        self.losses: list[Tensor] = []

    @torch.no_grad()
    def add(self, logits: Tensor, targets: Tensor) -> None:
        """``logits`` [N, C] (any float dtype), ``targets`` int64 [N]; no host synchronisation."""
        log_probability = logits.float().log_softmax(dim=1)
        best, prediction = log_probability.max(dim=1)
        self.targets.append(targets)
        self.predictions.append(prediction)
        self.confidences.append(best.exp())
        self.losses.append(-log_probability.gather(1, targets[:, None]).squeeze(1))

    def join(self, ranks: Ranks = ALONE) -> None:
        """Take in what the scorers of all processes have seen, process 0's first."""
        if ranks.alone:
            return
        for name, dtype in (("targets", torch.int64), ("predictions", torch.int64), ("confidences", torch.float32),
                            ("losses", torch.float32)):  # fmt: skip
            mine = getattr(self, name)
            here = torch.cat(mine).cpu() if mine else torch.empty(0, dtype=dtype)
            setattr(self, name, [ranks.gather(here)])

    def predicted(self) -> tuple[np.ndarray, np.ndarray]:
        """Targets and top-1 predictions, [N] each, in the order they came."""
        return torch.cat(self.targets).cpu().numpy(), torch.cat(self.predictions).cpu().numpy()

    def scores(self, groups: Mapping[str, Sequence[int]]) -> Scores:
        target, prediction = self.predicted()
        confidence = torch.cat(self.confidences).double().cpu().numpy()
        finite = np.isfinite(confidence)
        correct = ((target == prediction) & finite).astype(np.float64)
        count = np.bincount(target, minlength=self.num_classes)
        hits = np.bincount(target, weights=correct, minlength=self.num_classes)
        per_class = [100 * float(h) / int(n) if n else None for h, n in zip(hits, count, strict=True)]
        return Scores(
            accuracy=100 * float(correct.mean()),
            balanced_accuracy=mean_or_none(per_class) or 0.0,
            loss=float(torch.cat(self.losses).double().mean()) if finite.all() else None,
            ece=expected_calibration_error(confidence, correct) if finite.all() else None,
            per_class=per_class,
            groups={name: mean_or_none([per_class[c] for c in members]) for name, members in groups.items()},
            present=int((count > 0).sum()),
            images=len(target),
        )


@torch.no_grad()
def score(
    model: nn.Module,
    batches: Iterable[Batch],
    num_classes: int,
    precision: Precision,
    adjust: Callable[[Tensor], Tensor] | None = None,
    logit_scale: float = 1.0,
    ranks: Ranks = ALONE,
) -> Scorer:
    """Feed every batch, in eval mode; ``adjust`` maps logits [N, C] -> [N, C] (post-hoc logit adjustment).

    With several processes ``batches`` are this one's share of the split, and the scorer that each gets has seen all.

    ``logit_scale`` comes first: LDAM's cosines are scaled inside its loss, and their probabilities need the scale.
    """
    was_training = model.training
    model.eval()
    try:
        scorer = Scorer(num_classes)
        for batch in batches:
            with precision.autocast():
                logits = model(batch.inputs)
            if logit_scale != 1:
                logits = logit_scale * logits.float()
            scorer.add(logits if adjust is None else adjust(logits.float()), batch.targets)
        scorer.join(ranks)
        return scorer
    finally:
        model.train(was_training)
