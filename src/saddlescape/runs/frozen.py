"""A frozen backbone: its features of every image are computed once, and a head is trained on them as on any features.

They are kept in ``RUN/features``, a folder for each split, named by the hash of its images, the backbone, its weights
and the preprocessing; in it a file for every ``CHUNK`` images. Each is written whole or not at all, so that a kill
costs one of them. Runs that lie side by side (those of a grid) share the files by hard links.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from saddlescape.data.images import draw_hash
from saddlescape.data.load import standardized
from saddlescape.data.loader import build_loader
from saddlescape.data.types import ArraySplit, Dataset, Preprocess, Split
from saddlescape.disk import whole
from saddlescape.errors import InputError
from saddlescape.models.backbone import Backbone
from saddlescape.models.registry import build_model
from saddlescape.records.config import RunConfig
from saddlescape.runs.backbone import require_weights
from saddlescape.training.precision import Precision

FOLDER = "features"
CHUNK = 512  # images in a file of the cache
BATCH = 64
CPU_BATCH = 8  # its maps fit into what malloc keeps: larger ones are fetched from the system and cleared each time
EVERY = 10.0  # seconds between lines of progress
VERSION = 1
Say = Callable[[str], None]


def load_frozen(config: RunConfig, num_classes: int, channels: int) -> Backbone:
    """The backbone of a run whose head alone is trained, with the weights that it was planned with, in eval mode.

    Raises:
        InputError: it cannot be built, or its weights are others now.
    """
    options = {**config.backbone.options, "pretrained": True, "weights": config.backbone.weights}
    model = cast(Backbone, build_model(config.model, num_classes, in_channels=channels, **options))
    require_weights(config, model)
    return model.eval()


def with_features(
    config: RunConfig, dataset: Dataset, folder: Path, say: Say = lambda line: None,
    trained_on: Preprocess | None = None,
) -> Dataset:  # fmt: skip
    """``dataset`` as the head sees it: features [N, d, 1, 1], centred, and over one scale, by those of the training
    images; ``trained_on``: as a head that is there saw them.

    The data of any other run come back as they are. ``folder`` is that of the run.

    Raises:
        InputError: an image or the backbone cannot be read, or features are not finite.
    """
    if not config.backbone.frozen or dataset.source is not None:
        return dataset
    making = _Making(config, dataset, folder, say)
    splits: dict[str, Any] = {}
    for name in ("train", "val", "test"):
        split = getattr(dataset, name)
        if split is not None:
            splits[name] = ArraySplit(making.of(split), split.labels, split.names)
    notes = list(dataset.notes)
    features = splits["train"].images
    # One scale: that a feature of a network varies much means something. On 3,000 development images of CIFAR-10-LT
    # (EfficientNet-Lite0, `la`) it had 83.6 at 128 pixels and 86.6 at 176; a scale for each feature 82.9 and 86.1.
    preprocess = trained_on or standardized(features, blank(features.shape[1]), notes, one_scale=True)
    return replace(dataset, **splits, preprocess=preprocess, augment="none", notes=notes, source=dataset)


def image_preprocess(meta: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint's ``meta.json`` says of the images, be they seen by the network that is trained or before."""
    return cast(dict[str, Any], meta.get("image_preprocess") or meta.get("preprocess", {}))


def stored_preprocess(raw: dict[str, Any]) -> Preprocess:
    """A ``Preprocess`` as ``meta.json`` has it."""
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    return Preprocess(**given)


def blank(width: int) -> Preprocess:
    """The preprocessing of features that changes nothing."""
    return Preprocess(image_size=1, channels=width, mean=(0.0,) * width, std=(1.0,) * width, features=True)


def placeholder(dataset: Dataset) -> Dataset:
    """As ``with_features``, of 8 columns that are 0: for a rehearsal."""
    splits: dict[str, Any] = {
        name: ArraySplit(torch.zeros(len(split), 8, 1, 1), split.labels)
        for name in ("train", "val", "test")
        if (split := getattr(dataset, name)) is not None
    }
    return replace(dataset, **splits, preprocess=blank(8), augment="none")


class Standardized(nn.Module):
    """A head on standardised features: [N, d] -> ``head((x - mean) / std)``."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocess: Preprocess, head: nn.Module) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocess.mean))
        self.register_buffer("std", torch.tensor(preprocess.std))
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head((x - self.mean) / self.std))


class _Making:
    """The features of one data set by one backbone, which is built when the first image needs it."""

    def __init__(self, config: RunConfig, dataset: Dataset, folder: Path, say: Say) -> None:
        self.config, self.dataset, self.folder, self.say = config, dataset, folder, say
        self.device = torch.device(config.device)
        self.model: Backbone | None = None
        splits = [split for split in (dataset.train, dataset.val, dataset.test) if split is not None]
        self.total, self.done, self.made = sum(map(len, splits)), 0, 0
        self.begun = self.said = time.monotonic()

    def of(self, split: Split) -> Tensor:
        """[N, d, 1, 1]."""
        name = self._key(split)
        self._share(name)
        chunks = list(self._chunks(split, self.folder / FOLDER / name))
        return torch.cat(chunks)[:, :, None, None]

    def _chunks(self, split: Split, folder: Path) -> Iterator[Tensor]:
        with contextlib.suppress(OSError):
            for left in folder.glob(".*.safetensors"):  # what a kill left behind
                left.unlink()
        for number, begin in enumerate(range(0, len(split), CHUNK)):
            part = split.take(range(begin, min(begin + CHUNK, len(split))))
            path = folder / f"{number:05d}.safetensors"
            features = _read(path, len(part))
            if features is None:
                features = self._compute(part)
                self.made += len(part)
                with contextlib.suppress(OSError, InputError):  # a run that is read only is opened all the same
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with whole(path) as temporary:
                        save_file({"features": features}, temporary)
            self.done += len(part)
            self._report()
            yield features

    @torch.no_grad()
    def _compute(self, split: Split) -> Tensor:
        if self.model is None:
            model = load_frozen(self.config, self.dataset.num_classes, self.dataset.preprocess.channels)
            self.model = model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        model = self.model
        batch = CPU_BATCH if self.device.type == "cpu" else BATCH
        loader = build_loader(split, self.dataset.preprocess, batch_size=batch, device=self.device)
        with Precision(self.config.backbone.precision, self.device.type).autocast():
            features = torch.cat([model.features(batch.inputs).float().cpu() for batch in loader.epoch(0)])
        bad = (~features.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise InputError(
                f"backbone {self.config.model!r}: the features of {split.name(bad[0])} are not finite; leave the image "
                "out, or use another backbone"
            )
        return features.contiguous()

    def _report(self) -> None:
        now = time.monotonic()
        if not self.made or (now - self.said < EVERY and self.done < self.total):
            return
        self.said = now
        left = (now - self.begun) * (self.total - self.done) / self.made
        ahead = f", about {left / 60:.0f} min left" if left >= 60 else f", about {left:.0f} s left" if left >= 1 else ""
        self.say(f"features of {self.config.model}: {self.done:,} of {self.total:,} images{ahead}")

    def _key(self, split: Split) -> str:
        backbone = asdict(replace(self.config.backbone, weights=""))  # where they lie; their hash counts
        for name, former in (("precision", "float32"), ("mirror", False)):  # of files of older versions
            if backbone[name] == former:
                del backbone[name]
        about = [VERSION, self.config.model, backbone, asdict(self.dataset.preprocess)]
        digest = hashlib.sha256(f"{json.dumps(about)}\n{draw_hash(split)}\n".encode())
        if not isinstance(split, ArraySplit):  # on disk: their pixels have not been read
            for i in range(len(split)):
                where = os.stat(split.name(i))  # noqa: PTH116  # there may be a million
                digest.update(f"{split.name(i)} {where.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:24]

    def _share(self, name: str) -> None:
        """Take over the files of a run beside this one."""
        mine = self.folder / FOLDER / name
        if mine.exists():
            return
        beside = sorted(self.folder.parent.glob(f"*/{FOLDER}/{name}"), key=lambda each: -len(list(each.iterdir())))
        with contextlib.suppress(OSError):
            for path in sorted(beside[0].glob("[0-9]*.safetensors")) if beside else ():
                mine.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(path, mine / path.name)
                except OSError:  # a file system without hard links
                    shutil.copyfile(path, mine / path.name)


def _read(path: Path, rows: int) -> Tensor | None:
    """The features of a chunk; None where there are none, or not as many: they are computed again."""
    try:
        features = load_file(path)["features"]
    except (OSError, KeyError, SafetensorError):
        return None
    return features if features.ndim == 2 and len(features) == rows else None
