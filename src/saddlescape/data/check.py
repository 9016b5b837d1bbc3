"""What ``load`` would understand of some data, before anything is trained."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from saddlescape.data.decode import check_all
from saddlescape.data.groups import class_groups
from saddlescape.data.profiles import count_labels
from saddlescape.data.sources.pictures import EncodedPictures, Pictures, Progress, Request
from saddlescape.data.sources.registry import find
from saddlescape.data.types import Preprocess

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Report:
    """Findings of ``check``. ``counts`` maps a split to images per class, [C]. ``unreadable`` are (name, reason).

    ``duplicates`` are groups of images with the same bytes, each as ``split: name``; ``leaks`` those of them that lie
    in training and in another split; ``contradictions`` those that carry different labels. ``empty`` are (split,
    class) without images. ``ok`` is False where training would be refused as it is.
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
    empty: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.unreadable and not any(split == "train" for split, _ in self.empty)

    def lines(self) -> list[str]:
        """The report as plain text, a list of lines."""
        out = [f"{self.name}: {self.kind}, {len(self.classes)} classes"]
        for split, counts in self.counts.items():
            some = [count for count in counts if count]
            spread = f", {max(some)} to {min(some)} per class (imbalance {max(some) / min(some):.3g})" if some else ""
            out.append(f"{split}: {sum(counts):,} images{spread}")
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
        out += _some("the same image in training and elsewhere", [" = ".join(group) for group in self.leaks])
        out += _some("the same image with different labels", [" = ".join(group) for group in self.contradictions])
        if self.duplicates:
            out.append(f"{len(self.duplicates)} images are there more than once, e.g. {' = '.join(self.duplicates[0])}")
        if self.ignored:
            out.append(f"{len(self.ignored)} stray files ignored, e.g. {self.ignored[0]}")
        out += [f"note: {note}" for note in self.notes]
        out.append("ready to train" if self.ok else "not ready: mend what is named above (or --bad-images skip)")
        return out


def check(
    name_or_path: str | Path,
    *,
    root: str | Path | None = None,
    test: str | Path | None = None,
    download: bool = False,
    read_images: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Read everything once (``read_images``: decode every picture, look for duplicates) and report. Nothing is kept.

    Raises ``InputError`` only where the layout cannot be understood at all.
    """
    found = find(
        Request(
            name=str(name_or_path),
            root=Path(root).expanduser() if root is not None else None,
            test=Path(test).expanduser() if test is not None else None,
            download=download,
            lenient=True,
            progress=progress,
        )
    )
    splits: dict[str, Pictures] = {"train": found.train}
    if found.val is not None:
        splits["val"] = found.val
    if found.test is not None:
        splits["test"] = found.test
    counts = {split: count_labels(pictures.labels, len(found.classes)) for split, pictures in splits.items()}
    notes = [note for note in found.notes if "stray files" not in note]
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
        preprocess = found.preprocess or Preprocess(image_size=32)
        bad: dict[str, set[int]] = {}
        # From here on a container's pictures are wanted one by one: fetch them once.
        splits = {split: p.loaded() if isinstance(p, EncodedPictures) else p for split, p in splits.items()}
        for split, pictures in splits.items():
            failed = check_all(pictures, preprocess, progress=progress)
            unreadable += [(pictures.name(i), reason) for i, reason in failed]
            bad[split] = {i for i, _ in failed}
        sizes = _sizes(splits, bad)
        for places in _same_bytes(splits, bad):
            names = [f"{split}: {splits[split].name(i)}" for split, i in places]
            duplicates.append(names)
            in_splits = {split for split, _ in places}
            if "train" in in_splits and len(in_splits) > 1:
                leaks.append(names)
            if len({int(splits[split].labels[i]) for split, i in places}) > 1:
                contradictions.append(names)
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
        empty=[
            (split, found.classes[label])
            for split, row in counts.items()
            for label, count in enumerate(row)
            if not count
        ],
        ignored=[*found.ignored],
        notes=notes,
    )


def _sizes(splits: dict[str, Pictures], bad: dict[str, set[int]]) -> tuple[int, int, int] | None:
    sides = sorted(
        min(pictures.size(i)) for split, pictures in splits.items() for i in range(len(pictures)) if i not in bad[split]
    )
    return (sides[0], int(np.median(sides)), sides[-1]) if sides else None


def _same_bytes(splits: dict[str, Pictures], bad: dict[str, set[int]]) -> list[list[tuple[str, int]]]:
    seen: dict[bytes, list[tuple[str, int]]] = {}
    for split, pictures in splits.items():
        for i in range(len(pictures)):
            if i not in bad[split]:
                seen.setdefault(hashlib.sha256(pictures.content(i)).digest(), []).append((split, i))
    return [places for places in seen.values() if len(places) > 1]


def _some(title: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    rest = [f"  ... and {len(entries) - _SHOWN} more"] if len(entries) > _SHOWN else []
    return [f"{title} ({len(entries)}):", *(f"  {entry}" for entry in entries[:_SHOWN]), *rest]
