"""The page: whole, alone, and with nothing in it that data could run."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from saddlescape.errors import MissingExtraError
from saddlescape.report.page import png, render, write_page
from saddlescape.report.read import read

Make = Callable[..., Path]
HOSTILE = ["<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "<b>bold</b>", "&lt;i&gt;",
           "{{ 7*7 }}", "a\ud800\u202e\x00b"]  # fmt: skip


class Elements(HTMLParser):
    """Elements with their attributes, and what scripts hold."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str, str]] = []
        self._kind: str | None = None
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._kind = str(dict(attrs).get("type", "js")) if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._kind = None

    def handle_data(self, data: str) -> None:
        if self._kind is not None:
            self.scripts.append((self._kind, data))
        else:
            self.text += data


def unpacked(page: str) -> str:
    """The drawing library that lies in a page."""
    (packed,) = [text for kind, text in Elements(page).scripts if kind == "application/gzip"]
    return gzip.decompress(base64.b64decode(packed)).decode()


@pytest.fixture(scope="module")
def page(pair: list[Path]) -> str:
    return render(read(pair), "A title & more")


def test_it_is_whole_and_small(page: str) -> None:
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert len(page.encode()) < 8_000_000
    assert unpacked(page).count("plotly.js v") == 1
    assert "A title &amp; more" in page


def test_nothing_in_it_asks_any_network(page: str) -> None:
    for tag, attributes in Elements(page).found:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/png;base64,")), (tag, name, value)
        assert not [name for name in attributes if name.startswith("on")]


def test_its_policy_allows_its_own_scripts_alone(page: str) -> None:
    elements = Elements(page)
    policy = next(str(a["content"]) for tag, a in elements.found if tag == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    scripts = [text for kind, text in elements.scripts if kind == "js"]
    assert len(scripts) == 1
    assert len(re.findall(r"'sha256-", policy)) == 2
    for text in [*scripts, unpacked(page)]:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_it_shows_every_part(page: str) -> None:
    elements = Elements(page)
    shown = {a.get("id") for tag, a in elements.found if tag == "figure"}
    wanted = ("groups classes learning confusion reliability spectra extremes course surface-eigen gain escape")
    assert shown == {f"s1-{name}" for name in wanted.split()}
    words = ("In plain words", "Most confident mistakes", "photo <3>.png", "How these statements are made", "test CPU",
             "Precision, recall", "2.13.0", "reweight_start", "at commit abc123, finished 2026-12-01")  # fmt: skip
    assert [word for word in words if word not in elements.text] == []
    assert sum(tag == "img" for tag, _ in elements.found) == 10 + 6  # mistakes of both, training images of one
    assert "What is missing" not in elements.text
    folded = re.findall(r'id="(s1-[a-z-]+)">\s*<details class="fold">', page)
    assert folded == ["s1-learning", "s1-extremes"]


def test_every_figure_has_words_a_caption_and_a_place_for_its_table(page: str) -> None:
    elements = Elements(page)
    ids = {a.get("id") for _, a in elements.found}
    charts = [a for tag, a in elements.found if a.get("class") == "chart"]
    assert len(charts) == 11
    for attributes in charts:
        assert attributes["aria-labelledby"] in ids
        assert attributes["aria-describedby"] in ids
        assert attributes.get("role") != "img"
    order = [int(tag[1]) for tag, _ in elements.found if re.fullmatch("h[1-6]", tag)]
    assert order[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(order)), order
    assert len(ids) - 1 == len([a for _, a in elements.found if a.get("id")])  # all different


def test_data_beside_figures_is_json(page: str) -> None:
    found = [json.loads(text) for kind, text in Elements(page).scripts if kind == "application/json"]
    assert len(found) == 12
    variants = [one["variants"] for one in found if "variants" in one]
    assert all(variant["figure"]["data"] and variant["text"] for row in variants for variant in row)


@pytest.mark.parametrize("parts", ["all", "result", "curvature course"])
def test_hostile_names_are_text(make: Make, tmp_path: Path, parts: str) -> None:
    folder = tmp_path / "<img src=x onerror=alert(2)>"
    folder.mkdir()
    page = render(read([make(folder / "</title><script>", classes=HOSTILE, parts=parts)]), "<script>alert(3)</script>")
    elements = Elements(page)
    assert page.encode("utf-8")
    assert [kind for kind, _ in elements.scripts].count("js") == 1
    assert [kind for kind, _ in elements.scripts].count("application/gzip") == 1
    images = [a for tag, a in elements.found if tag == "img"]
    assert all(str(a["src"]).startswith("data:image/png") for a in images)
    assert not [a for _, a in elements.found if any(name.startswith("on") for name in a)]
    assert "alert(1)" not in "".join(text for kind, text in elements.scripts if kind == "js")
    if parts == "all":
        assert "<script>alert(1)</script>" in elements.text  # as text, to be read
        assert "{{ 7*7 }}" in "".join(text for _, text in elements.scripts)
        assert "49" not in [t.strip() for t in elements.text.split()]
    for kind, text in elements.scripts:
        if kind == "application/json":
            for shown in re.findall(r'"(?:name|ticktext|hovertext|text)":"([^"]*)"', text):
                assert "<script" not in json.loads(f'"{shown}"') or '"figure"' in text


def test_plotly_gets_names_without_markup(make: Make, tmp_path: Path) -> None:
    page = render(read([make(tmp_path / "run", classes=HOSTILE)]))
    for kind, text in Elements(page).scripts:
        if kind != "application/json" or '"variants"' not in text:
            continue
        for variant in json.loads(text)["variants"]:
            for shown in strings([variant["figure"][key] for key in ("data", "layout", "narrow", "legend")]):
                assert "<" not in shown.removeprefix("<b>").removesuffix("</b>"), shown


def strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for one in inner for text in strings(one)]


def test_a_run_alone_a_grid_and_several(make: Make, tmp_path: Path) -> None:
    bare = make(tmp_path / "bare", parts="nothing")
    assert "No run is finished" in render(read([bare])) or "not finished" in render(read([bare]))
    for method in ("ce", "ce+sam"):
        for seed in (0, 1):
            make(tmp_path / f"grid/{method}-{seed}", method=method, seed=seed, parts="result", dataset="cifar10")
    page = render(read([tmp_path / "grid", bare]))
    text = Elements(page).text
    assert "71.7 ± 0.1" not in text  # published at imbalance 100, not at 50
    assert "CE + SAM" in text
    assert "cifar10" not in [a.get("id") for _, a in Elements(page).found]
    assert text.count("In plain words") >= 2  # two data sets


def test_published_figures_stand_below_ours(make: Make, tmp_path: Path) -> None:
    path = make(tmp_path / "run", method="ce", dataset="cifar10", parts="result")
    result = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps(result | {"imbalance": 100.0, "accuracy": 70.0}))
    text = Elements(render(read([path]))).text
    assert "71.7 ± 0.1" in text
    assert "−1.7" in text


def test_the_same_runs_give_the_same_page(pair: list[Path], page: str) -> None:
    assert render(read(pair), "A title & more") == page


def test_without_plotly_one_line_says_what_to_install(
    pair: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(MissingExtraError, match=r"saddlescape\[report\]"):
        write_page(pair, tmp_path / "x.html")


def test_images_in_the_page_are_those_of_the_file() -> None:
    import io

    from PIL import Image

    image = np.random.default_rng(0).integers(0, 255, (8, 6, 3), dtype=np.uint8)
    raw = base64.b64decode(png(image).partition(",")[2])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(raw))), image)
    grey = png(image[:, :, :1])
    assert Image.open(io.BytesIO(base64.b64decode(grey.partition(",")[2]))).mode == "L"
    large = Image.open(io.BytesIO(base64.b64decode(png(np.zeros((400, 800, 3), np.uint8)).partition(",")[2])))
    assert large.size == (160, 80)
