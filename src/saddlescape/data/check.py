"""What ``load`` would understand of some data, before anything is trained."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saddlescape.counts import class_groups
from saddlescape.data.decode import Unreadable, each
from saddlescape.data.draw import count_labels
from saddlescape.data.reader import open_image
from saddlescape.data.sources.found import Progress, SourceRequest
from saddlescape.data.sources.registry import find, name_of
from saddlescape.data.split import with_test
from saddlescape.data.types import ArraySplit, Images
from saddlescape.data.white_level import measure
from saddlescape.disk import expanded
from saddlescape.errors import counted
from saddlescape.names import SOURCES

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Report:
    """Findings of ``check``. ``counts`` maps a split to images per class, [C]. ``unreadable`` are (name, reason).

    ``duplicates`` are groups of images with the same bytes, each as ``split: name``; ``leaks`` those of them that lie
    in training and in another split; ``contradictions`` those that carry different labels. ``differences`` say where
    counts are not the published ones. ``empty`` are (split, class) without images. ``published``: the images are those
    of a known set, so leaks and contradictions are the set's own and stay. ``ok`` is False where training would be
    refused as it is, where there are differences, and for leaks and contradictions in anybody's own images.
    """

    name: str
    kind: str
    classes: list[str]
    counts: dict[str, list[int]]
    sizes: tuple[int, int, int] | None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    leaks: list[list[str]] = field(default_factory=list)
    contradictions: list[list[str]] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    empty: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    published: bool = False

    @property
    def ok(self) -> bool:
        return not self.wrong()

    def wrong(self) -> list[str]:
        """What must be repaired, a few words each."""
        empty = sum(split == "train" for split, _ in self.empty)
        found = [
            (len(self.unreadable), f"{counted(len(self.unreadable), 'file')} cannot be read"),
            (empty, f"{counted(empty, 'class is', 'classes are')} empty"),
            (len(self.differences), "counts are not the published ones"),
        ]
        if not self.published:
            leaks, contradictions = len(self.leaks), len(self.contradictions)
            found += [
                (leaks, f"{counted(leaks, 'image is', 'images are')} in training and elsewhere"),
                (contradictions, f"{counted(contradictions, 'image has', 'images have')} different labels"),
            ]
        return [words for number, words in found if number]

    def summary(self) -> str:
        """One line."""
        images = " + ".join(f"{sum(counts):,}" for counts in self.counts.values())
        shown = f"{self.name}: {images} images of {counted(len(self.classes), 'class', 'classes')}"
        shown += f", {len(self.duplicates):,} there more than once" if self.duplicates else ""
        if self.published:
            shown += f", {len(self.leaks):,} in training and elsewhere" if self.leaks else ""
            shown += f", {len(self.contradictions):,} with different labels" if self.contradictions else ""
        return f"{shown}: " + ("ready to train" if self.ok else f"not ready, {' and '.join(self.wrong())}")

    def as_json(self) -> dict[str, Any]:
        """Everything found, nothing left out, as plain JSON."""
        return {**asdict(self), "ok": self.ok, "summary": self.summary()}

    def lines(self) -> list[str]:
        """The report as plain text, a list of lines."""
        out = [f"{self.name}: {self.kind}, {len(self.classes)} classes"]
        for split, counts in self.counts.items():
            some = [count for count in counts if count]
            spread = f", {max(some)} to {min(some)} per class (imbalance {max(some) / min(some):.3g})" if some else ""
            out.append(f"{split}: {counted(sum(counts), 'image')}{spread}")
        width = max((len(name) for name in self.classes), default=0)
        shown = self.classes if len(self.classes) <= 40 else self.classes[:20]
        for label, name in enumerate(shown):
            numbers = "  ".join(f"{split} {counts[label]:>6}" for split, counts in self.counts.items())
            out.append(f"  {label:>4}  {name:<{width}}  {numbers}")
        if len(shown) < len(self.classes):
            out.append(f"  ... and {len(self.classes) - len(shown)} more classes")
        if self.sizes:
            small, median, large = self.sizes
            out.append(f"shorter side: {small} to {large} pixels, median {median}")
        out += [f"no {split} images: {name}" for split, name in self.empty]
        out += _some("cannot be read", [f"{reason}" for _, reason in self.unreadable])
        out += _some("not as published", self.differences)
        out += _some("the same image in training and elsewhere", [" = ".join(group) for group in self.leaks])
        out += _some("the same image with different labels", [" = ".join(group) for group in self.contradictions])
        if self.duplicates:
            number = counted(len(self.duplicates), "image is", "images are")
            out.append(f"{number} there more than once, e.g. {' = '.join(self.duplicates[0])}")
        out += [f"note: {note}" for note in self.notes]
        return [*out, self.summary()]


def check(
    name_or_path: str | Path, *, root: str | Path | None = None, workers: int | None = None,
    progress: Progress | None = None,
) -> Report:  # fmt: skip
    """Decode every image once, look for duplicates, and report; nothing is kept of an image but a hash and its size.

    Images are read by ``workers`` threads (None: one a core). Of sets with published counts these are compared.

    Raises:
        InputError: the layout cannot be understood at all.
    """
    name = name_of(name_or_path)
    place = expanded(root) if root is not None else None
    found = find(SourceRequest(name=name, root=place, lenient=True, progress=progress))
    notes = [*found.notes]
    train, test = with_test(found, "name", notes)  # the split that training has
    given = {"train": train, "val": found.val, "test": test}
    splits = {split: images for split, images in given.items() if images is not None}
    counts = {split: count_labels(images.labels, len(found.classes)) for split, images in splits.items()}
    if all(counts["train"]):
        notes.append(class_groups(counts["train"], name=found.name)[1])
    white_level, scale = measure(splits.values()) if found.preprocess is None else (0.0, [])
    notes += scale
    places = [(split, i) for split, images in splits.items() for i in range(len(images))]
    hashes, sides = np.zeros((len(places), 16), np.uint8), np.zeros(len(places), np.int32)
    unreadable, begin = [*found.unreadable], 0
    for split, images in splits.items():
        here = slice(begin, begin + len(images))
        bad, remarks = inspect(
            images, hashes[here], sides[here], white_level, workers=workers, progress=progress,
            what=f"checking {split} images",
        )  # fmt: skip
        unreadable += [(images.name(i), reason) for i, reason in bad]
        notes += remarks
        begin = here.stop
    groups = [[places[row] for row in rows] for rows in same(hashes, sides > 0)]
    duplicates = [[f"{split}: {splits[split].name(i)}" for split, i in group] for group in groups]
    labels = [{int(splits[split].labels[i]) for split, i in group} for group in groups]
    within = [{split for split, _ in group} for group in groups]
    known = sides[sides > 0]
    return Report(
        name=found.name,
        kind=found.kind,
        classes=list(found.classes),
        counts=counts,
        sizes=(int(known.min()), int(np.median(known)), int(known.max())) if len(known) else None,
        unreadable=unreadable,
        duplicates=duplicates,
        leaks=[names for names, where in zip(duplicates, within, strict=True) if len(where) > 1 and "train" in where],
        contradictions=[names for names, different in zip(duplicates, labels, strict=True) if len(different) > 1],
        differences=[] if not found.published else found.published.differences(counts["train"], counts.get("test")),
        empty=[(split, found.classes[c]) for split, row in counts.items() for c, count in enumerate(row) if not count],
        ignored=[*found.ignored],
        notes=notes,
        published=found.name in SOURCES,
    )


def inspect(
    images: Images, hashes: NDArray[np.uint8], sides: NDArray[np.int32], white_level: float = 0.0, **options: Any
) -> tuple[Unreadable, list[str]]:
    """Decode every image and fill in the hash of its encoded bytes, [N, 16], and its shorter side in pixels, [N].

    What cannot be read keeps its 0. ``options`` and result: those of ``decode.each``.
    """

    def one(images: Images, i: int) -> None:
        content = images.content(i)
        if isinstance(images, ArraySplit):
            side = min(images.size(i))
        else:
            side = min(open_image(content, name=images.name(i), white_level=white_level).size)
        hashes[i], sides[i] = np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), np.uint8), side

    return each(images, one, **options)


def same(hashes: NDArray[np.uint8], readable: NDArray[np.bool_]) -> list[list[int]]:
    """Groups of two or more readable images with equal hashes, each ascending, ordered by their first member."""
    rows = np.flatnonzero(readable)
    keys = np.ascontiguousarray(hashes[rows]).view("V16").ravel()
    order = np.argsort(keys, kind="stable")
    first = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
    groups = np.split(rows[order], first)
    return sorted((group.tolist() for group in groups if len(group) > 1), key=lambda group: group[0])


def _some(title: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    rest = [f"  ... and {len(entries) - _SHOWN} more"] if len(entries) > _SHOWN else []
    return [f"{title} ({len(entries)}):", *(f"  {entry}" for entry in entries[:_SHOWN]), *rest]
