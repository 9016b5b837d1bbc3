"""docs/formats.md names every field of the files of a run."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from saddlescape.records.config import DataConfig, RunConfig, Stage
from saddlescape.records.course import GroupMoment, Moment
from saddlescape.records.curvature import Curvature, CurvatureFile, GaussNewton, GroupCurvature, ResidualPart, Shares
from saddlescape.records.escape import Arm, ArmEpoch, EscapeFile, TailGain, Verdict
from saddlescape.records.metrics import EpochRow, SplitScores
from saddlescape.records.record import MeasuredFile
from saddlescape.records.result import Result
from saddlescape.records.rho_advice import Advice, AdviceFile, From, Gain, Hint, Radius, TrainedWith
from saddlescape.records.surface import SurfaceFact, SurfaceFacts

FORMATS = Path(__file__).parents[2] / "docs" / "formats.md"


@pytest.mark.parametrize("record", [RunConfig, DataConfig, Stage, EpochRow, SplitScores, Result, MeasuredFile])
def test_every_field_is_documented(record: Any) -> None:
    fields = [field.name for field in dataclasses.fields(record)] if dataclasses.is_dataclass(record) else None
    documented = set(re.findall(r"`(\w+)`", FORMATS.read_text(encoding="utf-8")))
    assert set(fields or record.__struct_fields__) - documented == set()


SHARED = set(MeasuredFile.__struct_fields__)  # described once for all


@pytest.mark.parametrize(
    ("name", "records"),
    [
        ("curvature.json", [CurvatureFile, Curvature, GroupCurvature, GaussNewton, ResidualPart, Shares]),
        ("curvature-course.jsonl", [Moment, GroupMoment]),
        ("rho-advice.json", [AdviceFile, Advice, Gain, Radius, Hint, From, TrainedWith]),
        ("surface-....json", [SurfaceFacts, SurfaceFact]),
        ("escape.json", [EscapeFile, Arm, ArmEpoch, Verdict, TailGain]),
    ],
)
def test_every_field_of_a_measurement_is_documented_with_its_file(name: str, records: list[Any]) -> None:
    text = FORMATS.read_text(encoding="utf-8")
    (paragraph,) = [block for block in text.split("\n\n") if block.startswith(f"`{name}` holds")]
    documented = set(re.findall(r"`(\w+)`", paragraph))
    fields = {field for record in records for field in record.__struct_encode_fields__}
    assert fields - documented - SHARED == set()
