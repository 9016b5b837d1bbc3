"""Heads that are fitted: tau chosen on validation images alone, class means of un-augmented images, one row each."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saddlescape.data.types import Batch
from saddlescape.errors import InputError
from saddlescape.losses.registry import build_loss
from saddlescape.models import make_head
from saddlescape.records.config import Stage
from saddlescape.training.closed_form import TAUS, check_head_fit, fit_head
from saddlescape.training.epoch import at
from saddlescape.training.objective import Classify
from saddlescape.training.parts import Parts
from saddlescape.training.precision import Precision

CLASSES, WIDTH = 3, 4


class Net(nn.Module):
    """Images are their own features."""

    feature_dim = WIDTH

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = make_head(kind, WIDTH, CLASSES)  # type: ignore[arg-type]

    def features(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)  # type: ignore[no-any-return]


class Fixed:
    """A loader of one batch that counts how often it is read."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.batch, self.reads = Batch(inputs, targets, torch.arange(len(targets))), 0

    def __len__(self) -> int:
        return 1

    def epoch(self, t: int, start_batch: int = 0) -> Any:
        self.reads += 1
        return iter([self.batch])


def data(seed: int, images: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, WIDTH, generator=generator), torch.randint(CLASSES, (images,), generator=generator)


def parts(model: nn.Module, **evaluations: Fixed) -> Parts:
    return Parts(
        model=model, forward=model, objective=Classify(build_loss("ce", [30, 20, 10])),
        optimizer=torch.optim.SGD([{"params": []}], lr=0.1), loader=Fixed(*data(0)), evaluations=dict(evaluations),
        groups={"head": [0], "tail": [2]}, num_classes=CLASSES, epochs=1,
        setting=partial(at, Stage(epochs=1), [30, 20, 10]), precision=Precision("float32", "cpu"),
        device=torch.device("cpu"), full_batch=-1, features=lambda: data(0),
    )  # fmt: skip


def fit(stage: Stage, built: Parts) -> dict[str, Any]:
    written: list[Any] = []
    fit_head(stage, built, save=lambda epoch, running: written.append(epoch), record=written.append)
    row, saved = written
    assert saved == 1  # the row is written before the checkpoint, as in the loop
    return row  # type: ignore[no-any-return]


def tau_stage(**options: Any) -> Stage:
    return Stage(name="classifier", epochs=1, head="tau-norm", head_fit="tau-norm", head_fit_options=options)


def balanced(model: Any, inputs: Tensor, targets: Tensor) -> float:
    predicted = model(inputs).argmax(1)
    return 100 * float(torch.stack([(predicted[targets == c] == c).double().mean() for c in range(CLASSES)]).mean())


@pytest.mark.parametrize("seed", range(5))
def test_tau_is_the_best_on_the_validation_split_and_the_test_split_is_not_asked(seed: int) -> None:
    """By a search of its own, over lengths of very different sizes; another test split changes nothing.

    The validation labels are those that one of the taus predicts.
    """
    chosen = []
    inputs, _ = data(100 + seed)
    weight = Net("tau-norm").head.weight.detach() * torch.tensor([[5.0], [1.0], [0.2]])
    rows = weight / weight.norm(dim=1, keepdim=True) ** (0.4 + 0.3 * seed)
    val = inputs, (inputs @ rows.T).argmax(1)
    for test_seed in (1, 2):
        model = Net("tau-norm")
        with torch.no_grad():
            model.head.weight.copy_(weight)
        test = Fixed(*data(test_seed))
        built = parts(model, val=Fixed(*val), test=test)
        fitted = fit(tau_stage(), built)["fitted"]
        assert test.reads == 1  # for the row's scores, once
        assert fitted["chosen"] == "balanced accuracy on the validation split"
        chosen.append(fitted["tau"])
        assert float(model.head.tau) == pytest.approx(fitted["tau"])
    assert chosen[0] == chosen[1]
    reached = []
    for step in range(21):
        scaled = weight / weight.norm(dim=1, keepdim=True) ** (step / 10)
        reached.append(balanced(lambda x, scaled=scaled: x @ scaled.T, *val))
    assert reached[TAUS.index(chosen[0])] == pytest.approx(max(reached))
    assert max(reached) == pytest.approx(100) and reached[0] < 99


def test_without_validation_tau_is_one_or_as_given() -> None:
    model, test = Net("tau-norm"), Fixed(*data(1))
    row = fit(tau_stage(), parts(model, test=test))
    assert row["fitted"] == {"tau": 1.0, "chosen": "full normalisation: no validation split to choose on"}
    assert float(model.head.tau) == 1.0
    row = fit(tau_stage(tau=0.6), parts(model, test=test, val=Fixed(*data(2))))
    assert row["fitted"] == {"tau": 0.6, "chosen": "as given"}
    assert row["test"]["accuracy"] == pytest.approx(
        100 * float((model(test.batch.inputs).argmax(1) == test.batch.targets).double().mean())
    )


@pytest.mark.parametrize("mode", ["cl2n", "l2n", "raw"])
def test_ncm_predicts_the_nearest_mean_of_the_training_features(mode: str) -> None:
    model, test = Net("ncm"), Fixed(*data(1))
    stage = Stage(name="classifier", epochs=1, head="ncm", head_fit="ncm", head_fit_options={"mode": mode})
    row = fit(stage, parts(model, test=test))
    features, labels = data(0)

    def seen(x: Tensor) -> Tensor:
        x = x - features.mean(0) if mode == "cl2n" else x
        return x if mode == "raw" else x / x.norm(dim=1, keepdim=True)

    means = torch.stack([seen(features)[labels == c].mean(0) for c in range(CLASSES)])
    nearest = torch.cdist(seen(test.batch.inputs), means).argmin(1)
    assert torch.equal(model(test.batch.inputs).argmax(1), nearest)
    accuracy = 100 * float((nearest == test.batch.targets).double().mean())
    assert row["test"]["accuracy"] == pytest.approx(accuracy)
    assert row["train_accuracy"] == pytest.approx(
        100 * float((torch.cdist(seen(features), means).argmin(1) == labels).double().mean())
    )
    assert row["fitted"] == {"mode": mode} and row["images"] == 60


def test_plda_is_fitted_to_the_training_features() -> None:
    model, test = Net("plda"), Fixed(*data(1))
    stage = Stage(name="classifier", epochs=1, head="plda", head_fit="plda", head_fit_options={"shrinkage": 0.3})
    row = fit(stage, parts(model, test=test))
    alone: Any = make_head("plda", WIDTH, CLASSES)
    between = alone.fit(*data(0), 0.3)
    directions = int((between > 0).sum())
    assert row["fitted"] == {"shrinkage": 0.3, "between": float(between.sum()), "directions": directions}
    assert torch.equal(model(test.batch.inputs), alone(test.batch.inputs))
    right = (alone(test.batch.inputs).argmax(1) == test.batch.targets).double().mean()
    assert row["test"]["accuracy"] == pytest.approx(100 * float(right))
    fit(Stage(name="classifier", epochs=1, head="plda", head_fit="plda"), parts(model, test=test))
    alone.fit(*data(0), alone.choose(*data(0)))
    assert torch.equal(model(test.batch.inputs), alone(test.batch.inputs))


def test_what_cannot_be_fitted_is_said() -> None:
    with pytest.raises(InputError, match="unknown head_fit 'svm'; known are ncm, plda, tau-norm"):
        check_head_fit(Stage(name="classifier", epochs=1, head_fit="svm"))
    with pytest.raises(InputError, match="is one epoch, not 3"):
        check_head_fit(Stage(name="classifier", epochs=3, head_fit="ncm"))
    with pytest.raises(InputError, match="mode is 'cosine'"):
        stage = Stage(name="classifier", epochs=1, head_fit="ncm", head_fit_options={"mode": "cosine"})
        fit(stage, parts(Net("ncm"), test=Fixed(*data(1))))
    check_head_fit(Stage())


@pytest.mark.parametrize(("kind", "options", "words"), [
    ("ncm", {"mode": "cosine"}, "mode is 'cosine'"),
    ("ncm", {"mode": 1.0}, "head_fit_options.mode cannot be 1.0"),
    ("tau-norm", {"tau": -1.0}, "tau is -1.0"),
    ("tau-norm", {"tau": "one"}, "head_fit_options.tau cannot be 'one'"),
    ("plda", {"shrinkage": 2.0}, "shrinkage is 2;"),
    ("plda", {"shrink": 0.1}, "has no option 'shrink', only 'shrinkage'"),
])  # fmt: skip
def test_an_option_is_checked_before_anything_is_trained(kind: str, options: dict[str, Any], words: str) -> None:
    stage = Stage(name="classifier", epochs=1, head=kind, head_fit=kind, head_fit_options=options)
    with pytest.raises(InputError, match=re.escape(words)):
        check_head_fit(stage)
