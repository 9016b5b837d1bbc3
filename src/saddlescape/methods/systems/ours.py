"""Our own recipe. Its terms depend on how long is trained.

Up to 160 epochs: logit-adjusted cross-entropy, batches of 64, Nesterov, a learning rate that rises over a tenth of
training and falls in a straight line to 0, weight decay 1e-3, crop and flip; one pass a step. Batch, weight decay and
augmentation were chosen on development images of CIFAR-10-LT at 20 epochs (recipe_terms-cifar10.json under
benchmarks/results), where strong augmentation cost ten points and PLDA after it brought nothing.
The terms of longer runs, one by one::

    --set train.objective=mixup
    --set train.augment=autoaugment-cutout
    --set train.lr_schedule=cosine

Longer: logit-adjusted cross-entropy of mixtures, a cosine schedule, AutoAugment with Cutout where there are 32 pixels
to augment, and SAM whose ascent sees a quarter of each batch with every tail image in it: 1.25 steps of SGD a step.
Then the classifier in closed form: probabilistic linear discriminant analysis, in which the tail borrows the covariance
of the head and the mean of a class is the less certain the fewer images it has. Term by term::

    --set train.loss=ce                               without margins
    --set train.objective=classify                    without mixup
    --set train.augment=crop-flip                     without strong augmentation
    --set train.optimizer=sgd                         without SAM
    --set train.optimizer_options.class_aware=0       SAM's share of the batch drawn from all classes alike
    --set train.rho_start=100                         SAM from an epoch on
    ours+sam                                          SAM on the whole batch: two steps of SGD a step

A contrastive term in the place of mixup, on two views of its own, which makes three times the work::

    --set train.objective=contrastive --set train.objective_options.kind=proco --set train.head=contrastive
    --set train.views=simclr,simclr

Mixup's alpha and the last stage were chosen on images held out of the training set of digits
(recipe_terms-development.json under benchmarks/results); the other numbers of long runs are ours and untuned. Tried
there and left: CC-SAM's and MiSLAS's second stages in the place of ours, mixtures with class-balanced partners, and
averages of the weights. A former recipe contrasted the same view by ProCo's loss and began SAM in the middle of
training, which cost accuracy on Digits-LT (recipe_terms-former.json).
"""

from __future__ import annotations

from dataclasses import replace

from saddlescape.methods.recipe import Facts
from saddlescape.methods.systems.system import Numbers, fitted_stage, mixup_stage, numbers
from saddlescape.records.config import Stage


def our_stages(facts: Facts, own: Numbers, first: Stage) -> tuple[Stage, ...]:
    stage = replace(first, loss="la", freeze_bn_stats=True)
    if own["alpha"]:
        stage = mixup_stage(stage, own)
    if stage.optimizer == "sgd" and own["share"]:
        share = numbers(own, "share")
        stage = replace(stage, optimizer="partial-sam", optimizer_options=share, rho=(float(own["rho"]),))
    return (stage, fitted_stage(stage, "plda", **numbers(own, "shrinkage"))) if own["shrinkage"] else (stage,)
