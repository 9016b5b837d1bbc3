"""What ``load`` would understand of some data, before anything is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from saddlescape.counts import class_groups
from saddlescape.data.inspection import Inspection, inspect, same
from saddlescape.data.profiles import count_labels
from saddlescape.data.sources.found import Progress, Request
from saddlescape.data.sources.registry import SOURCES, find, name_of
from saddlescape.data.types import Images
from saddlescape.data.white_level import measure
from saddlescape.disk import expanded
from saddlescape.errors import counted

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
        if self.ignored:
            out.append(f"{counted(len(self.ignored), 'stray file')} ignored, e.g. {self.ignored[0]}")
        out += [f"note: {note}" for note in self.notes]
        return [*out, self.summary()]


def check(
    name_or_path: str | Path,
    *,
    root: str | Path | None = None,
    test: str | Path | None = None,
    download: bool = False,
    read_images: bool = True,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Read everything once (``read_images``: decode every picture, look for duplicates) and report. Nothing is kept.

    Files are read by ``workers`` processes (None: one a core). Of sets with published counts these are compared.

    Raises ``InputError`` only where the layout cannot be understood at all.
    """
    found = find(
        Request(
            name=name_of(name_or_path),
            root=expanded(root) if root is not None else None,
            test=expanded(test) if test is not None else None,
            download=download,
            lenient=True,
            progress=progress,
        )
    )
    splits: dict[str, Images] = {"train": found.train}
    if found.val is not None:
        splits["val"] = found.val
    if found.test is not None:
        splits["test"] = found.test
    counts = {split: count_labels(pictures.labels, len(found.classes)) for split, pictures in splits.items()}
    notes = [note for note in found.notes if "stray file" not in note]
    if found.test is None:
        notes.append("no test set: a fifth of each class would be set aside")
    if all(counts["train"]):
        notes.append(class_groups(counts["train"], name=found.name)[1])
    unreadable = [*found.unreadable]
    duplicates: list[list[str]] = []
    leaks: list[list[str]] = []
    contradictions: list[list[str]] = []
    sizes = None
    if read_images:
        white_level, scale = measure(splits.values()) if found.preprocess is None else (0.0, [])
        notes += scale
        seen = {
            split: inspect(
                pictures, what=f"checking {split} images", workers=workers, progress=progress, white_level=white_level
            )
            for split, pictures in splits.items()
        }
        notes += [remark for inspection in seen.values() for remark in inspection.remarks]
        for split, inspection in seen.items():
            unreadable += [(splits[split].name(i), reason) for i, reason in inspection.unreadable.items()]
        sizes = _sizes(seen)
        for places in _same_bytes(seen):
            names = [f"{split}: {splits[split].name(i)}" for split, i in places]
            duplicates.append(names)
            in_splits = {split for split, _ in places}
            if "train" in in_splits and len(in_splits) > 1:
                leaks.append(names)
            if len({int(splits[split].labels[i]) for split, i in places}) > 1:
                contradictions.append(names)
    differences = [] if found.published is None else found.published.differences(counts["train"], counts.get("test"))
    return Report(
        name=found.name,
        kind=found.kind,
        classes=list(found.classes),
        counts=counts,
        sizes=sizes,
        unreadable=unreadable,
        duplicates=duplicates,
        leaks=leaks,
        contradictions=contradictions,
        differences=differences,
        empty=[
            (split, found.classes[label])
            for split, row in counts.items()
            for label, count in enumerate(row)
            if not count
        ],
        ignored=[*found.ignored],
        notes=notes,
        published=found.name in SOURCES,
    )


def _sizes(seen: dict[str, Inspection]) -> tuple[int, int, int] | None:
    sides = np.concatenate([inspection.sides for inspection in seen.values()])
    sides = sides[sides > 0]
    return (int(sides.min()), int(np.median(sides)), int(sides.max())) if len(sides) else None


def _same_bytes(seen: dict[str, Inspection]) -> list[list[tuple[str, int]]]:
    """Places (split, position) of pictures with the same bytes, in groups of two or more."""
    hashes = np.concatenate([inspection.hashes for inspection in seen.values()])
    readable = np.concatenate([inspection.sides for inspection in seen.values()]) > 0
    names = list(seen)
    begins = np.cumsum([0, *(len(inspection.sides) for inspection in seen.values())])

    def place(row: int) -> tuple[str, int]:
        which = int(np.searchsorted(begins, row, side="right")) - 1
        return names[which], row - int(begins[which])

    return [[place(row) for row in group] for group in same(hashes, readable)]


def _some(title: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    rest = [f"  ... and {len(entries) - _SHOWN} more"] if len(entries) > _SHOWN else []
    return [f"{title} ({len(entries)}):", *(f"  {entry}" for entry in entries[:_SHOWN]), *rest]
