"""docs/formats.md names every field of the files of a run."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from saddlescape.records.config import DataConfig, RunConfig, Stage
from saddlescape.records.metrics import Epoch, Scores
from saddlescape.records.result import Result

FORMATS = Path(__file__).parents[2] / "docs" / "formats.md"


@pytest.mark.parametrize("record", [RunConfig, DataConfig, Stage, Epoch, Scores, Result])
def test_every_field_is_documented(record: Any) -> None:
    fields = [field.name for field in dataclasses.fields(record)] if dataclasses.is_dataclass(record) else None
    documented = set(re.findall(r"`(\w+)`", FORMATS.read_text(encoding="utf-8")))
    assert set(fields or record.__struct_fields__) - documented == set()
