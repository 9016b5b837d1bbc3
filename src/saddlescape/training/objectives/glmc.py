"""GLMC: Du et al., "Global and Local Mixture Consistency Cumulative Learning for Long-tailed Visual Recognitions",
CVPR 2023."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from saddlescape.data.augment.mix import cutmix, cutmix_box, draw_lambda, mixup, one_hot
from saddlescape.data.types import Batch
from saddlescape.errors import InputError
from saddlescape.losses import consistency_loss, power_weights
from saddlescape.losses.base import ClassLoss
from saddlescape.training.objective import EpochFacts, Losses, Objective, at_least_float32


class GLMC(Objective):
    """A globally and a locally mixed view that have to agree, under a weight that moves from plain to balanced.

    A batch A from the shuffled data and its partner B from a sampler of its own, two views of each image. Once a step
    lam ~ Beta(alpha, alpha) is drawn, and::

        x_g = lam A_1 + (1 - lam) B_1                       mixup, global
        x_l = A_2 with a box of B_2 pasted in               CutMix, local: a box of about 1 - lam of the area
        Y   = lam onehot(A) + (1 - lam) onehot(B)           for both; not corrected for boxes cut off at the border
        L   = a_t (l(z_g, Y) + l(z_l, Y)) + (1 - a_t) (l(zb_g, Y w) + l(zb_l, Y w)) + eta L_cons
        a_t = 1 - (t / T)^2                                 t = 0, 1, ... of T epochs

    z and zb are the logits of the head's two classifiers, l(z, Y) = sum_c Y_c l_c(z), w_c ~ n_c^-k sums to C, and
    L_cons is ``saddlescape.losses.consistency_loss``. Each view has a forward pass, and BatchNorm statistics, of its
    own. The loss is a mean over images (class weights of the stage are left aside). The network predicts with zb.

    With SAM the pass that finds the ascent direction leaves L_cons out, as in the paper's GLMC + SAM.

    Args:
        class_counts: training images per class, [C].
        model: with the head "glmc".
        consistency: eta, published from 1 to 10 by data set and imbalance.
        label_power: k.
        alpha: of the Beta distribution; the published code takes 1 whatever its option says.
        ascent_consistency: eta of SAM's first pass.

    Buffer: ``plain_share``, a_t of the present epoch.

    Deviation from the GLMC code: lam and box come from torch's generator, there from NumPy's.
    """

    views_needed = 1
    needs_partner = True
    plain_share: Tensor
    label_weight: Tensor

    def __init__(
        self,
        loss: ClassLoss,
        *,
        class_counts: Sequence[int],
        model: nn.Module,
        consistency: float = 4.0,
        label_power: float = 1.2,
        alpha: float = 1.0,
        ascent_consistency: float = 0.0,
    ) -> None:
        super().__init__(loss)
        if not hasattr(model.head, "branches"):
            raise InputError("objective glmc needs a head with two classifiers: head = 'glmc'")
        if consistency < 0 or ascent_consistency < 0:
            raise InputError("objective glmc: consistency and ascent_consistency must not be negative")
        if not alpha > 0:
            raise InputError(f"objective glmc: alpha is {alpha:g}; it must be above 0")
        self.consistency, self.ascent_consistency, self.alpha = consistency, ascent_consistency, alpha
        self._exact_weight = power_weights(class_counts, label_power, dtype=torch.float64)
        self.register_buffer("label_weight", self._exact_weight.float(), persistent=False)
        self.register_buffer("plain_share", torch.ones(()))

    def normaliser(self, batch: Batch) -> float:
        return float(len(batch.targets))

    def begin_epoch(self, facts: EpochFacts) -> None:
        self.plain_share.fill_(1 - (facts.epoch / facts.epochs) ** 2)

    def prepare(self, batch: Batch) -> Batch:
        """Two mixtures: ``inputs`` the global one, ``views`` the local one, ``targets`` the soft labels [N, C]."""
        partner = batch.partner
        if partner is None or not batch.views or not partner.views:
            raise InputError("objective glmc needs batches with a further view and a partner that has one too")
        classes, generator = len(self.label_weight), torch.default_generator
        lam = draw_lambda(self.alpha, generator)
        box = cutmix_box(batch.inputs.shape[-2], batch.inputs.shape[-1], lam, generator, rounding="ceil")
        local, _ = cutmix(batch.views[0], partner.views[0], box)
        return batch._replace(
            inputs=mixup(batch.inputs, partner.inputs, lam),
            views=(local,),
            targets=mixup(one_hot(batch.targets, classes), one_hot(partner.targets, classes), lam),
            partner=None,
        )

    def forward(self, model: Any, batch: Batch) -> Losses:
        features = [model.features(images) for images in (batch.inputs, batch.views[0])]
        plain: Tensor | float = 0.0
        balanced: Tensor | float = 0.0
        shown = None
        for seen in features:
            logits, balanced_logits = map(at_least_float32, model.head.branches(seen))
            labels = batch.targets.to(logits.dtype)
            plain = plain + self._soft(logits, labels)
            weight = self._exact_weight if logits.dtype == torch.float64 else self.label_weight
            balanced = balanced + self._soft(balanced_logits, labels * weight.to(logits))
            shown = balanced_logits if shown is None else shown
        assert shown is not None
        share = self.plain_share.to(shown.dtype)
        losses = share * plain + (1 - share) * balanced
        eta = self.ascent_consistency if self.ascent else self.consistency
        if eta:
            q_g, q_l = (model.head.project(seen) for seen in features)
            p_g, p_l = model.head.predict(q_g), model.head.predict(q_l)
            losses = losses + eta * consistency_loss(p_g, q_l, p_l, q_g, reduction="none")
        return Losses(losses, float(len(losses)), shown)

    def _soft(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (labels * self.loss.class_losses(logits)).sum(dim=1)
