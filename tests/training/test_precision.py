"""Devices and number formats: what is there is taken, what is not there is said."""

from __future__ import annotations

import pytest
import torch

from saddlescape.errors import InputError
from saddlescape.training import precision as module
from saddlescape.training.precision import Precision, has_fast_bf16, resolve_device, resolve_precision

CPU = torch.device("cpu")


def test_devices_that_are_there() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(("name", "said"), [
    ("cuda:99", "CUDA devices; use --device cpu or auto"),
    ("gpu", "not a device; use auto, cpu, cuda or cuda:N"),
    ("", "not a device"),
    ("meta", "not supported; use auto, cpu, cuda or cuda:N"),
])  # fmt: skip
def test_devices_that_are_not_there(name: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve_device(name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_auto_is_bfloat16_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_fast_bf16", lambda device: True)
    assert resolve_precision("auto", CPU) == "bf16"
    monkeypatch.setattr(module, "has_fast_bf16", lambda device: False)
    assert resolve_precision("auto", CPU) == "float32"
    for name in ("float32", "bf16", "fp16"):
        assert resolve_precision(name, CPU) == name
    with pytest.raises(InputError, match="--precision half: unknown; use auto, float32, bf16, fp16"):
        resolve_precision("half", CPU)
    assert has_fast_bf16(torch.device("mps")) is False


@pytest.mark.parametrize(
    ("name", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_forward_pass_runs_in_the_type_that_is_named(name: str, dtype: torch.dtype) -> None:
    precision = Precision(name, "cpu")
    assert precision.dtype == dtype
    layer = torch.nn.Linear(4, 3)
    with precision.autocast():
        assert layer(torch.ones(2, 4)).dtype == dtype
    assert layer.weight.dtype == torch.float32
    assert (precision.scaler() is not None) == (name == "fp16")
