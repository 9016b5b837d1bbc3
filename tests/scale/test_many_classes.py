"""At the 8,142 classes of iNaturalist 2018: nothing is kept that grows with their square, and all takes seconds."""

from __future__ import annotations

import contextlib
import io
import json
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saddlescape.cli.app import run
from saddlescape.counts import class_groups
from saddlescape.data import ArraySplit, Dataset, Preprocess
from saddlescape.data.samplers import SAMPLERS, build_sampler
from saddlescape.losses import BalancedContrastiveLoss, DROLTLoss, ProCoLoss
from saddlescape.losses.registry import LOSSES, build_loss
from saddlescape.models.heads import HEADS, make_head
from saddlescape.training.metrics import Scorer

CLASSES, BATCH, WIDTH = 8142, 16, 24
GENERATOR = torch.Generator().manual_seed(0)
COUNTS = [max(1, round(40 * 0.02 ** (c / (CLASSES - 1)))) for c in range(CLASSES)]
FEATURES = nn.functional.normalize(torch.randn(BATCH, WIDTH, generator=GENERATOR), dim=1)
PREPROCESS = Preprocess(image_size=4, channels=1, mean=(0.5,), std=(0.25,))
TARGETS = torch.randint(0, CLASSES, (BATCH,), generator=GENERATOR)


class Largest(TorchDispatchMode):
    """The most elements that a tensor had which was made within, backward passes included."""

    elements = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        made = function(*arguments, **(named or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self.elements = max(self.elements, leaf.numel())
        return made


def largest(work: Callable[[], object]) -> int:
    with Largest() as seen:
        work()
    return seen.elements


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    logits = torch.rand(BATCH, CLASSES, generator=GENERATOR).requires_grad_()  # within LDAM's cosines
    options = {"las": {"smooth_head": 0.3, "smooth_tail": 0.0}}.get(name, {})

    def work() -> None:
        loss = build_loss(name, COUNTS, **options)
        more = (FEATURES,) if loss.needs_features else ()
        loss(logits, TARGETS, *more).backward()

    assert largest(work) <= BATCH * CLASSES
    assert logits.grad is not None and logits.grad.isfinite().all()


@pytest.mark.parametrize("name", ["dro-lt", "bcl", "proco"])
def test_losses_with_a_point_for_every_class(name: str) -> None:
    points = nn.functional.normalize(torch.randn(CLASSES, WIDTH, generator=GENERATOR), dim=1).requires_grad_()
    features = FEATURES.clone().requires_grad_()

    def work() -> None:
        if name == "dro-lt":
            DROLTLoss(COUNTS)(features, TARGETS, points).backward()
        elif name == "bcl":
            BalancedContrastiveLoss(COUNTS)(features, TARGETS, points).backward()
        else:
            loss = ProCoLoss(COUNTS, WIDTH)
            loss.start_epoch()
            loss(features, TARGETS).backward()

    # All points of batch and classes beside each other, or the batch against every class.
    assert largest(work) <= max(BATCH, WIDTH) * (CLASSES + 2 * BATCH)
    assert features.grad is not None and features.grad.isfinite().all()


@pytest.mark.parametrize("kind", HEADS)
def test_heads(kind: str) -> None:
    head = make_head(kind, WIDTH, CLASSES)
    features = torch.randn(BATCH, WIDTH, generator=GENERATOR)
    assert largest(lambda: head(features)) <= max(BATCH, WIDTH, 128) * CLASSES


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers(name: str) -> None:
    labels = torch.repeat_interleave(torch.arange(CLASSES), torch.tensor(COUNTS))
    options = {"progressively-balanced": {"total_epochs": 3}, "power": {"q": 0.5}}.get(name, {})
    sampler = build_sampler(name, labels, COUNTS, **options)
    drawn: list[Tensor] = []
    most = largest(lambda: drawn.append(sampler.indices(1, torch.Generator().manual_seed(0))))
    assert most <= 2 * len(labels)  # class-aware: whole rounds, of which the last is cut
    assert len(drawn[0]) == len(labels) == len(sampler)


def test_scores_keep_a_few_numbers_an_image() -> None:
    scorer, groups = Scorer(CLASSES), class_groups(COUNTS, name="inat2018")[0]
    targets = torch.arange(CLASSES).repeat(3)
    right = torch.rand(len(targets), generator=GENERATOR) < 0.4
    for start in range(0, len(targets), 500):
        some = targets[start : start + 500]
        logits = torch.zeros(len(some), CLASSES)
        logits[torch.arange(len(some)), torch.where(right[start : start + 500], some, (some + 1) % CLASSES)] = 5.0
        scorer.add(logits, some)
    kept = sum(t.numel() * t.element_size() for name in vars(scorer).values() if isinstance(name, list) for t in name)
    assert kept <= 24 * len(targets)
    scores = scorer.scores(groups)
    by_class = 100 * right.view(3, CLASSES).double().mean(dim=0)
    assert scores.accuracy == pytest.approx(100 * right.double().mean().item())
    assert np.array(scores.per_class, dtype=float) == pytest.approx(by_class.numpy())
    for name, members in groups.items():
        assert scores.groups[name] == pytest.approx(by_class[members].mean().item())


# A run, from training to the page.


def dataset() -> Dataset:
    """A training image a class, more of the frequent ones, a test image of every third class; 4 x 4 and grey."""
    counts = [4 if c < 100 else 1 for c in range(CLASSES)]
    groups, line = class_groups(counts, name="inat2018")

    def split(labels: Tensor) -> ArraySplit:
        images = torch.randint(0, 256, (len(labels), 1, 4, 4), generator=GENERATOR, dtype=torch.uint8)
        return ArraySplit(images, labels)

    return Dataset(
        name="inat2018", train=split(torch.repeat_interleave(torch.arange(CLASSES), torch.tensor(counts))),
        test=split(torch.arange(0, CLASSES, 3)), classes=[f"Plantae/{c}" for c in range(CLASSES)], class_counts=counts,
        groups=groups, draw_hash="0" * 16, preprocess=PREPROCESS, augment="none",
        notes=[line],
    )  # fmt: skip


def command(*words: object) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = run([str(word) for word in words])
    assert code == 0, out.getvalue()
    return out.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "run"
    made = dataset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saddlescape.runs.plan.load", lambda *args, **options: made)
        patch.setenv("COLUMNS", "400")
        command(
            "train", "inat2018", "--method", "ldam+drw+sam", "--model", "smallcnn", "--augment", "none",
            "--epochs", 1, "--batch-size", 2048, "--device", "cpu", "--precision", "float32", "--out", folder,
        )  # fmt: skip
        said = command("evaluate", folder)
        assert "(head " in said and ", tail " in said and len(said.splitlines()) < 10  # no line a class
        command(
            "curvature", folder, "--classes", 0, 8141, "--groups", "--samples-per-group", 32, "--extremes-only",
            "--no-gauss-newton", "--products", 10, "--tol", 0.1,
        )  # fmt: skip
    return folder


@pytest.mark.slow
def test_curvature_of_chosen_classes_and_of_samples_of_groups(trained: Path) -> None:
    content = json.loads((trained / "curvature.json").read_text())
    assert [row["label"] for row in content["classes"]] == [0, 8141]
    assert [(row["group"], row["num_samples"]) for row in content["groups"]] == [
        ("head", 32), ("mid", 32), ("tail", 32),
    ]  # fmt: skip
    tail = content["groups"][2]
    assert tail["num_available"] == 3599 and tail["sampling_error"] == pytest.approx(((1 - 32 / 3599) / 32) ** 0.5)


@pytest.mark.slow
def test_the_page_and_the_table_in_bounded_memory(trained: Path, tmp_path: Path) -> None:
    content = json.loads((trained / "curvature.json").read_text())
    row = content["classes"][0]  # as if all classes had been measured
    content["classes"] = [row | {"label": c, "class": name} for c, name in enumerate(content["class_names"])]
    (trained / "curvature.json").write_text(json.dumps(content))
    tracemalloc.start()
    try:
        command("report", trained, "--out", tmp_path / "page.html")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200 << 20  # a matrix of all pairs of classes would take 530 MB
    assert (tmp_path / "page.html").stat().st_size < 8 << 20
