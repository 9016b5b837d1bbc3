"""The curvature benchmark: all contenders multiply by the same Hessian, and its JSON is whole, peers or no peers."""

from __future__ import annotations

import json
import logging
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

SCRIPT = "curvature"
SIZE = 6

# torch writes a debug record per traced tensor for a log that nobody asked for; pytest would keep them all.
logging.getLogger("torch.__trace").setLevel(logging.CRITICAL)


def tiny_network(*_: Any, **__: Any) -> nn.Module:
    """Convolution, batch normalisation and a head: all that a residual network is made of, in 200 numbers."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean = torch.randn(4)
    norm.running_var = torch.rand(4) + 0.5
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), norm, nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10)
    ).eval()


def make_setting(script: types.ModuleType, peers: tuple[str, ...] = ()) -> Any:
    generator = torch.Generator().manual_seed(1)
    return script.Setting(
        model=tiny_network(), loss=nn.CrossEntropyLoss(), inputs=torch.randn(8, 3, SIZE, SIZE, generator=generator),
        targets=torch.full((8,), 3), batch=4, peers=peers, steps=5, rounds=1, repeats=1, device=torch.device("cpu"),
    )  # fmt: skip


def plain_product(setting: Any, vector: Tensor) -> Tensor:
    """All images at once, in float64, by torch's own double backward: nothing of ours, nothing of a peer's."""
    model, parameters = setting.model.double(), list(setting.model.double().parameters())
    loss = nn.functional.cross_entropy(model(setting.inputs.double()), setting.targets)
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, create_graph=True)])
    return torch.cat([h.reshape(-1) for h in torch.autograd.grad(gradient @ vector.double(), parameters)])


def apart(contender: Any, vector: Tensor, exact: Tensor) -> float:
    product = contender.flat(contender.product(contender.native(vector)))
    assert product.shape == vector.shape and not product.requires_grad
    return float((product.double() - exact).norm() / exact.norm())


def test_every_contender_multiplies_by_the_same_hessian(script: types.ModuleType) -> None:
    present, missing = script.find_peers(script.PEERS)
    assert sorted([*present, *missing]) == sorted(script.PEERS)
    setting = make_setting(script, tuple(present))
    vector = torch.randn(setting.dim, generator=torch.Generator().manual_seed(2))
    built = {name: build() for name, build in script.factories(setting).items()}
    built["ours, traced"] = script.Ours(setting, method="traced")
    assert len(built) == 3 + len(present)
    exact = plain_product(make_setting(script), vector)
    for name, contender in built.items():
        before = contender.products
        assert apart(contender, vector, exact) < 1e-5, name  # asked for: 1e-4
        assert contender.products == before + 1, name
    other = script.replace(setting, inputs=setting.inputs * 1.01)
    for name, build in script.factories(other).items():
        assert apart(build(), vector, exact) > 1e-3, name


def test_every_density_and_both_ends_are_those_of_the_dense_hessian(script: types.ModuleType) -> None:
    present, _ = script.find_peers(script.PEERS)
    setting = make_setting(script, tuple(present))
    columns = [plain_product(make_setting(script), unit) for unit in torch.eye(setting.dim)]
    values = torch.linalg.eigvalsh(torch.stack(columns))
    exact = float(values[0]), float(values[-1])
    assert exact[0] < 0 < exact[1]
    found, told = script.exact_extremes(setting)
    assert found == pytest.approx(exact, rel=1e-9) and told["converged"]
    for name, build in script.factories(setting).items():
        assert build().extremes(1e-6, 60) == pytest.approx(exact, rel=1e-3), name
        ends = build().density(60)
        assert ends is None if name == "curvlinops" else ends == pytest.approx(exact, rel=1e-3), name
    assert script.errors_of((exact[0], exact[1] * 1.01), exact) == pytest.approx([0, 0.01])


def test_even_batches(script: types.ModuleType) -> None:
    for images, at_most in ((500, 250), (501, 250), (503, 250), (7, 250), (1, 1), (10, 3)):
        kept, size = script.even_batches(images, at_most)
        assert kept % size == 0 and 1 <= size <= at_most and images - kept < -(-images // at_most)


def test_quick_writes_every_row_and_says_which_peers_are_missing(
    script: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from train_step import noise

    real = script.importlib.import_module

    def without_curvlinops(name: str, package: str | None = None) -> types.ModuleType:
        if name == "peers.curvlinops":
            raise ModuleNotFoundError("No module named 'curvlinops'")
        return real(name, package)

    monkeypatch.setattr(script, "load_images", lambda name: noise([20] * 10, SIZE))
    monkeypatch.setattr(script, "new_model", tiny_network)
    monkeypatch.setattr(script.importlib, "import_module", without_curvlinops)
    out = tmp_path / "curvature.json"
    assert script.main(["--quick", "--data", "synthetic", "--threads", "1", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    result = json.loads(out.read_text())
    assert "curvlinops" in result["missing"] and "left out: curvlinops" in printed
    assert sorted([*result["missing"], *result["peers"]]) == sorted(script.PEERS)
    (case,) = result["cases"].values()
    assert list(case["parts"]) == list(script.PARTS)
    record = {name: part["record"] for name, part in case["parts"].items()}
    listed = [row for part in case["parts"].values() for row in part["rows"]]
    rows = {row["name"]: row for row in listed}
    assert len(rows) == len(listed) and all(name in printed for name in rows)
    for what in ("products per second", "whole density", "both extremes"):
        for name in ("ours, double backward", *result["peers"]):
            row = rows[f"{what}, ours over {name}"]
            assert row["value"] == pytest.approx(row["peer"]["median_s"] / row["ours"]["median_s"])
    assert rows["error of float32 extremes against float64"]["value"] < 1e-4
    names = {"ours", "ours, double backward", *result["peers"]}
    for section in ("products", "product_errors", "density", "extremes"):
        assert set(record[section]) == names
    assert all(each["error"] < 1e-4 for each in record["product_errors"].values())
    assert record["density"]["ours"]["products"] == 6 and record["extremes"]["ours"]["products"] > 2
    bound = record["bound"]
    # One convolution of 3 to 4 channels, 3 x 3, on 12 images of 4 x 4 outputs: two each of output and weight gradient.
    assert bound["operations"] == 4 * 2 * 12 * 4 * 4 * 4 * 3 * 9
    slower = bound["timings"]["ours"]["median_s"] / bound["timings"]["convolutions"]["median_s"]
    assert rows["share of the convolution bound, product"]["value"] == pytest.approx(1 / slower)


def test_parts_of_many_classes_are_kept_one_by_one(
    script: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from train_step import noise

    monkeypatch.setattr(script, "load_images", lambda name: noise([20] * 10, SIZE))
    monkeypatch.setattr(script, "new_model", tiny_network)
    out = tmp_path / "curvature.json"
    basis = ["--quick", "--threads", "1", "--out", str(out), "--peers", "--classes", "1", "4", "--parts"]
    assert script.main([*basis, "products"]) == 0
    first = json.loads(out.read_text())
    assert [case["settings"]["label"] for case in first["cases"].values()] == [1, 4]
    assert all(list(case["parts"]) == ["products"] for case in first["cases"].values())
    ratio = "products per second, ours over ours, double backward"
    values = [case["parts"]["products"]["rows"][0]["value"] for case in first["cases"].values()]
    (row,) = [row for row in first["rows"] if row["name"] == f"{ratio}, 12 images, 6 steps, threads: 1"]
    assert (row["value"], row["cases"]) == (pytest.approx(sum(values) / 2), 2)
    assert row["range"] == [min(values), max(values)]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "measure_float32", interrupted)
    with pytest.raises(KeyboardInterrupt):
        script.main([*basis, "products", "reference", "float32"])
    second = json.loads(out.read_text())
    one, other = second["cases"].values()
    assert list(one["parts"]) == ["products", "reference"] and list(other["parts"]) == ["products"]
    for key, case in second["cases"].items():  # what was there has not been measured again
        assert case["parts"]["products"] == first["cases"][key]["parts"]["products"]
