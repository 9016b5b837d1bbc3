"""The training benchmark: its peer is a fair one (same numbers from the same batches), and its JSON is whole."""

from __future__ import annotations

import functools
import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from saddlescape.data import ResidentLoader
from saddlescape.data.augment.crop_flip import crop_flip

SCRIPT = "train_step"
BATCH, SIZE = 8, 8


@pytest.fixture
def setting(script: types.ModuleType) -> object:
    return script.Setting(
        dataset=script.noise([20] * 10, SIZE),
        device=torch.device("cpu"),
        model="resnet20",
        batch=BATCH,
        workers=0,
        steps=1,
        block=1,
        warm_up=1,
    )


def flat(values: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.detach().reshape(-1).double() for value in values])


def run_both(script: types.ModuleType, setting: object, method: str) -> tuple[float, Any, Any]:
    """Two steps of both on the same batches; returns how far apart their weights end, relative to the way travelled.

    In float64 (the loss alone stays float32 in ours): in float32 the two memory formats round differently, which now
    and then flips a ReLU, and one flip moves a gradient by far more than rounding.
    """
    ours, peer = script.Ours(setting, method, "float32"), script.Peer(setting, method)
    models = ours.parts.model.double(), peer.loop.model.double()
    start = [flat(list(model.parameters())) for model in models]
    assert torch.equal(*start)
    for _ in range(2):
        batch = next(ours.batches)
        inputs = batch.inputs.double()
        mine = ours.train(batch._replace(inputs=inputs))
        theirs = peer.loop.step(inputs.contiguous(), batch.targets)
        assert mine == pytest.approx(theirs, rel=1e-6)
    end = [flat(list(model.parameters())) for model in models]
    return float((end[0] - end[1]).norm() / (end[0] - start[0]).norm()), ours, peer


@pytest.mark.parametrize("method", ["sam", "sgd"])
def test_the_peer_does_the_same_work(script: types.ModuleType, setting: object, method: str) -> None:
    apart, ours, peer = run_both(script, setting, method)
    assert apart < 1e-6
    mine, theirs = (dict(model.named_buffers()) for model in (ours.parts.model, peer.loop.model))
    assert mine.keys() == theirs.keys()
    for name, buffer in mine.items():  # running statistics, and how often they moved: both passes count in both
        torch.testing.assert_close(buffer, theirs[name], rtol=1e-6, atol=1e-6, msg=name)
    momenta = [
        flat([optimizer.state[p]["momentum_buffer"] for p in model.parameters()])
        for optimizer, model in ((ours.parts.optimizer, ours.parts.model), (peer.loop.sgd, peer.loop.model))
    ]
    assert (momenta[0] - momenta[1]).norm() < 1e-6 * momenta[0].norm()


# Images forward through the body in a step on a batch of 16, of which PartialSAM sees a quarter twice.
IMAGES = {
    "sgd": 16, "sam": 32, "asam": 32, "sam-on": 32, "momentum-sam": 16,
    "imbsam": 32, "focal-sam": 32, "cc-sam": 16, "partial-sam": 20, "sse-sam": 48,
}  # fmt: skip


def test_a_step_of_every_optimiser_makes_the_passes_it_is_timed_for(script: types.ModuleType, setting: Any) -> None:
    assert list(IMAGES) == script.FAMILY
    counts = [40, 36, 33, 30, 27, 24, 20, 12, 10, 6]
    setting = script.dataclasses.replace(setting, dataset=script.noise(counts, SIZE), model="smallcnn", batch=16)
    labels = torch.tensor([0] * 8 + [1] * 4 + [8, 8, 9, 9])  # four of the tail: a quarter of the batch
    for name, images in IMAGES.items():
        ours = script.Ours(setting, "sgd", "float32", optimizer=name)
        batch, seen = next(ours.batches)._replace(targets=labels), []
        first = next(module for module in ours.parts.model.modules() if isinstance(module, torch.nn.Conv2d))
        first.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(len(output)))
        assert np.isfinite(ours.train(batch)) and sum(seen) == images, name


def test_both_augment_alike(script: types.ModuleType, setting: object) -> None:
    from peers.loop import crop_flip_normalize

    images = setting.dataset.train.images[:6]  # type: ignore[attr-defined]
    preprocess = setting.dataset.preprocess  # type: ignore[attr-defined]
    # Ours mirrors an image before it crops, the peer after: a mirrored crop at column x is one at 8 - x of the mirror.
    top, left = torch.tensor([0, 8, 4, 1, 7, 3]), torch.tensor([8, 0, 4, 6, 2, 5])
    flip = torch.tensor([True, False, True, False, True, False])
    mine = preprocess.normalize(crop_flip(images, top, left, flip, padding=4))
    for index, pixels in enumerate(images.permute(0, 2, 3, 1).numpy()):
        mirrored = bool(flip[index])
        column = 8 - int(left[index]) if mirrored else int(left[index])
        image = Image.fromarray(np.ascontiguousarray(pixels))
        theirs = crop_flip_normalize(image, int(top[index]), column, mirrored, 4, preprocess.mean, preprocess.std)
        torch.testing.assert_close(mine[index], theirs, rtol=0, atol=2e-6)


def test_both_loaders_show_full_batches_of_the_same_images(script: types.ModuleType, setting: object) -> None:
    ours, peer = script.Ours(setting, "sgd", "float32"), script.peer_batches(setting, workers=0)
    assert isinstance(ours.parts.loader, ResidentLoader)
    images, targets = next(peer)
    batch = next(ours.batches)
    assert images.shape == batch.inputs.shape == (BATCH, 3, SIZE, SIZE)
    assert targets.shape == batch.targets.shape == (BATCH,)
    assert images.dtype == batch.inputs.dtype and targets.dtype == batch.targets.dtype


def test_convolution_costs_are_those_of_the_layers(script: types.ModuleType, setting: object) -> None:
    from convolution_bound import convolutions, cost
    from torch.utils.flop_counter import FlopCounterMode

    network = script.bound_network(setting)
    chain = convolutions(network)
    counted = cost(chain, (2, 3, 32, 32), 4)
    with FlopCounterMode(display=False) as counter:
        chain(torch.randn(2, 3, 32, 32)).sum().backward()
    assert counted.operations == counter.get_total_flops()
    # One layer by hand: forward and weight gradient only, each touching 2x3x8x8 in, 16x3x3x3 weights, 2x16x8x8 out.
    first = cost(chain[:1], (2, 3, 8, 8), 4)
    assert first.bytes == 4 * 2 * (2 * 3 * 64 + 16 * 27 + 2 * 16 * 64)


def test_peak_bytes_counts_what_was_held_at_once(script: types.ModuleType) -> None:
    from common import peak_bytes

    def work() -> None:
        first = torch.empty(1000)
        second = torch.empty(3000)
        del first, second
        torch.empty(500)

    assert peak_bytes(work, torch.device("cpu")) == 16_000


def test_growth_exponent_is_the_power(script: types.ModuleType) -> None:
    from common import growth_exponent

    assert growth_exponent([1, 2, 4, 8], [3 * size**1.5 for size in (1, 2, 4, 8)]) == pytest.approx(1.5)
    assert growth_exponent([4, 4], [1, 2]) is None


def test_interleave_takes_turns(script: types.ModuleType) -> None:
    from common import interleave

    seen: list[str] = []
    timings = interleave({name: lambda name=name: seen.append(name) for name in "abc"}, 5, block=2)  # type: ignore[misc]
    assert all(len(timing.samples) == 5 for timing in timings.values())
    rounds = [seen[i : i + 6] for i in range(0, 30, 6)]
    assert all(sorted(turn[::2]) == ["a", "b", "c"] and turn[::2] == turn[1::2] for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 1


@pytest.mark.slow
def test_the_json_tells_where_it_was_taken_and_every_row(
    script: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "load_images", lambda name: script.noise(list(range(29, 9, -2)), SIZE))
    monkeypatch.setattr(script.Setting, "__init__", functools.partialmethod(script.Setting.__init__, warm_up=1))
    out = tmp_path / "train_step.json"
    argv = ["--data", "synthetic", "--model", "resnet20", "--batch", "4", "--steps", "1", "--threads", "1"]
    assert script.main([*argv, "--depths", "20", "--no-compile", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    result = json.loads(out.read_text())
    assert result["environment"]["threads"] == 1 and "--no-compile" in result["environment"]["command"]
    rows = {row["name"]: row for row in result["rows"]}
    assert len(rows) == len(result["rows"]) == 23
    assert all(name in printed for name in rows)
    for name in ("sam step, float32, over loop", "sgd step, bf16, over loop"):
        row = rows[name]
        ratio = row["peer"]["median_s"] / row["variants"]["eager"]["median_s"]
        assert row["value"] == pytest.approx(ratio) and row["variant"] == "eager"
    for name in ("float32", "bf16"):
        bound = result["convolution_bound"][name]
        share = 2 * bound["median_s"] / result["timings"]["sam"][f"ours {name} eager"]["median_s"]
        assert rows[f"share of the {name} convolution bound, sam step"]["value"] == pytest.approx(share)
        assert bound["operations_per_s"] == pytest.approx(bound["operations"] / bound["median_s"])
    # The one figure that does not depend on how busy the machine is: SAM holds one more copy of the weights.
    for name in ("ours float32", "ours bf16", "loop"):
        assert rows[f"sam's memory beyond sgd's, {name}"]["value"] == pytest.approx(1, abs=0.05)
    assert rows["sam step's growth with depth, ours"]["value"] is None  # one depth only
