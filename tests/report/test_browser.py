"""The page in a real browser: drawn, turned, switched, on a phone, in the dark, by keyboard, without any request.

Needs playwright and a Chromium (Debian: ``apt-get install chromium``; or ``playwright install chromium``).
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from saddlescape.report.page import write_page

sync_api = pytest.importorskip("playwright.sync_api", reason="the browser test needs the package playwright")
Make = Callable[..., Path]
HOSTILE = "<script>alert(1)</script>"
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-default-apps", "--no-first-run", "--enable-unsafe-swiftshader"]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as engine:
        found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if found is None and not Path(engine.chromium.executable_path).exists():
            pytest.skip("no Chromium on this machine: apt-get install chromium")
        started = engine.chromium.launch(executable_path=found, args=FLAGS)
        yield started
        started.close()


class Sight:
    """A page that is open, with what it complained of and asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        self.page = self.context.new_page()
        self.page.set_default_timeout(120_000)  # surfaces are drawn by software, on a busy machine slowly
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.problems.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.problems.append("a dialog opened"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        return self.page.evaluate(script, *arguments)

    def until(self, script: str, seconds: float = 120) -> Any:
        """Wait for a script to be true; the page's policy forbids playwright's own way, which makes code of text."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.run(script)
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}; {self.problems}")

    def draw(self, key: str = "") -> None:
        """Bring every figure (or one) into sight and wait until it is drawn."""
        for name in [key] if key else self.run("[...document.querySelectorAll('figure.card')].map(f => f.id)"):
            self.run(
                """id => { const figure = document.getElementById(id), fold = figure.querySelector('.fold');
                if (fold) fold.open = true; figure.scrollIntoView({behavior: 'instant', block: 'center'}) }""", name,
            )  # fmt: skip
            self.until(f"Number(document.getElementById('{name}').dataset.drawn || 0) > 0")

    def close(self) -> None:
        assert self.problems == []
        assert [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))] == []
        assert len([url for url in self.requests if url.startswith("file:")]) == 1
        self.context.close()


@pytest.fixture(scope="module")
def report(pair: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(pair, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def sight(browser: Any, report: Path) -> Iterator[Sight]:
    opened = Sight(browser, report)
    yield opened
    opened.close()


def test_every_chart_is_drawn_and_only_when_it_is_seen(sight: Sight) -> None:
    assert sight.run("document.querySelectorAll('figure.card').length") == 11
    assert sight.run("document.querySelectorAll('figure.card[data-drawn]').length") < 11
    sight.draw()
    counts = sight.run(
        """() => Object.fromEntries([...document.querySelectorAll('figure.card')].map(f => [f.id, f.querySelectorAll(
        '.chart .point, .chart .scatterlayer .trace, .chart .heatmaplayer image, .chart canvas').length]))"""
    )
    assert len(counts) == 11
    assert all(count > 0 for count in counts.values()), counts
    drawn = sight.run("document.querySelector('#s1-classes .chart').data.at(-1).y")
    wanted = sight.run(
        "JSON.parse(document.querySelector('#s1-classes script').textContent).variants[0].figure.data.at(-1).y"
    )
    assert drawn == wanted
    assert sight.run("document.documentElement.scrollWidth <= innerWidth")


EYES = """() => { const l = document.querySelector('#s1-surface-eigen .chart')._fullLayout;
    return [l.scene.camera.eye, l.scene2.camera.eye].map(e => [e.x, e.y, e.z].map(v => +v.toFixed(3)).join()) }"""


@pytest.mark.slow
def test_surfaces_turn_together_by_mouse_and_by_keyboard(sight: Sight) -> None:
    sight.draw("s1-surface-eigen")
    before = sight.run(EYES)
    box = sight.page.locator("#s1-surface-eigen .chart").bounding_box()
    assert box
    sight.page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    sight.page.mouse.down()
    sight.page.mouse.move(box["x"] + box["width"] / 4 + 90, box["y"] + box["height"] / 2 + 20, steps=6)
    sight.page.mouse.up()
    sight.until(f"(({EYES})())[0] !== {json.dumps(before[0])} && (({EYES})())[0] === (({EYES})())[1]")
    turned = sight.run(EYES)
    sight.page.locator("#s1-surface-eigen .chart").focus()
    sight.page.keyboard.press("ArrowLeft")
    sight.until(f"(({EYES})())[0] !== {json.dumps(turned[0])} && (({EYES})())[0] === (({EYES})())[1]")


@pytest.mark.slow
def test_classes_are_switched_by_keyboard_and_button(sight: Sight) -> None:
    sight.draw("s1-surface-eigen")
    z = "document.querySelector('#s1-surface-eigen .chart').data[0].z[0][0]"
    text = "document.querySelector('#s1-surface-eigen .description').textContent"
    first, words = sight.run(z), sight.run(text)
    sight.page.locator("#s1-surface-eigen select").focus()
    sight.page.keyboard.press("ArrowUp")
    sight.until(f"{z} !== {first}")
    assert sight.run("document.querySelector('#s1-surface-eigen select').selectedOptions[0].textContent") == "class elk"
    assert sight.run(text) != words
    sight.page.locator("#s1-surface-eigen .step").last.click()
    sight.until(f"{z} === {first}")


@pytest.mark.slow
def test_legend_ranges_and_numbers(sight: Sight) -> None:
    sight.draw("s1-learning")
    sight.page.locator("#s1-learning .legend button").first.click()
    sight.until("document.querySelectorAll('#s1-learning .legend button[aria-pressed=false]').length === 1")
    shown = "document.querySelector('#s1-learning .chart').data.filter(t => t.visible !== false).length"
    others = "document.querySelector('#s1-learning .chart').data.filter(t => t.legendgroup !== 'CE + DRW').length"
    sight.until(f"{shown} === {others}")
    sight.draw("s1-spectra")
    low = "document.querySelector('#s1-spectra .chart')._fullLayout.xaxis.range[1]"
    whole = sight.run(low)
    sight.page.get_by_role("button", name="around zero").first.click()
    sight.until(f"{low} < {whole}")
    sight.page.locator("#s1-learning figcaption summary").click()
    sight.until("document.querySelectorAll('#s1-learning .numbers tr').length > 20")
    row = sight.run("document.querySelector('#s1-learning .numbers tbody tr').textContent")
    assert row.startswith("Head: test accuracyCE + DRW1")


def saved(sight: Sight, selector: str) -> str:
    with sight.page.expect_download() as download:
        sight.page.locator(selector).dispatch_event("click")
    return Path(download.value.path()).read_text(encoding="utf-8")


@pytest.mark.slow
def test_figures_and_tables_are_saved_and_copied(sight: Sight) -> None:
    sight.page.emulate_media(color_scheme="dark")
    sight.draw("s1-learning")
    rows = saved(sight, "#s1-learning [data-save=CSV]").splitlines()
    assert rows[0] == "panel,series,x,y" and rows[1].startswith("Head: test accuracy,CE + DRW,1,")
    drawing = saved(sight, "#s1-learning [data-save=SVG]")
    assert drawing.startswith("<svg") and "Tail: test accuracy" in drawing and "CE + DRW + SAM" in drawing
    assert "rgb(31, 36, 48)" in drawing  # ink of the light page
    assert len(saved(sight, "#s1-surface-eigen [data-save=CSV]").splitlines()) == 1 + 2 * 9 + 2 * 9  # surfaces, slices
    table = saved(sight, "#s1-sec-results [data-save=CSV] >> nth=0").splitlines()
    assert table[0] == "method,seeds,all,head,mid,tail,best epoch, all".replace("best epoch, all", '"best epoch, all"')
    sight.context.grant_permissions(["clipboard-read", "clipboard-write"])
    sight.page.locator("#s1-sec-results [data-save=Copy]").first.click()
    sight.until("document.querySelector('#s1-sec-results [data-save=Copy]').textContent === 'Copied'")
    assert sight.run("navigator.clipboard.readText()").startswith("method\tseeds\tall")


@pytest.mark.slow
def test_what_is_folded_opens_and_counts_appear_at_the_pointer(sight: Sight) -> None:
    for key in ("s1-learning", "s1-extremes"):
        assert not sight.page.locator(f"#{key} .chart").is_visible()
        assert sight.run("id => document.getElementById(id).dataset.drawn", key) is None
        sight.page.locator(f"#{key} .fold > summary").click()
        sight.until(f"document.getElementById('{key}').dataset.drawn === '1'")
        assert sight.page.locator(f"#{key} .chart .main-svg").first.is_visible()
    assert not sight.page.locator(".mistakes img").first.is_visible()
    sight.page.get_by_text("Most confident mistakes").click()
    assert sight.page.locator(".mistakes img").first.is_visible()
    assert sight.page.get_by_text("photo <3>.png").first.is_visible()
    sight.draw("s1-confusion")
    box = sight.page.locator("#s1-confusion .chart .nsewdrag").bounding_box()
    assert box
    sight.page.mouse.move(box["x"] + 10, box["y"] + 10)
    hover = "document.querySelector('#s1-confusion .hoverlayer')?.textContent"
    assert re.fullmatch("cat predicted as cat: [0-9]+ of 40 test images", sight.until(hover))


RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def violations(sight: Sight) -> dict[str, list[str]]:
    """What axe-core finds against its rules: {rule: the elements}.

    Inside the charts' SVGs, whose thousands of parts take it half a minute, it has nothing to say: no roles, and no
    background that it could see. Their words are held against it in ``test_words_in_charts_can_be_read``.
    """
    axe = pytest.importorskip("axe_playwright_python.base", reason="the check needs the package axe-playwright-python")
    sight.run(axe.AXE_SCRIPT)
    found: dict[str, list[str]] = sight.run(
        """async rules => { const looked = { include: [['html']], exclude: [['.chart svg']] };
            const found = await axe.run(looked, { runOnly: rules, resultTypes: ['violations'] });
            if (found.passes.length < 30) throw new Error('axe looked at almost nothing');
            return Object.fromEntries(found.violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 200))])) }""",
        RULES,
    )
    return found


DRAWN = ("s1-classes", "s1-learning", "s1-confusion", "s1-spectra")  # each kind of control, and no slow surface


@pytest.mark.slow
def test_no_rule_of_accessibility_is_broken(sight: Sight) -> None:
    for key in DRAWN:
        sight.draw(key)
    sight.page.locator("#s1-learning .legend button").first.click()  # what is switched off must be readable too
    sight.run("document.querySelectorAll('details').forEach(one => { one.open = !one.closest('figcaption') })")
    sight.page.locator("#s1-learning figcaption summary").click()
    sight.until("document.querySelectorAll('#s1-learning .numbers tr').length > 10")
    background = "getComputedStyle(document.body).backgroundColor"
    seen = set()
    for width, scheme in ((1280, "light"), (1280, "dark"), (375, "dark"), (375, "light")):
        sight.page.set_viewport_size({"width": width, "height": 900})
        sight.page.emulate_media(color_scheme=scheme)
        seen.add((sight.run("innerWidth"), sight.run(background)))
        assert violations(sight) == {}, (width, scheme)
    assert len(seen) == 4


@pytest.mark.slow
def test_a_broken_page_breaks_the_rules(sight: Sight) -> None:
    sight.run(
        """() => { document.querySelector('.subtitle').style.color = '#bbb';
        document.querySelector('select.choice').closest('label').querySelector('.hidden').remove();
        document.documentElement.removeAttribute('lang'); }"""
    )
    assert set(violations(sight)) == {"color-contrast", "select-name", "html-has-lang"}


@pytest.mark.slow
def test_words_in_charts_can_be_read(sight: Sight) -> None:
    """axe does not know what lies behind the words of an SVG: their colours are held against the card's."""
    for key in DRAWN:
        sight.draw(key)
    ink = "document.querySelector('#s1-learning .chart').layout.font.color"
    light = sight.run(ink)
    for scheme in ("light", "dark"):
        sight.page.emulate_media(color_scheme=scheme)
        sight.until(f"({ink} === {json.dumps(light)}) === {json.dumps(scheme == 'light')}")
        card, fills = sight.run(
            """() => [getComputedStyle(document.querySelector('.card')).backgroundColor,
            [...new Set([...document.querySelectorAll('.chart text')].filter(t => t.textContent.trim()
            && !t.closest('.hm')).map(t => getComputedStyle(t).fill))]]"""
        )
        assert len(fills) > 2
        assert {fill: round(contrast(fill, card), 2) for fill in fills if contrast(fill, card) < 4.5} == {}


def contrast(one: str, other: str) -> float:
    """Of two colours ``rgb(r, g, b)``, by WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"[0-9]+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(browser: Any, report: Path, scheme: str) -> None:
    sight = Sight(browser, report, width=375, scheme=scheme)
    sight.draw()
    assert sight.run("[document.documentElement.scrollWidth, innerWidth]") == [375, 375]
    domains = sight.run(
        "[...document.querySelectorAll('#s1-learning .chart')]"
        ".map(c => [c._fullLayout.xaxis.domain, c._fullLayout.xaxis2.domain])"
    )
    assert domains == [[[0, 1], [0, 1]]]  # one panel below the other
    wide = """[...document.querySelectorAll('.wide')].filter(w => !w.closest('details:not([open])')).map(
        w => [w.firstChild.scrollWidth > w.firstChild.clientWidth, !w.lastChild.hidden])"""
    assert sight.run(wide) == [[True, True]]  # a hint below each table that is wider
    sight.page.set_viewport_size({"width": 1280, "height": 900})
    sight.until("document.querySelector('#s1-learning .chart')._fullLayout.xaxis.domain[1] < 0.6")
    sight.page.set_viewport_size({"width": 375, "height": 800})
    sight.until("document.querySelector('#s1-learning .chart')._fullLayout.xaxis.domain[1] === 1")
    sight.until("document.documentElement.scrollWidth <= innerWidth")
    sight.close()


@pytest.mark.slow
def test_the_dark_has_its_own_colours(sight: Sight) -> None:
    sight.draw("s1-learning")
    sight.draw("s1-confusion")
    ink = "document.querySelector('#s1-learning .chart').layout.font.color"
    cold = "document.querySelector('#s1-confusion .chart').data[0].colorscale[0][1]"
    light = sight.run(f"[{ink}, {cold}, getComputedStyle(document.body).backgroundColor]")
    sight.page.emulate_media(color_scheme="dark")
    sight.until(f"{ink} !== {json.dumps(light[0])} && {cold} !== {json.dumps(light[1])}")
    assert sight.run("getComputedStyle(document.body).backgroundColor") != light[2]


@pytest.mark.slow
def test_hostile_names_are_shown_as_text(browser: Any, make: Make, tmp_path: Path) -> None:
    names = [
        HOSTILE,
        '"><img src=x onerror=alert(1)>',
        '<a href="https://example.org">x</a>',
        "<b>b</b>",
        "a\ud800",
        "bee",
    ]
    run = make(tmp_path / "run", classes=names)
    sight = Sight(browser, write_page([run], tmp_path / "report.html", HOSTILE))
    sight.draw()
    ticks = sight.run("[...document.querySelectorAll('#s1-classes [class$=tick] text')].map(t => t.textContent)")
    assert "<b>b</b>" in ticks, ticks
    assert sight.run("document.querySelector('h1').textContent") == HOSTILE
    assert sight.run("document.querySelectorAll('.chart a[href], .chart img, h1 script').length") == 0
    options = sight.run("[...document.querySelectorAll('#s1-surface-eigen option')].map(o => o.textContent)")
    assert f"class {HOSTILE}" in options
    sight.close()


@pytest.mark.slow
def test_a_thousand_classes_stay_usable(browser: Any, make: Make, tmp_path: Path) -> None:
    names = [f"kind {i}" for i in range(1000)]
    runs = [make(tmp_path / "a", classes=names), make(tmp_path / "b", classes=names, method="ce+drw+sam")]
    sight = Sight(browser, write_page(runs, tmp_path / "report.html"))
    sight.draw()
    assert sight.run("document.querySelectorAll('*').length") < 30_000
    assert sight.run("document.documentElement.scrollWidth <= innerWidth")
    sight.page.locator("#s1-spectra .step").first.click()
    sight.until("document.getElementById('s1-spectra').dataset.drawn === '2'")
    sight.close()
