"""The systems by name. Their numbers are in ``published/systems.toml``; what is left is which number goes where.

An entry says what the system is, its source, and how its stages follow from its own numbers and its first stage.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from saddlescape.methods.recipe import Facts
from saddlescape.methods.systems.ours import our_stages
from saddlescape.methods.systems.system import (
    Numbers,
    System,
    classifier_stage,
    fitted_stage,
    mixup_stage,
    numbers,
)
from saddlescape.records.config import Options, Stage

KANG = "Kang et al., ICLR 2020"


def _balanced(first: Stage, own: Numbers, **changes: Any) -> Stage:
    """The classifier on class-aware batches."""
    return classifier_stage(first, own, sampler="class-aware", sampler_options=numbers(own, "k"), **changes)


def _plda(facts: Facts, own: Numbers, first: Stage) -> tuple[Stage, ...]:
    """On features the shrinkage is chosen when the head is fitted."""
    return first, fitted_stage(first, "plda", **({} if facts.features else numbers(own, "shrinkage")))


def _mislas(facts: Facts, own: Numbers, first: Stage) -> tuple[Stage, ...]:
    smoothing: Options = {**numbers(own, "smooth_head", "smooth_tail"), "shape": str(own["shape"])}
    factors = {"head.linear": float(own["lr_factor"])}
    before = mixup_stage(first, own)
    return before, _balanced(before, own, loss="las", loss_options=smoothing, lr_factors=factors, head="lws")


def _dro_lt(facts: Facts, own: Numbers, first: Stage) -> tuple[Stage, ...]:
    """The published code continues with the representation that is best on the test set; here with the last one."""
    last = _balanced(first, own)
    if own["draws"] == "oversampled":  # every class as often as the largest
        draws: Options = {"num_samples": float(max(facts.class_counts) * len(facts.class_counts))}
        last = replace(last, sampler_options=last.sampler_options | draws)
    representation = replace(
        last,
        name="representation",
        epochs=int(own["epochs_representation"]),
        objective="dro-lt",
        objective_options={**numbers(own, "temperature"), "form": str(own["form"])},
        reweight="power",
        power=-1.0,  # weights n / n_max: they favour the head
        trainable="backbone",
        backbone_mode="train",
        lr=float(own["lr_representation"]),
    )
    return first, representation, last


def _cc_sam(facts: Facts, own: Numbers, first: Stage) -> tuple[Stage, ...]:
    """Deviations from the published code: 1. the second stage starts from the last epoch of the first, there from the
    best on the test set; 2. the perturbed term of the first stage has mixup's labels like the plain one, there the
    unmixed ones, and an image counts to the class with the larger share; 3. the rate is that of MiSLAS, 1/5 of its
    value in the first epoch and dropped from epochs 160 and 180 (from 0), there 0.467 of it in the first and dropped
    from 159 and 179; 4. the first stage trains on the last, smaller batch of an epoch too, there it is dropped.
    """
    before = replace(
        mixup_stage(first, own), optimizer="cc-sam", optimizer_options=numbers(own, "phi"), rho=(float(own["kappa"]),)
    )
    return before, _balanced(before, own, objective="adversarial-features", objective_options=numbers(own, "cap"))


def _glmc(facts: Facts, own: Numbers, first: Stage) -> tuple[Stage, ...]:
    """Deviations from the published code: 1. CIFAR-10 is normalised with the standard deviations of every other row,
    there with (0.247, 0.243, 0.262); 2. the large sets have a cosine without its ten epochs of warm-up and SimCLR's
    augmentation in place of its blur; 3. those of the objective (``saddlescape.training.objectives.glmc``).
    """
    power: Options = {"q": 1 - float(own["resample"])}  # images weighted by n^-r: classes drawn as n^(1-r)
    return (
        replace(
            first, objective="glmc", objective_options=numbers(own, "consistency", "label_power"), head="glmc",
            views=(first.augment,), partner="power", partner_options=power,
        ),
    )  # fmt: skip


def _contrastive(facts: Facts, own: Numbers, first: Stage, *, kind: str, head: str) -> tuple[Stage, ...]:
    """A contrastive loss on two further views of each image beside the logit-adjusted one.

    Deviations from the published codes: 1. ProCo's drops the last, smaller batch of an epoch (BCL's does not); 2.
    ProCo's 400-epoch schedule drops at 360 and 380, here every schedule is the 200-epoch one, stretched; 3. on the
    large sets both have a cosine of (epoch + 1) / (epochs + 1), here it is of epoch / epochs as in every other row.
    """
    options: Options = {"kind": kind, **numbers(own, "weight", "classify_weight", "temperature")}
    views = (str(own.get("view", first.augment)),) * 2
    return (
        replace(first, loss="la", objective="contrastive", objective_options=options, head=head, views=views),
    )


SYSTEMS: dict[str, System] = {
    "crt": System(
        "a fresh classifier on class-aware batches; the backbone's weights are frozen, its BatchNorm statistics move",
        KANG,
        # Linear, also after a cosine head: plain cross-entropy cannot learn from cosines alone.
        lambda facts, own, first: (first, _balanced(first, own, reset_head=True, head="linear")),
        any_sum=True,
    ),
    "lws": System(
        "learnable scale of each class's logit, on class-aware batches; other weights frozen, BatchNorm statistics not",
        KANG,
        lambda facts, own, first: (first, _balanced(first, own, head="lws", trainable="head.scale")),
        any_sum=True,
    ),
    "tau-norm": System(
        "class vectors divided by their norm to the power tau, chosen on the validation split (1 without one)",
        KANG,
        lambda facts, own, first: (first, fitted_stage(first, "tau-norm")),
        any_sum=True,
    ),
    "ncm": System(
        "nearest class mean of centred, length-one features",
        KANG,
        lambda facts, own, first: (first, fitted_stage(first, "ncm", mode=str(own["mode"]))),
        any_sum=True,
    ),
    "plda": System(
        "probabilistic linear discriminant analysis of the features: the tail borrows the head's covariance",
        "Ioffe, ECCV 2006; on long tails, this library",
        _plda,
        any_sum=True,
    ),
    "mislas": System(
        "mixup; then label-aware smoothing, learnable class scales and (where published) shifted BatchNorm",
        "Zhong et al., CVPR 2021",
        _mislas,
    ),
    "disalign": System(
        "magnitude, margin and confidence of each class's logit, under generalised re-weighting",
        "Zhang et al., CVPR 2021",
        lambda facts, own, first: (
            first,
            classifier_stage(
                first, own, reweight="power", power=float(own["power"]), head=str(own["head"]),
                trainable="head.alpha,head.beta,head.confidence",
            ),
        ),
        any_sum=True,
    ),
    "dro-lt": System(
        "cross-entropy; features pulled to robust class centroids; the classifier anew on class-aware batches",
        "Samuel and Chechik, ICCV 2021",
        _dro_lt,
    ),
    "cc-sam": System(
        "mixup, the classifier perturbed by class; then adversarial features; backbone weights frozen, statistics not",
        "Zhou et al., CVPR 2023",
        _cc_sam,
        own_optimizer=True,
    ),
    "glmc": System(
        "mixup and CutMix of a plain and a re-sampled batch, consistent with each other; two classifiers",
        "Du et al., CVPR 2023",
        _glmc,
        passes=4.0,
    ),
    "bcl": System(
        "logit-adjusted cross-entropy + balanced contrastive loss with class prototypes",
        "Zhu et al., CVPR 2022",
        partial(_contrastive, kind="bcl", head="bcl"),
        passes=3.0,
    ),
    "proco": System(
        "logit-adjusted cross-entropy + probabilistic contrastive loss",
        "Du et al., TPAMI 2024",
        partial(_contrastive, kind="proco", head="contrastive"),
        passes=3.0,
    ),
    "ours": System(
        "logit-adjusted loss on a linear schedule; over 160 epochs mixtures, strong augmentation, SAM; then PLDA",
        "this library",
        our_stages,
        notes=("ours: our own recipe; its numbers are not published anywhere",),
    ),
}  # fmt: skip
