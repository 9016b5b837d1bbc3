"""A benchmark's script as a module: each test file names its own in ``SCRIPT``."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """The script; its folder is on the path only while a test runs, and what it sets for all of torch is put back."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    threads, searching = torch.get_num_threads(), torch.backends.cudnn.benchmark
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.set_num_threads(1)
    yield importlib.import_module(request.module.SCRIPT)
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = searching
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(BENCHMARKS)):
            del sys.modules[name]
