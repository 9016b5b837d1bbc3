"""What a person asks for: groups of flags with their help, shared by commands and taken by the plan. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from saddlescape.records.config import Count, Positive, Seed
from saddlescape.records.record import LARGEST, may_be, one_of


def whole(type_: Any, tokens: Sequence[Any]) -> int:
    """Read one token as an integer (cyclopts would round 1.5). Raises ValueError, which becomes cyclopts' one line."""
    return _whole(tokens[0].value)


def _whole(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f'"{text}" is not a whole number') from None
    if abs(number) >= 2**63:
        raise ValueError(f'"{text}" is too large')
    return number


def several(type_: Any, tokens: Sequence[Any]) -> list[int]:
    """Read tokens such as "0 1 2" or "0,1,2" as integers."""
    words = [word for token in tokens for word in re.split(r"[,\s]+", token.value.strip(", "))]
    try:
        return [_whole(word) for word in words]
    except ValueError as error:
        raise ValueError(f"{error}; write --seeds 0 1 2") from None


# cyclopts reads the annotations of a class, inherited ones too, with the names of the class's own module: all groups
# of flags stand in this file.
SEVERAL = Parameter(consume_multiple=1, negative=())  # one value or more: --classes 0 9
Whole = Annotated[int, Parameter(converter=whole)]
AtLeastOne = Annotated[Whole, *Count.__metadata__]
Seeds = Annotated[Sequence[int], Parameter(converter=several), SEVERAL]
OnlyOn = Annotated[bool, Parameter(negative=())]
DATA, TRAINING, MACHINE, OUTPUT = (
    Parameter(group=Group(name, sort_key=order)) for order, name in enumerate(("Data", "Training", "Machine", "Output"))
)
Words = Annotated[Sequence[str], SEVERAL, Parameter(show_default=False)]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Flags of train, reproduce and tune; None means "decide for me".

    Args:
        imbalance: Ratio of the largest to the smallest class to draw the training set with (default: as published, or
            as the data are).
        epochs: Length of training; every milestone of the recipe stretches with it (default: as published).
        budget: Length of training as work: of as many epochs of SGD. An epoch of SAM counts two.
        model: Another network than the recipe's; the table of reproduce says so.
        val: Fraction of each class to hold out of training for validation (0: none); extra: a balanced set of images
            that the long-tailed draw leaves out.
        root: Folder with the data; default $SADDLESCAPE_DATA, then the user cache.
        download: Fetch CIFAR from its home page if it is not found.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, float32, bf16 or fp16.
        compile: torch.compile the model. Default: on long CPU runs, where it pays.
    """

    imbalance: Annotated[Annotated[float, may_be("head over tail, at least 1", ge=1, le=LARGEST)] | None, DATA] = None
    epochs: Annotated[Whole | None, TRAINING] = None
    budget: Annotated[Annotated[float, may_be("a number of at least 1", ge=1, le=1e5)] | None, TRAINING] = None
    model: Annotated[str | None, TRAINING] = None
    val: Annotated[float | Literal["extra"], DATA] = 0.0
    root: Annotated[str | None, DATA] = None
    download: Annotated[bool, DATA] = False
    device: Annotated[str, MACHINE] = "auto"
    precision: Annotated[str, MACHINE] = "auto"
    compile: Annotated[bool | None, MACHINE] = None


@dataclass(frozen=True, kw_only=True)
class SeededOptions(Options):
    """Further flags of train and tune.

    Args:
        seed: Seed of initialisation, order and augmentation (default 0); the images drawn do not depend on it.
        settings: Any field of a stage: --set train.momentum=0.95 train.loss_options.max_margin=0.3
    """

    seed: Annotated[Whole | None, TRAINING] = None
    settings: Annotated[Annotated[Words, Parameter(name="--set")], TRAINING] = ()


@dataclass(frozen=True, kw_only=True)
class TuneOptions(SeededOptions):
    """Flags of tune.

    Args:
        val: Fraction of each class held out to choose on, or extra.
    """

    val: Annotated[float | Literal["extra"], DATA] = 0.2


@dataclass(frozen=True, kw_only=True)
class GridOptions(Options):
    """Further flags of train and reproduce.

    Args:
        rho: Radius of SAM's ascent step; in reproduce of every row that has one.
        weight_decay: Override the recipe's weight decay.
        eval_every: Test every so many epochs (and after the last).
        keep_every: Keep the checkpoint of every so many epochs, for the course of the curvature.
    """

    rho: Annotated[float | None, TRAINING] = None
    weight_decay: Annotated[float | None, TRAINING] = None
    eval_every: Annotated[Whole, OUTPUT] = 1
    keep_every: Annotated[Whole, OUTPUT] = 0


@dataclass(frozen=True, kw_only=True)
class TrainOptions(SeededOptions, GridOptions):
    """Further flags of train alone.

    Args:
        lr: Override the recipe's learning rate.
        batch_size: Override the recipe's batch size.
        augment: Override the recipe's augmentation.
        backbone: Start from a pretrained network: timm/NAME, torchvision/NAME, transformers/NAME_OR_FOLDER,
            package.module:function of yours, or a model of ours with --weights.
        weights: File with the backbone's weights (.safetensors or .pt), in place of the ones that it brings.
        tune: What of the backbone is trained: head (on features that are computed
            once; the default), norm (layers of normalisation, and the head), lora
            (small matrices in a transformer's attention, and the head) or all.
        mirror: Features of a backbone are the mean of those of an image and of its mirror image: half as fast.
        pretrained: Older spelling: --model timm/NAME --pretrained is --backbone timm/NAME.
        profile: Shape of the drawn long tail: exp or step.
        draw_seed: Seed of which images are drawn or held out.
        image_size: Pixels a side that a person's own images are scaled to, and any for a backbone.
        bad_images: error, or skip: continue without files that cannot be read (they are listed and counted).
        start: A run whose first stage a system (crt, lws, disalign, ...) continues from, instead of training its own.
        sync_sam: Under torchrun: SAM climbs the gradient of the whole batch, not each process that of its shard.
        sync_batchnorm: Under torchrun, on GPUs: BatchNorm sees the whole batch, not each process its shard.
    """

    lr: Annotated[float | None, TRAINING] = None
    batch_size: Annotated[Whole | None, TRAINING] = None
    augment: Annotated[str | None, TRAINING] = None
    backbone: Annotated[str | None, TRAINING] = None
    weights: Annotated[str | None, TRAINING] = None
    tune: Annotated[str | None, TRAINING] = None
    mirror: Annotated[bool, TRAINING] = False
    pretrained: Annotated[bool, TRAINING] = False
    profile: Annotated[str, DATA] = "exp"
    draw_seed: Annotated[Whole, DATA] = 0
    image_size: Annotated[AtLeastOne | None, DATA] = None
    bad_images: Annotated[str, DATA] = "error"
    start: Annotated[Annotated[Path | None, Parameter(name="--from")], TRAINING] = None
    sync_sam: Annotated[OnlyOn, MACHINE] = False
    sync_batchnorm: Annotated[OnlyOn, MACHINE] = False


@dataclass(frozen=True, kw_only=True)
class Request(TrainOptions):
    """One run: its data, its method (None: follows from the data), the processes that train it, and all flags."""

    data: str
    method: str | None = None
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class SubjectOptions:
    """Flags of curvature, surface and escape: where a run's network and data are.

    Args:
        checkpoint: A folder under RUN/checkpoint, such as s0-e00020-b000000 (default: the newest).
        device: auto, cpu, cuda or cuda:N.
        root: Folder with the data, if it has moved.
    """

    checkpoint: str | None = None
    device: str = "auto"
    root: str | None = None


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(SubjectOptions):
    """Further flags of curvature and surface.

    Args:
        loss: ce: cross-entropy on the raw logits; train: the run's own loss, margins included.
        samples_per_class: Measure a fixed random sample of larger classes; the sampling error is shown. Default: all
            images (--over-training: 256, --advise-rho: 512).
        batch_size: Images at a time; bounds memory, moves no figure.
        dtype: float32 or float64.
        seed: Of random starts, directions and samples.
    """

    loss: Annotated[str, one_of("ce", "train")] = "ce"
    samples_per_class: AtLeastOne | None = None
    batch_size: AtLeastOne = 256
    dtype: Annotated[str, one_of("float32", "float64")] = "float32"
    seed: Annotated[Whole, *Seed.__metadata__] = 0


@dataclass(frozen=True, kw_only=True)
class CurvatureOptions(MeasureOptions):
    """Flags of curvature.

    Args:
        classes: Class names, their numbers, head, mid, tail or all (default: all; with --advise-rho: tail and head).
        groups: Also a spectrum of the mean loss of head, mid and tail.
        over_training: Instead, the course over the kept checkpoints (train with --keep-every) ->
            curvature-course.jsonl.
        advise_rho: Instead, from which rho on SAM amplifies each class's most negative direction -> rho-advice.json.
        extremes_only: Certified lambda_min and lambda_max alone: cheaper, without density, trace and share of negative
            mass.
        lanczos_steps: Steps of each Lanczos run.
        probes: Lanczos runs per class, each from another random vector.
        samples_per_group: With --groups, a fixed random sample of the images of each group, for data of many classes.
            Default: all.
        augmented_views: Measure so many views of each image, augmented as in training and drawn once, in place of the
            image as it is. (The paper's own analysis augments, but anew in each product.)
        gauss_newton: Show the Gauss-Newton part and the rest of the Hessian beside the whole.
        tol: Residual, beside the value, at which a pair is settled (default 0.001; --over-training, --advise-rho:
            0.01).
        products: Most Hessian products: to settle extremes that Lanczos has not (default 100), or per class and
            checkpoint with --over-training (60) or class with --advise-rho (100).
        rho: Radii to try with --advise-rho.
    """

    classes: Words = ()
    groups: OnlyOn = False
    over_training: OnlyOn = False
    advise_rho: OnlyOn = False
    extremes_only: OnlyOn = False
    lanczos_steps: AtLeastOne = 100
    probes: AtLeastOne = 1
    samples_per_group: AtLeastOne | None = None
    augmented_views: AtLeastOne | None = None
    gauss_newton: bool = True
    tol: Annotated[float, may_be("between 0 and 1", gt=0, lt=1)] | None = None
    products: AtLeastOne | None = None
    rho: Annotated[Sequence[Positive], SEVERAL, Parameter(show_default=False)] = ()


@dataclass(frozen=True, kw_only=True)
class SurfaceOptions(MeasureOptions):
    """Flags of surface.

    Args:
        directions: eigen: unit eigenvectors of lambda_min and lambda_max, each class along its own; random:
            filter-normalised.
        line: A line along the first direction instead of a plane.
        classes: Class names, their numbers, head, mid, tail or all: a surface for each (default: one of the mean over
            all images).
        span: From -span to span along each direction.
        steps: Points along each direction.
        out: File to write (.npz; a .json with the facts lies beside it).
    """

    directions: Annotated[str, one_of("eigen", "random")] = "eigen"
    line: OnlyOn = False
    classes: Words = ()
    span: Positive = 1.0
    steps: Annotated[Whole, may_be("at least 2", ge=2)] = 21
    out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class EscapeOptions(SubjectOptions):
    """Flags of escape.

    Args:
        epochs: Epochs of each arm.
        lr: Constant learning rate of each arm.
        arms: Optimisers with their radii: sgd pgd@0.5 sam@0.1 momentum-sam@1.5 (default: nine arms).
        seeds: Seeds of the order of images (default: 0); several make the noise known.
        classes: Whose curvature is followed (default: the tail).
        samples_per_class: Images of each larger class that curvature is measured on.
        products: Most Hessian products per class and epoch.
        out: The result file (default: RUN/escape.json).
    """

    epochs: Whole = 10
    lr: float = 0.01
    arms: Words = ()
    seeds: Annotated[Seeds, Parameter(show_default=False)] = ()
    classes: Words = ()
    samples_per_class: AtLeastOne = 256
    products: AtLeastOne = 60
    out: Path | None = None
