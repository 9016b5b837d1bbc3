"""Every recipe has the numbers of its authors' public code, or says in its own text that it has others and why."""

from __future__ import annotations

from typing import Any

import pytest

from saddlescape.methods.recipe import Facts
from saddlescape.methods.resolve import resolve
from saddlescape.records.config import Stage
from saddlescape.training.epoch import at

CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet-lt": 1000, "inat2018": 8142}
FULL = {"cifar10": 5000, "cifar100": 500, "imagenet-lt": 1280, "inat2018": 1000}


def stages(method: str, dataset: str, imbalance: int = 100) -> tuple[Stage, ...]:
    counts = [FULL[dataset]] * (CLASSES[dataset] - 1) + [max(1, FULL[dataset] // imbalance)]
    size = 32 if dataset.startswith("cifar") else 224
    return resolve(method, Facts(dataset=dataset, class_counts=counts, image_size=size, augment="crop-flip")).stages


# (method, data set, imbalance, number of the stage, what it must have); above each group the repository it is from.
PUBLISHED: list[Any] = [
    # val-iisc/Saddle-LongTail: cifar_train*.py, imnet_train*.py, inat_train*.py, run.sh
    ("ce", "cifar10", 100, 0, {"lr": 0.1, "batch_size": 128, "weight_decay": 2e-4, "epochs": 200, "momentum": 0.9,
                               "nesterov": False, "augment": "crop-flip", "sampler": "instance-balanced", "rho": (),
                               "head": "linear", "loss": "ce", "optimizer": "sgd", "reweight": "none"}),
    ("ce+sam", "cifar10", 100, 0, {"rho": (0.1,), "freeze_bn_stats": False}),
    ("ce+drw+sam", "cifar10", 100, 0, {"rho": (0.5,), "reweight_start": 160, "beta": 0.9999}),
    ("ldam+drw+sam", "cifar10", 100, 0, {"rho": (0.8,), "loss_options": {"max_margin": 0.5, "scale": 30.0}}),
    ("ldam+drw+sam", "cifar100", 100, 0, {"head": "cosine", "loss": "ldam", "optimizer": "sam", "reweight": "drw"}),
    ("vs", "cifar10", 100, 0, {"loss_options": {"gamma": 0.15, "tau": 1.25}}),
    ("vs", "cifar100", 100, 0, {"loss_options": {"gamma": 0.05, "tau": 0.75}}),
    ("ce+sam", "cifar100", 100, 0, {"rho": (0.2,)}),
    ("ce+drw+sam", "cifar100", 100, 0, {"rho": (0.8,)}),
    ("ldam+drw+sam", "cifar100", 100, 0, {"rho": (0.8,)}),
    # mingxi/IB-Loss: alpha 1000 is the class's default here
    ("ib", "cifar10", 100, 0, {"early_loss": "ce", "loss_start": 100, "lr_schedule": "ib"}),
    # facebookresearch/classifier-balancing: batch 512 and lr 0.2, in proportion here
    ("crt", "imagenet-lt", 256, 1, {"epochs": 10, "lr": 0.1, "weight_decay": 5e-4, "sampler_options": {"k": 4.0},
                                    "lr_schedule": "cosine", "batch_size": 256, "reset_head": True,
                                    "trainable": "head", "sampler": "class-aware"}),
    ("crt", "inat2018", 500, 1, {"epochs": 30, "lr": 0.1, "weight_decay": 1e-4}),
    ("lws", "imagenet-lt", 256, 1, {"epochs": 5, "lr": 0.1, "weight_decay": 5e-4, "sampler_options": {"k": 4.0},
                                    "head": "lws", "trainable": "head.scale", "reset_head": False}),
    ("lws", "inat2018", 500, 1, {"epochs": 5, "lr": 0.1, "weight_decay": 1e-4}),
    *((name, "cifar10", 100, 1, {"head": name, "head_fit": name, "head_fit_options": options, "trainable": "none"})
      for name, options in (("tau-norm", {}), ("ncm", {"mode": "cl2n"}), ("plda", {"shrinkage": 0.1}))),
    # dvlab-research/MiSLAS, config/*
    ("mislas", "cifar10", 100, 0, {"objective_options": {"alpha": 1.0}, "weight_decay": 2e-4, "lr_schedule": "mislas",
                                   "objective": "mixup", "epochs": 200, "lr": 0.1}),
    *(("mislas", dataset, imbalance, 1,
       {"epochs": 10, "lr": 0.1, "head": "lws", "loss": "las", "reset_head": False, "backbone_mode": mode,
        "loss_options": {"smooth_head": head, "smooth_tail": tail, "shape": "concave"},
        "lr_factors": {"head.linear": factor}})
      for dataset, imbalance, head, tail, factor, mode in (
          ("cifar10", 100, 0.3, 0.0, 0.5, "eval"), ("cifar10", 50, 0.2, 0.0, 0.2, "eval"),
          ("cifar10", 10, 0.1, 0.0, 0.2, "eval"), ("cifar100", 100, 0.4, 0.1, 0.2, "train"),
          ("cifar100", 50, 0.3, 0.0, 0.1, "train"), ("cifar100", 10, 0.2, 0.0, 0.1, "train"),
          ("imagenet-lt", 256, 0.3, 0.0, 0.05, "train"), ("inat2018", 500, 0.3, 0.0, 0.05, "train"))),
    ("mislas", "imagenet-lt", 256, 0, {"epochs": 180, "lr": 0.1, "weight_decay": 5e-4,
                                       "lr_schedule": "cosine", "objective_options": {"alpha": 0.2}}),
    ("mislas", "inat2018", 500, 0, {"epochs": 200, "lr": 0.1, "weight_decay": 1e-4}),
    # Megvii-BaseDetection/DisAlign
    ("disalign", "imagenet-lt", 256, 1, {"epochs": 10, "lr": 0.1, "weight_decay": 5e-4, "power": 1.2,
                                         "sampler": "instance-balanced", "batch_size": 256, "reweight": "power",
                                         "head": "disalign", "trainable": "head.alpha,head.beta,head.confidence"}),
    # dvirsamuel/DRO-LT
    *(row for dataset in ("cifar10", "cifar100") for row in (
        ("dro-lt", dataset, 100, 0, {"epochs": 200, "weight_decay": 1e-4, "augment": "autoaugment-cutout"}),
        ("dro-lt", dataset, 100, 1, {"epochs": 80, "lr": 0.005, "weight_decay": 1e-4, "lr_schedule": "constant",
                                     "sampler_options": {"k": 4.0, "num_samples": 50000.0}, "objective": "dro-lt",
                                     "objective_options": {"temperature": 1.0, "form": "paper"}, "reweight": "power",
                                     "power": -1.0, "trainable": "backbone", "backbone_mode": "train"}),
        ("dro-lt", dataset, 100, 2, {"epochs": 20, "lr": 0.01, "weight_decay": 1e-4, "lr_schedule": "constant",
                                     "backbone_mode": "eval", "trainable": "head", "reset_head": False,
                                     "augment": "autoaugment-cutout"}))),
    # zzpustc/CC-SAM, configs/Cifar10.json
    *(row for dataset, phi, cap in (("cifar10", 0.3, 1.0), ("cifar100", 0.5, 0.3)) for row in (
        ("cc-sam", dataset, 100, 0, {"batch_size": 64, "rho": (1e-6,), "optimizer": "cc-sam", "epochs": 200, "lr": 0.1,
                                     "optimizer_options": {"phi": phi}, "lr_schedule": "mislas",
                                     "objective": "mixup", "objective_options": {"alpha": 1.0}}),
        ("cc-sam", dataset, 100, 1, {"epochs": 30, "lr": 0.01, "lr_schedule": "constant", "optimizer": "sgd",
                                     "sampler": "class-aware", "sampler_options": {"k": 1.0}, "trainable": "head",
                                     "objective": "adversarial-features", "objective_options": {"cap": cap}}))),
    # ynu-yangpeng/GLMC, run.sh; GLMC + SAM: val-iisc/Saddle-LongTail, GLMC-2023/run.sh
    ("glmc", "cifar100", 50, 0, {"partner_options": {"q": 0.8},
                                 "objective_options": {"consistency": 6.0, "label_power": 1.2}}),
    *(("glmc+sam", dataset, imbalance, 0,
       {"partner": "power", "partner_options": {"q": q}, "rho": (0.05,), "freeze_bn_stats": False, "head": "glmc",
        "views": ("crop-flip",), "objective_options": {"consistency": eta, "label_power": power}})
      for dataset, imbalance, q, power, eta in (
          ("cifar10", 100, 1.0, 1.2, 1.0), ("cifar10", 50, 1.0, 1.2, 1.0), ("cifar10", 10, 0.8, 1.0, 2.0),
          ("cifar100", 100, 1.0, 1.2, 4.0), ("cifar100", 50, 1.0, 1.2, 4.0), ("cifar100", 10, 0.8, 1.2, 4.0))),
    ("glmc", "cifar100", 100, 0, {"lr": 0.01, "weight_decay": 5e-3, "batch_size": 64, "lr_schedule": "cosine"}),
    ("glmc", "imagenet-lt", 256, 0, {"epochs": 135, "batch_size": 120, "lr": 0.1, "weight_decay": 2e-4}),
    ("glmc", "inat2018", 500, 0, {"epochs": 120, "batch_size": 128, "lr": 0.1, "weight_decay": 1e-4}),
    # FlamieZhu/Balanced-Contrastive-Learning
    ("bcl", "imagenet-lt", 256, 0, {"epochs": 90, "lr": 0.1, "weight_decay": 5e-4, "batch_size": 256}),
    ("bcl", "inat2018", 500, 0, {"epochs": 100, "lr": 0.2, "weight_decay": 1e-4, "batch_size": 256}),
    # LeapLabTHU/ProCo
    ("proco", "cifar100", 100, 0, {"lr": 0.3, "batch_size": 256, "weight_decay": 2e-4, "epochs": 200, "loss": "la",
                                   "lr_schedule": "mislas", "augment": "autoaugment-cutout",
                                   "views": ("simclr", "simclr"), "head": "contrastive",
                                   "objective_options": {"kind": "proco", "weight": 1.0, "classify_weight": 1.0,
                                                         "temperature": 0.1}}),
    ("proco", "imagenet-lt", 256, 0, {"objective_options": {"kind": "proco", "weight": 1.0, "classify_weight": 1.0,
                                                            "temperature": 0.07}}),
    ("bcl", "cifar100", 100, 0, {"head": "bcl", "lr": 0.15, "weight_decay": 5e-4,
                                 "objective_options": {"kind": "bcl", "weight": 0.6, "classify_weight": 2.0,
                                                       "temperature": 0.1}}),
    # cool-xuan/Imbalanced_SAM, zzpustc/CC-SAM, scongl/Focal-SAM
    ("ce+imbsam", "cifar100", 100, 0, {"rho": (0.05,), "optimizer_options": {"tail_weight": 2.0}}),
    ("la+focalsam", "cifar10", 100, 0, {"rho": (0.2,), "optimizer_options": {"lam": 0.5, "gamma": 3.0}}),
    ("la+focalsam", "cifar100", 100, 0, {"rho": (0.3,), "optimizer_options": {"lam": 0.8, "gamma": 3.2}}),
    ("la+focalsam", "imagenet-lt", 256, 0, {"rho": (0.1, 0.2), "optimizer_options": {"lam": 0.8, "gamma": 0.8}}),
    ("la+focalsam", "inat2018", 500, 0, {"rho": (0.2,), "optimizer_options": {"lam": 1.1, "gamma": 2.0}}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "dataset", "imbalance", "number", "wanted"), PUBLISHED)
def test_a_recipe_has_the_numbers_of_the_official_code(
    method: str, dataset: str, imbalance: int, number: int, wanted: dict[str, Any]
) -> None:
    stage = stages(method, dataset, imbalance)[number]
    for field, value in wanted.items():
        assert getattr(stage, field) == pytest.approx(value), field


def test_focal_sam_steps_its_radius_at_80_percent_of_training() -> None:
    (stage,) = stages("la+focalsam", "imagenet-lt", 256)
    counts = [1280, 5]
    assert [at(stage, counts, epoch).rho for epoch in (0, 71, 72, 89)] == [0.1, 0.1, 0.2, 0.2]  # of 90 epochs
