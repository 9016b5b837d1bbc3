"""Files of a run folder: whole or not at all, and readable without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from saddlescape.errors import InputError
from saddlescape.records import files


def test_text_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    files.write_json(path, {"a": [1.5, None, "ü"]})
    assert files.read_json(path) == {"a": [1.5, None, "ü"]}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*result\.json: No space left on device"):
        files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": [1.5, None, "ü"]}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_numbers_that_json_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_rows_are_appended_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert files.read_rows(path) == []
    for epoch in range(3):
        files.append_row(path, {"epoch": epoch})
    assert files.read_rows(path) == [{"epoch": 0}, {"epoch": 1}, {"epoch": 2}]
    with path.open("a") as file:
        file.write('{"epoch": 3, "lo')
    assert len(files.read_rows(path)) == 3
    files.keep_rows(path, [{"epoch": 0}])
    assert path.read_text() == '{"epoch": 0}\n'


@pytest.mark.parametrize(("text", "said"), [("{", "not JSON"), (None, "No such file")])
def test_json_that_cannot_be_read_is_one_line(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "result.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        files.read_json(path)
    assert "\n" not in str(caught.value)


def test_a_lock_is_held_against_another_process_and_gone_with_its_holder(tmp_path: Path) -> None:
    """The holder is killed; its lock must not outlive it."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom saddlescape.records.files import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    command: list[Any] = [sys.executable, "-c", code, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="in use by another process"), files.locked(tmp_path):
            pass
        holder.kill()
    with files.locked(tmp_path):
        pass
