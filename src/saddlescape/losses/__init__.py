"""Losses for long-tailed classification, one file per family, and class weights."""

from saddlescape.counts import check_class_counts, effective_number_weights, inverse_frequency_weights, power_weights
from saddlescape.losses.balanced_contrastive import BalancedContrastiveLoss
from saddlescape.losses.balanced_softmax import BalancedSoftmaxLoss
from saddlescape.losses.base import ClassLoss
from saddlescape.losses.consistency import consistency_loss
from saddlescape.losses.cross_entropy import CrossEntropyLoss
from saddlescape.losses.dro_lt import DROLTLoss
from saddlescape.losses.focal import FocalLoss
from saddlescape.losses.influence_balanced import InfluenceBalancedLoss
from saddlescape.losses.label_aware_smoothing import LabelAwareSmoothingLoss, smoothing_curve
from saddlescape.losses.ldam import LDAMLoss
from saddlescape.losses.log_bessel import log_bessel
from saddlescape.losses.logit_adjustment import LogitAdjustedLoss, post_hoc_adjust
from saddlescape.losses.proco import ProCoLoss
from saddlescape.losses.registry import LOSSES, build_loss
from saddlescape.losses.vs import VSLoss

__all__ = [
    "LOSSES",
    "BalancedContrastiveLoss",
    "BalancedSoftmaxLoss",
    "ClassLoss",
    "CrossEntropyLoss",
    "DROLTLoss",
    "FocalLoss",
    "InfluenceBalancedLoss",
    "LDAMLoss",
    "LabelAwareSmoothingLoss",
    "LogitAdjustedLoss",
    "ProCoLoss",
    "VSLoss",
    "build_loss",
    "check_class_counts",
    "consistency_loss",
    "effective_number_weights",
    "inverse_frequency_weights",
    "log_bessel",
    "post_hoc_adjust",
    "power_weights",
    "smoothing_curve",
]
