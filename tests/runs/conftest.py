"""What the tests of runs share: planning and executing a short run on the digits, and one trained once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saddlescape.data.types import Dataset
from saddlescape.records.config import RunConfig
from saddlescape.runs.execute import execute
from saddlescape.runs.plan import Loaded, plan
from saddlescape.runs.request import Request

Start = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def planned() -> Callable[..., tuple[RunConfig, Dataset, list[str]]]:
    """``planned(**fields of Request)``, by default two epochs of ce+drw+sam on the digits; data are read once."""
    loaded = Loaded()

    def make(**fields: Any) -> tuple[RunConfig, Dataset, list[str]]:
        usual: dict[str, Any] = {"data": "digits", "method": "ce+drw+sam", "epochs": 2, "device": "cpu"}
        return plan(Request(**(usual | {"compile": False} | fields)), None, loaded)

    return make


@pytest.fixture(scope="session")
def start(planned: Callable[..., tuple[RunConfig, Dataset, list[str]]]) -> Start:
    """``start(folder, **fields of Request)`` runs or resumes and returns the result."""

    def run(folder: Path, *, say: Callable[[str], None] = lambda line: None, **fields: Any) -> dict[str, Any]:
        config, dataset, _ = planned(**fields)
        return execute(config, dataset, folder, say=say)

    return run


@pytest.fixture(scope="session")
def finished(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs with a validation split, on a cosine head. Only to be read."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    start(folder, method="ldam+drw+sam", val=0.2)
    return folder
