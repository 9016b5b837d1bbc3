"""The batches of a stage: for training, with further views and partners where asked for, and for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from saddlescape.data.augment import build_augment
from saddlescape.data.loader import JoinedLoader, Loader, SharedOrder, build_loader
from saddlescape.data.samplers import Sampler, build_sampler
from saddlescape.data.types import Batch, Dataset, Split
from saddlescape.errors import InputError
from saddlescape.parallel.ranks import ALONE, Ranks
from saddlescape.records.config import Stage
from saddlescape.training.precision import Precision

EVALUATION_BATCH = 500
# Loaders of one stage draw from seeds that no other stage or run uses: beyond every seed of a stage, which is the
# run's seed times 1000 and the stage's number.
VIEW_SEED, PARTNER_SEED = 2**43, 2**48


def evaluation_loaders(
    dataset: Dataset, device: torch.device, workers: int | None = None, ranks: Ranks = ALONE
) -> dict[str, Loader]:
    """Every image once, in order, un-augmented; with several processes this one's share of them."""
    splits = {"val": dataset.val, "test": dataset.test}
    return {
        name: NoBatches()
        if len(share := _share(split, ranks)) == 0
        else build_loader(
            share,
            dataset.preprocess,
            batch_size=EVALUATION_BATCH,
            device=device,
            workers=workers,
        )
        for name, split in splits.items()
        if split is not None
    }


class NoBatches:
    """The share of a process where there are fewer images than processes."""

    def __len__(self) -> int:
        return 0

    def epoch(self, t: int, start_batch: int = 0) -> Iterator[Batch]:
        return iter(())


def _share(split: Split, ranks: Ranks) -> Split:
    """This process's images of a split that is seen in order."""
    if ranks.alone:
        return split
    begin, end = (edge * len(split) // ranks.size for edge in (ranks.rank, ranks.rank + 1))
    return split.take(range(begin, end))


def training_loader(
    stage: Stage, dataset: Dataset, *, device: torch.device, seed: int, workers: int | None = None,
    ranks: Ranks = ALONE,
) -> Loader:  # fmt: skip
    """The batches of a stage, with the further views and the partner batches that it asks for.

    With several ``ranks`` files are read for this process's shard of each batch only.
    """

    def build(augment: str, sampler: Sampler, seed: int) -> Loader:
        if dataset.preprocess.features and augment != "none":
            raise InputError(f"stage {stage.name!r} augments by {augment!r}, which is for images: --augment none")
        return build_loader(
            dataset.train, dataset.preprocess, batch_size=stage.batch_size, device=device, workers=workers,
            augment=build_augment(augment, dataset.preprocess.image_size),
            sampler=sampler, seed=seed, shard=(ranks.rank, ranks.size),
        )  # fmt: skip

    def joined(sampler: Sampler, seed: int, partner: Loader | None = None) -> Loader:
        main = build(stage.augment, sampler, seed)
        if not stage.views and partner is None:
            return main
        views = [
            build(augment, SharedOrder(sampler, seed), seed + VIEW_SEED * (1 + number))
            for number, augment in enumerate(stage.views)
        ]
        return JoinedLoader(main, views, partner)

    partner = None
    if stage.partner:
        sampler = _named_sampler(stage.partner, stage.partner_options, dataset)
        partner = joined(sampler, seed + PARTNER_SEED)
    return joined(_sampler(stage, dataset), seed, partner)


@torch.no_grad()
def training_features(
    model: nn.Module, dataset: Dataset, device: torch.device, precision: Precision, workers: int | None = None
) -> tuple[Tensor, Tensor]:
    """What the head sees of every training image, un-augmented and in eval mode: float32 [N, d], labels int64 [N]."""
    loader = build_loader(
        dataset.train, dataset.preprocess, batch_size=EVALUATION_BATCH, device=device, workers=workers
    )
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        size, done = len(dataset.train), 0
        features = torch.empty(size, cast(Any, model).feature_dim, device=device)
        labels = torch.empty(size, dtype=torch.int64, device=device)
        for batch in loader.epoch(0):
            with precision.autocast():
                found = cast(Any, model).features(batch.inputs)
            here = slice(done, done + len(found))
            features[here], labels[here] = found, batch.targets
            done = here.stop
        return features[:done], labels[:done]
    finally:
        for module, training in modes:
            module.training = training


def _sampler(stage: Stage, dataset: Dataset) -> Sampler:
    options: dict[str, Any] = {"total_epochs": stage.epochs} if stage.sampler == "progressively-balanced" else {}
    return _named_sampler(stage.sampler, options | stage.sampler_options, dataset)


def _named_sampler(name: str, options: Mapping[str, Any], dataset: Dataset) -> Sampler:
    whole = {key: int(options[key]) for key in ("k", "num_samples") if key in options}
    return build_sampler(name, dataset.train.labels, dataset.class_counts, **{**options, **whole})
