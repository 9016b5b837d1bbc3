"""A trained network taken out of its run folder: for predicting, evaluating, exporting and measuring curvature."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from torch import nn

from saddlescape.data.types import Dataset, Preprocess
from saddlescape.errors import InputError
from saddlescape.losses.registry import LOSSES
from saddlescape.models.registry import build_model
from saddlescape.records.config import RunConfig
from saddlescape.records.files import CHECKPOINT, read_result
from saddlescape.runs import config as configuration
from saddlescape.runs.frozen import Standardized, image_preprocess, load_frozen, stored_preprocess
from saddlescape.training.checkpoint import CheckpointFolder, Cursor
from saddlescape.training.trainable import select_trainable


@dataclass(frozen=True)
class Opened:
    """``trained`` is the network that was trained, in eval mode on the CPU; ``trained_on`` is the preprocessing of
    what it sees; ``classes`` maps output -> name; ``cursor`` says how far it was trained."""

    folder: Path
    config: RunConfig
    trained: nn.Module
    classes: list[str]
    trained_on: Preprocess
    cursor: Cursor
    meta: dict[str, Any]

    @cached_property
    def preprocess(self) -> Preprocess:
        """Of what ``model`` sees: where a frozen backbone's head was trained on features, of the images before it."""
        return stored_preprocess(image_preprocess(self.meta))

    @cached_property
    def model(self) -> nn.Module:
        """The whole network, in eval mode on the CPU: ``trained``, behind the frozen backbone if there is one.

        Raises:
            InputError: the backbone cannot be built, or its weights are others now.
        """
        if not self.config.backbone.frozen:
            return self.trained
        model = load_frozen(self.config, len(self.classes), self.preprocess.channels)
        model.classifier = Standardized(self.trained_on, cast(nn.Module, self.trained.head))
        return model.eval()

    def model_for(self, dataset: Dataset) -> nn.Module:
        """The network that sees ``dataset``: ``trained`` for features of this run's backbone, else ``model``."""
        return self.model if dataset.source is None else self.trained

    @property
    def logit_scale(self) -> float:
        """What turns logits into the ones that softmax was trained on: LDAM scales its cosines inside the loss."""
        stage = self.config.stages[self.cursor.stage]
        parameter = inspect.signature(LOSSES[stage.loss]).parameters.get("scale")
        return float(stage.loss_options.get("scale", 1.0 if parameter is None else parameter.default))

    @property
    def result(self) -> dict[str, Any] | None:
        """``result.json`` of a finished run."""
        return read_result(self.folder)

    def predict(self, *images: str | Path, top: int = 5) -> list[tuple[str, list[tuple[str, float]]]]:
        """The ``top`` classes of images with their probabilities, best first.

        Args:
            images: Image files, folders of them, patterns such as ``"photos/**/*.jpg"``; or files of features.
            top: How many classes.

        Returns:
            (name of the image, [(class, probability), ...]) in the order of the images.

        Raises:
            InputError: an image cannot be read.
        """
        from saddlescape.runs.prediction import predict_files

        names, answers = predict_files(self, [Path(image) for image in images], top)
        for answer in answers:
            if isinstance(answer, InputError):
                raise answer
        return list(zip(names, answers, strict=True))  # type: ignore[arg-type]


def open_run(folder: str | Path, cursor: Cursor | None = None) -> Opened:
    """Load the newest whole checkpoint of a run, or the one at ``cursor``.

    Raises:
        InputError: not a run, no checkpoint yet, or a damaged one.
    """
    folder = Path(folder)
    config = configuration.load(folder)
    checkpoints = CheckpointFolder(folder / CHECKPOINT)
    damaged: list[str] = []
    checkpoint = checkpoints.newest(damaged) if cursor is None else checkpoints.load(cursor)
    if damaged:  # an older one is there, but answering from it unasked would pass for the run's last epoch
        newest = checkpoints.path / checkpoints.cursors()[-1].folder
        raise InputError(f"{damaged[0]}; delete {newest} to use the checkpoint before it")
    if checkpoint is None:
        raise InputError(f"{folder} has no checkpoint yet: train at least one epoch")
    meta = checkpoint.meta
    try:
        preprocess = stored_preprocess(meta["preprocess"])
        classes = [str(name) for name in meta["classes"]]
        head = config.stages[checkpoint.cursor.stage].head
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(f"{checkpoint.path / 'meta.json'}: incomplete ({error})") from error
    model = build_model(
        config.network, len(classes), head=head, in_channels=preprocess.channels, **config.network_options  # type: ignore[arg-type]
    )
    checkpoint.fill(model)
    if config.backbone.weights_hash:  # curvature is that of what is trained
        spec = config.stages[checkpoint.cursor.stage].trainable
        select_trainable(model, "head" if spec == "none" else spec)
    return Opened(folder, config, model.eval(), classes, preprocess, checkpoint.cursor, meta)
