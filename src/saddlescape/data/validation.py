"""A validation split taken from the training images, so that choosing a model never needs the test set."""

from __future__ import annotations

from dataclasses import replace

from saddlescape.data.draw import draw_hash
from saddlescape.data.paths import relative_names
from saddlescape.data.profiles import count_labels
from saddlescape.data.split import stratified_split
from saddlescape.data.types import Dataset
from saddlescape.errors import InputError, counted


def hold_out(dataset: Dataset, fraction: float, seed: int = 0) -> Dataset:
    """The same data set with a share of the training images of each class moved to ``.val``.

    Of n >= 2 images ``round(n * fraction)`` are moved, at least 1 and at most n - 1; a class with one image stays whole
    in training and is listed in the notes. A person's own images are chosen by name, those of named sets by position
    (see ``stratified_split``). Test set, groups and normalisation stay as they are; counts and hashes are those of
    what is left. Raises ``InputError`` if there is a validation split already, if nothing could be moved,
    or unless 0 < fraction < 1.
    """
    if dataset.val is not None:
        raise InputError(f"{dataset.name} has a validation split of its own: leave out --val")
    names = None
    if dataset.base is not None:
        names = relative_names(dataset.train.names or [], dataset.base)
    stay, aside = stratified_split(dataset.train.labels.numpy(), fraction, seed, names)
    if len(aside) == 0:
        raise InputError(f"{dataset.name}: no class has two training images, so none can be held out for validation")
    train, val = dataset.train.take(stay), dataset.train.take(aside)
    single = [name for name, count in zip(dataset.classes, dataset.class_counts, strict=True) if count == 1]
    held = f"validation: {counted(len(aside), 'training image')} held out ({fraction:g} of each class, seed {seed})"
    notes = [*dataset.notes, held]
    if single:
        notes.append(f"too few images to hold one out, all stay in training: {', '.join(single)}")
    return replace(
        dataset,
        train=train,
        val=val,
        class_counts=count_labels(train.labels, dataset.num_classes),
        draw_hash=draw_hash(train),
        held_hash="" if dataset.base is None else draw_hash(dataset.test, val),
        notes=notes,
    )
