"""``--tune head``: features of a frozen backbone are computed once, and every method's head is trained on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from saddlescape.errors import InputError
from saddlescape.measure.subject import open_subject
from saddlescape.models import build_model
from saddlescape.runs import frozen
from saddlescape.runs.evaluation import evaluate_run, run_data
from saddlescape.runs.execute import execute
from saddlescape.runs.export import export
from saddlescape.runs.frozen import with_features
from saddlescape.runs.opened import open_run
from saddlescape.runs.plan import plan
from saddlescape.runs.prediction import probabilities
from saddlescape.runs.request import Request


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for runs that lie side by side, with weights for smallcnn in it."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(1)
    save_file(build_model("smallcnn", 10).state_dict(), folder / "weights.safetensors")
    train(folder, "la")
    return folder


def request(runs: Path, method: str, **changes: Any) -> Request:
    given: dict[str, Any] = {"imbalance": 20, "epochs": 3, "image_size": 8, "precision": "float32", **changes}
    return Request(
        data="digits", method=method, backbone="smallcnn", weights=str(runs / "weights.safetensors"), **given
    )


def train(runs: Path, name: str, method: str = "", **changes: Any) -> dict[str, Any]:
    config, dataset, _ = plan(request(runs, method or name, **changes))
    return execute(config, dataset, runs / name)


def test_the_head_is_trained_on_standardised_features_and_answers_for_images(runs: Path) -> None:
    opened = open_run(runs / "la")
    data = run_data(opened)
    assert data.source is not None and data.preprocess.features and opened.config.network == "features"
    images, features = data.source.test.images[:50], data.test.images[:50]  # type: ignore[union-attr]
    shown = data.preprocess.normalize(data.train.images).flatten(1)  # type: ignore[union-attr]
    torch.testing.assert_close(shown.mean(dim=0), torch.zeros(shown.shape[1]), atol=1e-4, rtol=0)
    assert len(set(data.preprocess.std)) == 1 and float(shown.square().mean()) == pytest.approx(1, abs=1e-4)
    # A head that was trained with other scales, as those of older versions were, goes on seeing them.
    scaled = dataclasses.replace(data.preprocess, std=tuple(range(1, shown.shape[1] + 1)))
    assert run_data(dataclasses.replace(opened, trained_on=scaled)).preprocess == scaled
    with torch.no_grad():
        of_features = opened.trained(data.preprocess.normalize(features)).softmax(dim=1)
    torch.testing.assert_close(probabilities(opened, images), of_features, atol=1e-5, rtol=1e-4)


def test_evaluate_export_and_curvature_work_on_it(runs: Path) -> None:
    opened = open_run(runs / "la")
    accuracy = evaluate_run(runs / "la")[0].accuracy
    assert accuracy == pytest.approx(evaluate_run(runs / "la", data="digits", split="test")[0].accuracy, abs=0.4)
    assert export(opened, runs / "la.pt2") < 1e-5
    subject = open_subject(runs / "la")
    (inputs, _), _ = subject.samples([0])
    assert inputs.shape[1:] == (opened.trained.feature_dim, 1, 1) and subject.model is not opened.model


@pytest.mark.parametrize("method", ["ce+drw", "ldam+drw", "la+sam", "crt", "ncm", "plda", "tau-norm", "lws"])
def test_every_kind_of_method_and_a_run_beside_takes_the_features(
    runs: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "load_frozen", lambda *_: pytest.fail("features were computed again"))
    assert train(runs, method)["accuracy"] > 30
    one, other = (sorted((runs / name / "features").rglob("*.safetensors")) for name in ("la", method))
    assert one and all(a.samefile(b) for a, b in zip(one, other, strict=True))


def test_a_kill_costs_a_chunk_and_a_damaged_one_is_made_again(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, dataset, _ = plan(request(runs, "la"))
    folder, made = runs / "alone" / "run", []
    monkeypatch.setattr(frozen, "CHUNK", 200)
    compute = frozen._Making._compute

    def counted(self: Any, split: Any) -> Any:
        made.append(len(split))
        if len(made) == 3:
            raise KeyboardInterrupt
        return compute(self, split)

    monkeypatch.setattr(frozen._Making, "_compute", counted)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        with_features(config, dataset, folder)
    whole = with_features(config, dataset, folder, said.append)
    assert made == [200, 200, 5, 5, 200, 200, 197] and "1,002 of 1,002 images" in said[-1]
    some = next((folder / "features").rglob("00001.safetensors"))
    some.write_bytes(some.read_bytes()[:-1])
    again = with_features(config, dataset, folder)
    assert len(made) == 8 and torch.equal(again.train.images, whole.train.images)  # type: ignore[union-attr]


def test_features_in_bf16_are_those_of_float32_but_for_rounding(runs: Path) -> None:
    exact = with_features(*plan(request(runs, "la"))[:2], runs / "la")
    config, dataset, _ = plan(request(runs, "la", precision="bf16"))
    assert config.backbone.precision == "bf16"
    rounded = with_features(config, dataset, runs / "bf16").test.images  # type: ignore[union-attr]
    gap = (rounded - exact.test.images).abs().max()  # type: ignore[union-attr]
    assert 0 < gap < 0.03 * exact.test.images.abs().max()  # type: ignore[union-attr]


def test_mirrored_features_are_the_mean_of_both_and_the_file_has_them_too(runs: Path) -> None:
    train(runs, "mirrored", method="la", mirror=True)
    opened, plain = open_run(runs / "mirrored"), open_run(runs / "la")
    images = run_data(opened).source.test.images[:50]  # type: ignore[union-attr]
    x = opened.preprocess.normalize(images)
    both = (plain.model.features(x) + plain.model.features(x.flip(-1))) / 2  # type: ignore[operator]
    torch.testing.assert_close(opened.model.features(x), both)  # type: ignore[operator]
    torch.testing.assert_close(probabilities(opened, images), probabilities(opened, images.flip(-1)))
    assert export(opened, runs / "mirrored.pt2") < 1e-5


def test_other_weights_are_refused(runs: Path) -> None:
    other = runs / "other.safetensors"
    save_file({name: value + 1 for name, value in build_model("smallcnn", 10).state_dict().items()}, other)
    config = open_run(runs / "la").config
    config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, weights=str(other)))
    with pytest.raises(InputError, match="weights of backbone 'smallcnn'"):
        frozen.load_frozen(config, 10, 1)


def test_features_that_are_not_finite_name_their_image(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, dataset, _ = plan(request(runs, "la"))
    model = frozen.load_frozen(config, 10, 1)
    monkeypatch.setattr(model, "features", lambda x: torch.full((len(x), 4), torch.nan))
    monkeypatch.setattr(frozen, "load_frozen", lambda *_: model)
    with pytest.raises(InputError, match=r"the features of .* are not finite"):
        with_features(config, dataset, runs / "none" / "run")
