"""Standard output and error that are closed, full, or of a small alphabet; names that other layers would interpret."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from saddlescape.cli import main, streams


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``saddlescape`` in a shell of its own, as people run it."""
    program = f"{shlex.quote(sys.executable)} -m saddlescape"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("saddlescape", program)],
        capture_output=True, text=True, timeout=120, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("saddlescape methods >&-", 0, ""),
        ("saddlescape methods >&- 2>&-", 0, ""),
        ("saddlescape methods >/dev/full", 2, "saddlescape: standard output: No space left on device\n"),
        ("saddlescape --help >/dev/full", 2, "saddlescape: standard output: No space left on device\n"),
        ("saddlescape methods 2>/dev/full >/dev/null", 0, ""),
        ("saddlescape nonsense 2>/dev/full", 2, ""),
        ("saddlescape methods | head -1", 0, ""),
        ("saddlescape --help | head -1", 0, ""),
    ],
)
def test_any_standard_output(line, code, told):
    done = shell(line)
    assert (done.returncode, done.stderr) == (code, told)


def test_letters_that_the_output_does_not_have_are_escaped():
    done = shell("saddlescape predict 'Ä±.png' x; saddlescape methods", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("saddlescape: \\xc4\\xb1.png is not a run folder")
    assert done.stdout.isascii()


def test_figures_need_no_backend_of_a_notebook(photo_run):
    done = shell(f"saddlescape report {photo_run} --figures f", MPLBACKEND="module://no_such_package.backend")
    assert done.returncode == 0, done.stderr
    assert list(Path("f").glob("*.pdf"))


@pytest.mark.parametrize("name", ["[1] x.png", "[red]x.png", ":cat:.png", "[]", '{"a": 1}'])
def test_names_are_names(cli, photo_run, make_picture, name):
    """Not JSON, not markup, not an emoji."""
    shutil.move(make_picture(Path("x.png")), name)
    outcome = cli("predict", photo_run, name)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(f"{name}: ")
    assert f"{name} is neither a run" in cli("report", name).complaint
    run = shutil.copytree(photo_run, Path("runs") / name)
    assert f"{run} on photos (test, 7 images)" in cli("evaluate", run).out


def test_the_images_that_can_be_read_are_answered(cli, photo_run, make_picture):
    first, last = make_picture(Path("a.png")), make_picture(Path("c.png"))
    Path("b.png").write_bytes(b"no image")
    outcome = cli("predict", photo_run, first, "b.png", "gone.png", last)
    assert outcome.code == 1
    assert [line.partition(":")[0] for line in outcome.out.splitlines()] == ["a.png", "c.png"]
    assert [line.split(": ")[:2] for line in outcome.err.splitlines()] == [["saddlescape", "b.png"],
                                                                          ["saddlescape", "gone.png"]]  # fmt: skip
    assert cli("predict", photo_run, "b.png", "gone.png").code == 2
    whole = cli("predict", photo_run, first, last)
    assert (whole.code, whole.out) == (0, outcome.out)


def test_an_image_that_the_disk_does_not_give_is_named(cli, photo_run):
    if not Path("/proc/self/mem").exists():
        pytest.skip("needs /proc")
    complaint = cli("predict", photo_run, "/proc/self/mem").complaint
    assert "/proc/self/mem: cannot read image: Input/output error" in complaint


def test_files_follow_the_umask(cli, photos):
    before = os.umask(0o022)
    try:
        small = ("--method", "ce", "--model", "smallcnn", "--image-size", 16, "--device", "cpu", "--epochs", 1)
        assert cli("train", photos, *small, "--out", "run").code == 0
        assert cli("evaluate", "run").code == 0
        assert cli("curvature", "run", "--extremes-only", "--classes", "cat").code == 0
        assert cli("export", "run").code == 0
        assert cli("report", "run", "--out", "run/report.html", "--figures", "run/figures").code == 0
    finally:
        os.umask(before)
    written = [path for path in Path("run").rglob("*") if path.is_file()]
    assert len(written) > 12
    assert {oct(path.stat().st_mode & 0o777) for path in written} == {"0o644"}


@pytest.mark.parametrize(
    ("given", "meant"),
    [("ldam_drw_sam", "ldam+drw+sam"), ("LDAM-DRW", "ldam+drw"), ("ce,sam", "ce+sam"), ("crt_sam", "crt+sam"),
     ("ce drw", "ce+drw"), ("drw_cat", "drw")],
)  # fmt: skip
def test_the_sum_that_is_meant(cli, given, meant):
    assert f"did you mean '{meant}'?" in cli("train", "digits", "--method", given).complaint


def test_main_writes_to_a_stream_that_a_caller_has_put_there() -> None:
    """A notebook's streams, and ``io.StringIO``, are not files of the system; called again nothing is wrapped twice."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for _ in range(2):
            with pytest.raises(SystemExit) as end:
                main(["methods"])
            assert end.value.code == 0
            wrapped = sys.stdout
            assert not isinstance(wrapped._stream, streams.Output)  # type: ignore[union-attr]
    assert "ldam" in said.getvalue()
