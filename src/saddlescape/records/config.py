"""``config.toml``: everything that decides the result of a run. What each field may be stands at the field."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, Literal

import msgspec

from saddlescape.errors import InputError
from saddlescape.records.record import LARGEST, may_be, one_of, violation

VERSION = 1
LORA_RANK = 8  # of --tune lora

Count = Annotated[int, may_be("a whole number of at least 1", ge=1)]
Index = Annotated[int, may_be("a whole number of at least 0", ge=0)]
Seed = Annotated[int, may_be("a whole number between 0 and 4294967295", ge=0, le=2**32 - 1)]
Finite = Annotated[float, may_be("a finite number", ge=-LARGEST, le=LARGEST)]
Positive = Annotated[float, may_be("a finite number above 0", gt=0, le=LARGEST)]
NotNegative = Annotated[float, may_be("a finite number of at least 0", ge=0, le=LARGEST)]
Fraction = Annotated[float, may_be("a number from 0 to below 1", ge=0, lt=1)]
Val = Annotated[float, may_be("a number from 0 to below 1, or extra", ge=0, lt=1)] | Literal["extra"]

Options = dict[str, Finite | str]
"""What a registry's entry is built with: numbers and words, as TOML has them."""


@dataclass(frozen=True)
class Stage:
    """One stage of a method. A method is a list of these; the paper's own rows are lists of one.

    Plain numbers and names. Epochs are 0-based everywhere. Names (``loss``, ``sampler``, ``augment``, ``optimizer``,
    ``lr_schedule`` ...) are those of the registries of the instruments.
    """

    _: KW_ONLY
    name: str = "train"
    epochs: Count = 200
    batch_size: Count = 128

    # What is learnt from: the objective turns a batch into per-sample losses.
    objective: str = "classify"
    objective_options: Options = field(default_factory=dict)
    loss: str = "ce"
    loss_options: Options = field(default_factory=dict)
    early_loss: str = ""  # what stands in for the loss before epoch loss_start
    loss_start: Index = 0
    # "": as the authors of the loss; "weights": sum(w*l)/sum(w); "samples": sum(w*l)/N
    normalization: Annotated[str, one_of("", "weights", "samples")] = ""
    # "drw": effective numbers from reweight_start on; "always": from the first epoch; "power": n^-power
    reweight: Annotated[str, one_of("none", "drw", "always", "power")] = "none"
    reweight_start: Index = 0
    beta: Fraction = 0.9999  # effective-number weights
    power: Finite = 1.0  # exponent of the weights n^-power, for reweight = "power"
    sampler: str = "instance-balanced"
    sampler_options: Options = field(default_factory=dict)
    augment: str = "none"
    views: tuple[str, ...] = ()  # augmentations of further views of the same images, one each
    partner: str = ""  # sampler of a second batch beside each batch; "": no second batch
    partner_options: Options = field(default_factory=dict)

    # What is trained, and from where.
    head: str = "linear"
    head_fit: str = ""  # the head is fitted instead of trained: "tau-norm" | "ncm" | "plda" | "probe"
    head_fit_options: Options = field(default_factory=dict)
    # "all" | "none" | "head" | "backbone" | "norm" | "lora" | names or their beginnings, e.g. "norm,head.scale"
    trainable: str = "all"
    reset_head: bool = False  # a fresh head; else the one before is kept or built upon
    backbone_mode: Annotated[str, one_of("train", "eval")] = "train"  # of BatchNorm's statistics and dropout

    # How the weights move.
    lr: Positive = 0.1
    lr_factors: dict[str, NotNegative] = field(default_factory=dict)  # beginning of a parameter's name -> factor on lr
    lr_schedule: str = "paper-cifar"
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NotNegative = 2e-4
    optimizer: str = "sgd"  # "sgd" | "sam" | "asam" | "pgd" | "momentum-sam" ...
    optimizer_options: Options = field(default_factory=dict)
    rho: tuple[NotNegative, ...] = ()  # one radius, or the steps of a schedule
    rho_schedule: str = "constant"  # "constant" | "linear" (from, to) | "step" (2: at 80 %) | "large-scale-step"
    rho_start: Index = 0  # epochs before it have rho 0: one pass, the base optimiser
    freeze_bn_stats: bool = False  # False is what the paper's code does; SAM's authors recommend True
    clip_grad_norm: NotNegative = 0.0  # 0 is off
    accumulate: Count = 1  # micro-batches a step


@dataclass(frozen=True)
class DataConfig:
    """Which images: arguments of ``saddlescape.data.load``. 0 and "" mean "not given"."""

    _: KW_ONLY
    name: str
    root: str = ""
    imbalance: NotNegative = 0.0
    profile: Annotated[str, one_of("exp", "step")] = "exp"
    draw_seed: Seed = 0
    val: Val = 0.0  # extra: a balanced set of images that the long-tailed draw leaves out
    image_size: Index = 0
    bad_images: Annotated[str, one_of("error", "skip")] = "error"
    # How a person's own images are split; run folders without this field: by position.
    split: Annotated[str, one_of("position", "name")] = "position"
    # The preprocessing that a backbone brings; mean empty: the one of the data.
    resize_to: Index = 0
    interpolation: Annotated[str, one_of("bilinear", "bicubic")] = "bilinear"
    mean: tuple[Finite, ...] = ()
    std: tuple[Positive, ...] = ()


@dataclass(frozen=True)
class BackboneConfig:
    """What a pretrained network is built with again; see ``saddlescape.models.backbone``."""

    _: KW_ONLY
    weights: str = ""  # a file; "": those that the name of the model brings
    weights_hash: str = ""  # of the weights that training started from; "": the run has no backbone
    input_size: Index = 0  # pixels a side that smaller images are scaled to inside the network
    interpolation: Annotated[str, one_of("bilinear", "bicubic")] = "bilinear"
    architecture: str = ""  # JSON, of transformers
    # What is trained: the head on features that are computed once, beside it layers of normalisation or small matrices
    # (LoRA), or all of the network.
    tune: Annotated[str, one_of("head", "norm", "lora", "all")] = "all"
    precision: Annotated[str, one_of("float32", "bf16", "fp16")] = "float32"  # of the features of a frozen backbone
    mirror: bool = False  # features are the mean of those of an image and of its mirror image

    @property
    def frozen(self) -> bool:
        """Whether the head alone is trained, on the backbone's features."""
        return bool(self.weights_hash) and self.tune == "head"

    @property
    def trained(self) -> str:
        """What of a pretrained network is trained beside the head: "norm", "lora", "all"; "": nothing."""
        return self.tune if self.weights_hash and self.tune != "head" else ""

    @property
    def options(self) -> dict[str, Any]:
        """What ``build_model`` takes beside the model's name to build the network without its weights."""
        fields = ("input_size", "interpolation", "architecture", *(["mirror"] if self.mirror else []))
        made = {name: getattr(self, name) for name in fields} if self.weights_hash else {}
        return made | ({"lora": LORA_RANK} if self.trained == "lora" else {})


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the result of a run, and nothing else."""

    _: KW_ONLY
    method: str
    model: str
    seed: Seed
    data: DataConfig
    stages: tuple[Stage, ...]
    device: str = "cpu"
    precision: str = "float32"
    compile: bool = False
    threads: Index = 0  # 0: of older files, not recorded
    pretrained: bool = False  # of older files: timm's weights for images as the data have them
    backbone: BackboneConfig = BackboneConfig()
    eval_every: Count = 1
    keep_every: Index = 0
    start: str = ""  # another run's folder, seen from this one's, whose first stage this run continues from
    start_hash: str = ""  # of that stage's weights
    processes: Count = 1  # that share every batch
    sync_sam: bool = False  # SAM climbs the gradient of the whole batch, not each process its own
    sync_batchnorm: bool = False  # BatchNorm sees the whole batch, not each process its shard
    version: int = VERSION

    @property
    def start_kind(self) -> str:
        """What training began with: "scratch", "features" of a person's own, or what of a pretrained network is
        trained ("head", "norm", "lora", "all")."""
        if self.backbone.weights_hash:
            return self.backbone.tune
        return "all" if self.pretrained else "features" if self.model == "features" else "scratch"

    @property
    def network(self) -> str:
        """The name of the network that is trained: a frozen backbone is none of it."""
        return "features" if self.backbone.frozen else self.model

    @property
    def network_options(self) -> dict[str, Any]:
        """What ``build_model`` takes for it."""
        return {} if self.backbone.frozen else self.backbone.options


def check(config: RunConfig) -> None:
    """Compare every field with what it may be.

    Raises:
        InputError: the stage and field, or the flag, its value and what is allowed.
    """
    if not config.stages:
        raise InputError("the configuration has no stage; it needs at least one")
    check_stages(config.stages)
    check_flags(msgspec.to_builtins(config), RunConfig)


def check_flags(raw: Any, kind: type) -> None:
    """Compare the fields of ``raw`` with what ``kind`` allows. Raises InputError that names the flag of the field."""
    found = violation(raw, kind)
    if found is not None:
        path, value, allowed = found
        name = next(part for part in reversed(path.split(".")) if not part.isdigit())  # of a list its own
        raise InputError(f"{flag(name)} {value}: must be {allowed}")


def flag(field: str) -> str:
    """A field of a configuration or a request as it is written on the command line."""
    return "--" + {"settings": "set", "start": "from"}.get(field, field).replace("_", "-")


def check_stages(stages: Sequence[Stage]) -> None:
    """As ``check``, for stages alone."""
    for stage in stages:
        found = violation(msgspec.to_builtins(stage), Stage)
        if found is not None:
            path, value, allowed = found
            field = path.partition(".")[0] if path.rpartition(".")[2].isdigit() else path  # an entry of a list
            raise InputError(f"stage {stage.name!r}: {field} is {value}; it must be {allowed}")


def read_config(raw: Any, where: str, *, strict: bool = False) -> RunConfig:
    """The configuration in ``raw`` (parsed TOML); fields that older files lack have their defaults.

    Args:
        strict: refuse unknown keys; otherwise they are ignored, so that a report opens files of other versions.

    Raises:
        InputError: a missing or (strict) unknown key, a wrong type or value, or another format version.
    """
    try:
        found = violation(raw, RunConfig)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: {error}; edit it, or restore the file") from None
    if found is not None:
        path, value, allowed = found
        raise InputError(f"{where}: {path} is {value}; it must be {allowed}")
    tables: list[tuple[str, dict[str, Any], Any]] = [("", raw, RunConfig), ("data.", raw["data"], DataConfig)]
    tables.append(("backbone.", raw.get("backbone", {}), BackboneConfig))
    tables += [(f"stages.{number}.", stage, Stage) for number, stage in enumerate(raw["stages"])]
    unknown = [place + key for place, table, kind in tables for key in table if key not in kind.__dataclass_fields__]
    if unknown and strict:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; remove it, or correct its name")
    config = msgspec.convert(raw, RunConfig)
    if config.version != VERSION:
        raise InputError(f"{where}: written by format {config.version}, this version reads {VERSION}")
    # msgspec sets no field that the file lacks; an older file must equal a new one that has the default.
    stages = tuple(dataclasses.replace(stage) for stage in config.stages)
    data, backbone = dataclasses.replace(config.data), dataclasses.replace(config.backbone)
    return dataclasses.replace(config, data=data, backbone=backbone, stages=stages)
