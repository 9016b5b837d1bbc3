"""--tune norm, lora and all: a classifier fitted on a pretrained network's features, then what is said of it trains."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saddlescape.errors import InputError, MissingExtraError
from saddlescape.measure.subject import open_subject
from saddlescape.models.backbone import weights_hash
from saddlescape.models.lora import merge_lora
from saddlescape.records import metrics
from saddlescape.runs import config as configuration
from saddlescape.runs.export import export
from saddlescape.runs.opened import open_run

FAST: dict[str, Any] = {"imbalance": 20, "epochs": 2, "image_size": 8}


class Attention(nn.Module):
    """Patches of 2 x 2 pixels, one layer of attention, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 2, stride=2)
        self.norm = nn.LayerNorm(12)
        self.query, self.key, self.value = (nn.Linear(12, 12) for _ in range(3))
        self.classifier = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        mixed = nn.functional.scaled_dot_product_attention(self.query(h), self.key(h), self.value(h))
        return self.classifier((h + mixed).mean(dim=1))


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(self.conv(x)).relu().mean(dim=(2, 3)))


@pytest.fixture(autouse=True)
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("tunable")
    for kind in (Attention, Convolutions):

        def build(kind: type[nn.Module] = kind) -> nn.Module:
            torch.manual_seed(1)
            return kind()

        setattr(module, kind.__name__.lower(), build)
    monkeypatch.setitem(sys.modules, "tunable", module)


@pytest.mark.parametrize(
    ("tune", "network", "trains"),
    [
        ("norm", "attention", {"backbone.norm.weight", "backbone.norm.bias"}),
        ("norm", "convolutions", {"backbone.bn.weight", "backbone.bn.bias"}),
        ("lora", "attention", {"query", "value"}),
        ("all", "attention", {"backbone"}),
    ],
)
def test_what_is_trained_moves_and_nothing_else(
    tune: str, network: str, trains: set[str], start, tmp_path: Path
) -> None:
    if tune == "lora":
        pytest.importorskip("peft")
    start(tmp_path / "run", **FAST, method=None, backbone=f"tunable:{network}", tune=tune)
    config = configuration.load(tmp_path / "run")
    assert [(stage.name, stage.loss) for stage in config.stages] == [("probe", "la"), ("train", "la")]
    opened = open_run(tmp_path / "run")
    begun = getattr(sys.modules["tunable"], network)().state_dict()
    for name, now in opened.model.backbone.state_dict().items():  # type: ignore[operator, union-attr]
        was = begun.get(name.replace(".base_layer.", "."))
        if tune == "lora":
            moved = not torch.equal(now, torch.zeros_like(now)) if "lora_B" in name else False
            assert moved == ("lora_B" in name) and ("lora_" in name or torch.equal(now, was))
        elif "num_batches" not in name:
            free = any(f"backbone.{name}".startswith(piece) for piece in trains) and "running" not in name
            assert free or torch.equal(now, was), name
            assert not free or not torch.equal(now, was) or "key.bias" in name, name
    rows = metrics.read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row.name for row in rows] == ["probe", "train", "train"]
    subject = open_subject(tmp_path / "run", device="cpu")
    trained = {name for name, parameter in subject.model.named_parameters() if parameter.requires_grad}
    assert all(name.startswith("classifier") or any(piece in name for piece in trains) for name in trained)
    assert export(opened, tmp_path / "model.pt2") <= 1e-4


def test_lora_is_merged_into_plain_layers(start, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    start(tmp_path / "run", **FAST, method="la", backbone="tunable:attention", tune="lora")
    model = open_run(tmp_path / "run").model
    base = sys.modules["tunable"].attention()
    base.classifier = nn.Identity()
    assert weights_hash(model.backbone) == weights_hash(base)  # type: ignore[arg-type]
    x = torch.randn(4, 1, 8, 8)
    before = model(x)
    assert torch.allclose(merge_lora(model)(x), before, atol=1e-6)
    assert not any("lora" in name for name in model.state_dict())


def test_the_start_is_a_good_classifier(start, planned, tmp_path: Path) -> None:
    """The fitted head is at a minimum: its training loss is below that of the nearest class mean."""
    start(tmp_path / "run", **FAST, method="la", backbone="tunable:convolutions", tune="norm")
    rows = metrics.read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert rows[0].test is not None and rows[0].test.balanced_accuracy > 25  # of ten classes, features at random
    config, _, _ = planned(**FAST, method="ldam", backbone="tunable:convolutions", tune="norm")
    assert config.stages[0].head == "cosine"
    start(tmp_path / "ldam", **FAST, method="ldam", backbone="tunable:convolutions", tune="norm")


def test_a_resumed_run_is_the_same_bit_for_bit(start, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    fields = {**FAST, "method": "la", "backbone": "tunable:attention", "tune": "lora", "keep_every": 1}
    start(tmp_path / "run", **fields)
    whole = open_run(tmp_path / "run").model.state_dict()
    (tmp_path / "run" / "result.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoint" / "s1-e00002-b000000")
    start(tmp_path / "run", **fields)
    again = open_run(tmp_path / "run").model.state_dict()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tune": "norm", "backbone": None}, "--tune says what of a backbone is trained"),
        ({"tune": "some"}, "--tune 'some': must be one of 'head', 'norm', 'lora', 'all'"),
        ({"tune": "lora"}, "backbone 'tunable:convolutions' has no attention"),
    ],
)
def test_what_cannot_be(fields: dict[str, Any], message: str, planned) -> None:
    with pytest.raises(InputError, match=message):
        planned(**(FAST | {"method": "la", "backbone": "tunable:convolutions"} | fields))


def test_without_peft(planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"--tune lora needs.*pip install 'saddlescape\[lora\]'"):
        planned(**FAST, method="la", backbone="tunable:attention", tune="lora")
