"""What one stage of training is: plain numbers and names, written to and read from TOML. Imports no torch."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field

Options = dict[str, float | str]
"""What a registry's entry is built with: numbers and words, as TOML has them."""


@dataclass(frozen=True)
class Stage:
    """One stage of a method. A method is a list of these; the paper's own rows are lists of one.

    Epochs are 0-based everywhere. Names (``loss``, ``sampler``, ``augment``, ``optimizer``, ``lr_schedule`` ...) are
    those of the registries of the instruments.
    """

    _: KW_ONLY
    name: str = "train"
    epochs: int = 200
    batch_size: int = 128

    # What is learnt from: the objective turns a batch into per-sample losses.
    objective: str = "classify"
    objective_options: Options = field(default_factory=dict)
    loss: str = "ce"
    loss_options: Options = field(default_factory=dict)
    early_loss: str = ""  # what stands in for the loss before epoch loss_start
    loss_start: int = 0
    normalization: str = ""  # "": as the authors of the loss; "weights": sum(w*l)/sum(w); "samples": sum(w*l)/N
    reweight: str = "none"  # "none" | "drw": effective numbers from reweight_start on | "always" | "power": n^-power
    reweight_start: int = 0
    beta: float = 0.9999  # effective-number weights
    power: float = 1.0  # exponent of the weights n^-power, for reweight = "power"
    sampler: str = "instance-balanced"
    sampler_options: Options = field(default_factory=dict)
    augment: str = "none"
    views: tuple[str, ...] = ()  # augmentations of further views of the same images, one each
    partner: str = ""  # sampler of a second batch beside each batch; "" is none
    partner_options: Options = field(default_factory=dict)

    # What is trained, and from where.
    head: str = "linear"
    head_fit: str = ""  # the head is fitted in closed form instead of trained: "tau-norm" | "ncm" | "plda"
    head_fit_options: Options = field(default_factory=dict)
    trainable: str = "all"  # "all" | "none" | "head" | "backbone" | names or their beginnings, e.g. "head.scale"
    reset_head: bool = False  # a fresh head; else the one before is kept or built upon
    backbone_mode: str = "train"  # "train": BatchNorm statistics move | "eval": they do not

    # How the weights move.
    lr: float = 0.1
    lr_factors: dict[str, float] = field(default_factory=dict)  # beginning of a parameter's name -> factor on lr
    lr_schedule: str = "paper-cifar"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 2e-4
    optimizer: str = "sgd"  # "sgd" | "sam" | "asam" | "pgd" | "momentum-sam" ...
    optimizer_options: Options = field(default_factory=dict)
    rho: tuple[float, ...] = ()  # one radius, or the steps of a schedule
    rho_schedule: str = "constant"  # "constant" | "linear" (from, to) | "step" (2: at 80 %) | "large-scale-step"
    rho_start: int = 0  # epochs before it have rho 0: one pass, the base optimiser
    freeze_bn_stats: bool = False  # False is what the paper's code does; SAM's authors recommend True
    clip_grad_norm: float = 0.0  # 0 is off
    accumulate: int = 1  # micro-batches a step
