"""The site of documents is built with warnings as errors, asks nothing of the network, and has every public name."""

from __future__ import annotations

import html
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from saddlescape.cli.app import COMMANDS

ROOT = Path(__file__).parents[1]
ROOMS = ("losses", "optim", "schedules", "models", "data", "curvature")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package, reason=f"the package {package} (extra docs) is not installed")
    folder = tmp_path_factory.mktemp("site")
    words = ["-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(folder / "trees")]
    done = subprocess.run(
        [sys.executable, *words, str(ROOT / "docs"), str(folder / "html")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.mark.slow
def test_every_document_is_a_page_that_the_index_leads_to(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    for document in (ROOT / "docs").glob("*.md"):
        assert (site / f"{document.stem}.html").is_file(), document
        if document.stem != "index" and not document.stem.startswith("api_"):  # those hang below api
            assert f'href="{document.stem}.html"' in index, document


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS)
def test_the_reference_has_every_public_name(site: Path, room: str) -> None:
    page = (site / f"api_{room}.html").read_text(encoding="utf-8")
    module = importlib.import_module(f"saddlescape.{room}")
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):  # tables such as LOSSES are told by what reads them
            assert f'id="saddlescape.{room}.{name}"' in page, name


@pytest.mark.slow
def test_the_reference_of_the_command_line_has_every_command_and_flag(site: Path) -> None:
    page = html.unescape(re.sub(r"<[^>]+>", "", (site / "cli.html").read_text(encoding="utf-8")))
    for command in COMMANDS:
        assert f"saddlescape {command}" in page
    assert {"--track-curvature", "--advise-rho", "--budget", "--csv"} <= set(page.split())


@pytest.mark.slow
def test_formulas_are_mathml_and_read_as_they_are(site: Path) -> None:
    page = (site / "which_method.html").read_text(encoding="utf-8")
    assert page.count("<math ") > 5 and r"\tau" not in page and "<mi>τ</mi>" in page


@pytest.mark.slow
def test_no_escape_that_the_reference_makes_is_seen_by_a_reader(site: Path) -> None:
    for page in site.glob("api_*.html"):
        text = html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))
        assert r"\|" not in text, page.name
        assert r"\*" not in text, page.name


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"((?:https?:)?//[^\"]+)\"")
    found = {url for page in site.glob("*.html") for url in loads.findall(page.read_text(encoding="utf-8"))}
    assert found == set()


def test_the_gallery_has_every_example_and_no_example_is_left_unrun() -> None:
    gallery = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for example in (ROOT / "examples").glob("*.py"):
        assert f"../examples/{example.name}" in gallery
        assert f'"{example.stem}"' in tests, f"no test runs {example.name}"


@pytest.mark.slow
def test_the_example_of_curvature_runs() -> None:
    name = "curvature_of_your_model"
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows[1:12]] == [*map(str, range(10)), "all"]
    assert all(float(row[3]) < float(row[5]) for row in rows[1:12])  # lambda_min < lambda_max
