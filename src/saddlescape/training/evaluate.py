"""Run a model over a split, in eval mode and without gradients, and score it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from saddlescape.data.types import Batch
from saddlescape.parallel.ranks import ALONE, Ranks
from saddlescape.training.metrics import Scorer, Scores
from saddlescape.training.precision import Precision


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


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    num_classes: int,
    groups: Mapping[str, Sequence[int]],
    precision: Precision,
    adjust: Callable[[Tensor], Tensor] | None = None,
    logit_scale: float = 1.0,
    ranks: Ranks = ALONE,
) -> Scores:
    """Scores of ``model`` over ``batches``; see :class:`saddlescape.training.metrics.Scores`."""
    return score(model, batches, num_classes, precision, adjust, logit_scale, ranks).scores(groups)
