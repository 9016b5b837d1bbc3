"""Reading run folders: every file, grids, what is missing, and damage of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from saddlescape.curvature import Spectrum, Surface
from saddlescape.errors import InputError
from saddlescape.report.read import RunData, read, studies, valid_groups

Make = Callable[..., Path]
FILES = ["config.toml", "metrics.jsonl", "result.json", "curvature.json", "curvature-course.jsonl", "rho-advice.json",
         "surface-eigen-2d-ce-s0.npz", "escape.json", "test_predictions.npz", "tail_errors.npz",
         "training_samples.npz"]  # fmt: skip


def test_every_part_is_read(pair: list[Path]) -> None:
    plain, sam = read(pair)
    assert (plain.name, sam.name) == ("CE + DRW", "CE + DRW + SAM")
    assert plain.result and plain.result.accuracy == json.loads((pair[0] / "result.json").read_text())["accuracy"]
    assert [epoch.epoch for epoch in plain.epochs] == list(range(6))
    assert plain.curvature and [row.lambda_min for row in plain.curvature.classes] == [-1, -2, -3, -4, -5, -6]
    assert plain.curvature.classes[0].name == "cat"
    assert len([row for row in plain.moments if row.label is None]) == 9
    assert plain.advice and {row.group for row in plain.advice.classes} == {"head", "tail"}
    assert len(plain.surfaces) == 6
    assert plain.escape and plain.escape.verdict and plain.escape.verdict.answer == "less"
    assert plain.predictions and len(plain.predictions.labels) == 240
    assert plain.tail_errors and plain.tail_errors.images.shape == (5, 8, 8, 3)
    assert plain.samples and [len(each) for each in plain.samples] == [6, 6]
    assert plain.groups == {"head": [0, 1], "mid": [2, 3], "tail": [4, 5]}
    assert plain.marks == [(4, "DRW starts")]
    assert not plain.notes


def test_spectra_and_surfaces_written_by_the_curvature_room_are_read(tmp_path: Path, make: Make) -> None:
    run = make(tmp_path / "run", parts="result curvature")
    values, weights = torch.tensor([[[-1.0, 0.5, 9.0]], [[0.2, 0.7, 0.1]]], dtype=torch.float64)
    Spectrum(values, weights, 10, 5, -1.0, 9.0, (0.0, 0.0), 1.0, 0.1, (3,), (False,), 1e-4, 1e-9, 5, label=0).save(
        run / "curvature/class_0.npz"
    )
    axis = np.linspace(-1, 1, 3)
    Surface(
        axis, axis, np.arange(9.0).reshape(1, 3, 3), (2,), np.zeros((1, 2)), np.ones((1, 2)), np.ones(1), "random", 0
    ).save(run / "surface-random.npz")
    found = read([run])[0]
    assert found.curvature
    spectrum = found.spectrum(found.curvature.classes[0])
    assert spectrum is not None
    np.testing.assert_array_equal(spectrum.values, values.numpy())
    np.testing.assert_array_equal(spectrum.weights, weights.numpy())
    (surface,) = found.surfaces
    assert (surface.label, surface.directions) == (2, "random")
    np.testing.assert_array_equal(surface.losses, np.arange(9.0).reshape(3, 3))


def test_a_grid_is_read_in_the_order_of_the_papers_table(tmp_path: Path, make: Make) -> None:
    for method in ("vs", "ce+drw+sam", "ce+drw", "toy", "ce"):
        for seed in (1, 0):
            make(tmp_path / "grid" / f"{method}-seed{seed}", method=method, seed=seed, parts="result")
    (tmp_path / "grid" / "table.json").write_text("[")  # not read: the table is made anew from the runs
    (tmp_path / "grid" / "notes").mkdir()
    runs = read([tmp_path / "grid", tmp_path / "grid" / "ce-seed0"])
    assert [(run.method, run.seed) for run in runs] == [
        (method, seed) for method in ("ce", "ce+drw", "ce+drw+sam", "vs", "toy") for seed in (0, 1)
    ]
    assert runs[0].name == "CE, seed 0"
    assert len({run.name for run in runs}) == 10


def test_runs_of_the_same_name_have_different_names(tmp_path: Path, make: Make) -> None:
    runs = read([make(tmp_path / place, parts="result") for place in ("a/run", "b/run", "c")])
    assert len({run.name for run in runs}) == 3
    assert all(run.name.startswith("CE + DRW, seed 0 (") for run in runs)


def test_other_data_makes_another_study(tmp_path: Path, make: Make) -> None:
    made = ({}, {"dataset": "cifar10", "draw": "bb"}, {"seed": 1})
    runs = read([make(tmp_path / place, **options) for place, options in zip("abc", made, strict=True)])
    assert [[run.path.name for run in group] for group in studies(runs)] == [["a", "c"], ["b"]]
    assert runs[1].name == "CE + DRW"


def test_groups_in_a_file_are_checked() -> None:
    good = {"head": [0], "mid": [1], "tail": [2]}
    assert valid_groups(good, 3) == good
    assert valid_groups({"head": [0], "tail": [2]}, 3) == {"head": [0], "mid": [], "tail": [2]}
    bad = (None, [], {}, {"head": [0, 0]}, {"head": [3]}, {"head": [-1]}, {"all": [0]}, {"head": ["0"]}, {"head": 0},
           {"head": [True]})  # fmt: skip
    assert [valid_groups(groups, 3) for groups in bad] == [None] * len(bad)


def test_what_is_not_a_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        read([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="neither a run"):
        read([tmp_path])
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="neither a run"):
        read([tmp_path / "file"])


def test_what_is_missing_is_noted_with_the_command_that_measures_it(tmp_path: Path, make: Make) -> None:
    run = make(tmp_path / "run", parts="result")
    notes = {note.text.split(" was")[0].split(" were")[0]: note.command for note in read([run])[0].notes}
    assert notes["Curvature"] == f"saddlescape curvature {run}"
    assert notes["The course of curvature over training"] == f"saddlescape curvature {run} --over-training"
    assert notes["SAM's gain over rho"] == f"saddlescape curvature {run} --advise-rho"
    assert notes["No loss surface"] == f"saddlescape surface {run} --classes all"


def test_an_unfinished_run_is_shown_as_far_as_it_got(tmp_path: Path, make: Make) -> None:
    run = read([make(tmp_path / "run", parts="course")])[0]
    assert run.result is None
    assert len(run.epochs) == 6
    assert any("not finished (6 epochs done)" in note.text for note in run.notes)


DAMAGE = {
    "cut": lambda raw: raw[: len(raw) // 2],
    "empty": lambda raw: b"",
    "bytes": lambda raw: b"\xff\xfe\x00garbage\x80\n" + raw[10:40],
    "list": lambda raw: b"[1, 2]\n[3]\n",
    "null": lambda raw: b"null\nnull\n",
    "text": lambda raw: b'"text"\n{"a": 1}\n',
    "types": lambda raw: (
        raw.replace(b'"label": 0', b'"label": "0"')
        .replace(b'"epoch": 0', b'"epoch": {}')
        .replace(b'"accuracy": ', b'"accuracy": "x", "was": ')
    ),
    "huge": lambda raw: raw.replace(b"-1", b"1e999").replace(b"0.1", b"NaN"),
    "deep": lambda raw: b"[" * 100_000,
}


@pytest.mark.parametrize("kind", [
    kind if kind in ("cut", "types") else pytest.param(kind, marks=pytest.mark.slow) for kind in DAMAGE
])  # fmt: skip
def test_a_damaged_file_is_a_note_and_never_a_crash(tmp_path: Path, make: Make, kind: str) -> None:
    from saddlescape.report.page import render

    for index, name in enumerate(FILES):
        run = make(tmp_path / str(index))
        path = run / name
        before = path.read_bytes()
        path.write_bytes(DAMAGE[kind](before))
        found = read([run])
        notes = " ".join(note.text for note in found[0].notes)
        # A last line cut off is what a kill leaves, and a figure that is not a number counts as unknown.
        harmless = kind in ("huge", "empty", "types") or (kind == "cut" and name.endswith(".jsonl"))
        assert path.read_bytes() == before or notes or harmless, name
        assert "Traceback" not in notes
        assert str(run) not in notes.replace(f"saddlescape train --out {run}", "")
        render(found)


def test_a_path_that_leads_out_of_the_run_is_not_followed(tmp_path: Path, make: Make) -> None:
    run = make(tmp_path / "run", parts="result curvature")
    secret = tmp_path / "class_0.npz"
    (run / "curvature/class_0.npz").rename(secret)
    content = json.loads((run / "curvature.json").read_text())
    content["classes"][0]["file"] = "../class_0.npz"
    (run / "curvature.json").write_text(json.dumps(content))
    found: RunData = read([run])[0]
    assert found.curvature
    assert found.spectrum(found.curvature.classes[0]) is None
    assert any("outside the run" in note.text for note in found.notes)
