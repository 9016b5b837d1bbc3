"""What a source is asked for, and how it says what it found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from saddlescape.data.images import Images
from saddlescape.data.preprocess import Preprocess

# Called as progress(what, done, total); total is None when it is unknown. ``what`` is e.g. "downloading x" (bytes).
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a whole copy holds: classes, training images in all and in the largest and smallest class, test images."""

    classes: int
    train: int
    largest: int
    smallest: int
    test_per_class: int

    def differences(self, train: Sequence[int], test: Sequence[int] | None) -> list[str]:
        """What per-class counts ([C] each) show to be otherwise, a line each; nothing for another number of classes."""
        if len(train) != self.classes:
            return []
        found = [
            (f"{sum(train):,} training images", f"{self.train:,}", sum(train) == self.train),
            (f"{max(train):,} training images in the largest class", f"{self.largest:,}", max(train) == self.largest),
            (f"{min(train):,} training images in the rarest class", f"{self.smallest:,}", min(train) == self.smallest),
        ]
        lines = [f"{ours}, published are {theirs}" for ours, theirs, right in found if not right]
        wrong = [c for c, count in enumerate(test or []) if count != self.test_per_class]
        if test and wrong:
            lines.append(
                f"{len(wrong):,} classes do not have the published {self.test_per_class} test images, first class "
                f"{wrong[0]} with {test[wrong[0]]}"
            )
        return lines


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a source found. ``test`` is None where there is only one set: ``load`` then splits it, stratified.

    ``preprocess`` is None where it follows from the images. ``ignored`` are stray files, ``unreadable`` entries that
    point to nothing, with the reason. ``streamed``: images of natural size, of which training sees random crops, so
    they stay on disk whatever their number. ``original_labels`` [C]: the label of each class in the source's files,
    where it is another one. ``base``: the folder below which the names of a person's own images identify them.
    """

    name: str
    kind: str
    classes: list[str]
    train: Images
    test: Images | None = None
    val: Images | None = None
    preprocess: Preprocess | None = None
    augment: str | None = None
    notes: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    streamed: bool = False
    published: Published | None = None
    original_labels: list[int] | None = None
    base: Path | None = None


@dataclass(frozen=True, kw_only=True)
class SourceRequest:
    """What a source is asked for. ``where`` is the path of a folder, list or parquet; ``root`` holds named data sets.

    ``lenient``: entries that point to no file are put into ``Found.unreadable`` rather than refused. ``ties``: the
    order of equally frequent classes where labels are re-indexed by frequency ("stable" or "reference"). ``partial``:
    the images are to be scored, not trained on, so some of the classes suffice.
    """

    name: str
    where: Path | None = None
    root: Path | None = None
    test: Path | None = None
    download: bool = False
    lenient: bool = False
    ties: str = "stable"
    partial: bool = False
    progress: Progress | None = None
