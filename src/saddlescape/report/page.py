"""One self-contained HTML page: works from a file, offline, and may ask nothing of any network.

Everything from data passes Jinja2's escaping or ``text.json_for_html``; plotly.js lies in the page once, packed, and is
unpacked when a figure comes near; the page's own content policy allows these two scripts by their hashes and nothing
else, so that even what slipped through could not run.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from saddlescape.disk import write_text
from saddlescape.errors import MissingExtraError, counted, duration
from saddlescape.records.files import make_folder
from saddlescape.records.predictions import TailErrors
from saddlescape.report import plots, table, text
from saddlescape.report.drawing import Figure, Relief
from saddlescape.report.facts import Facts, facts
from saddlescape.report.palette import exchange
from saddlescape.report.plotly_figure import figure as plotly_figure
from saddlescape.report.read import RunData, read, studies
from saddlescape.report.reading import RULES, Sentence, published_epochs, reading
from saddlescape.report.select import detailed, in_common, pairs, ratio, tail_class

MOST_MISTAKES, MOST_SENTENCES = 18, 9
DATASETS = {**table.DATASETS, "digits": "Digits-LT"}


class Tile(NamedTuple):
    """A number at a glance."""

    what: str
    value: str
    about: str


class Mistake(NamedTuple):
    source: str  # data: URI of a PNG
    true: str
    taken: str
    sure: str
    name: str


class Section(NamedTuple):
    key: str
    title: str
    figures: list[Figure]


@dataclass(frozen=True)
class Study:
    """All runs on the same data, as the page shows them."""

    key: str
    title: str
    subtitle: str
    sentences: list[Sentence]
    tiles: list[Tile]
    table: dict[str, Any] | None
    sections: list[Section]
    mistakes: list[tuple[str, list[Mistake]]]
    facts: Facts
    notes: list[tuple[str, str, str]]  # text, runs, command


def write_page(paths: Sequence[Path], out: Path, title: str = "") -> Path:
    """Write the page of the runs and grids at ``paths`` to ``out``.

    Raises:
        InputError: a path that is neither a run nor a grid, or a file that cannot be written.
        MissingExtraError: plotly is not installed.
    """
    page = render(read(paths), title)
    make_folder(out.parent)
    write_text(out, page)
    return out


def render(runs: Sequence[RunData], title: str = "") -> str:
    """The page's HTML. Raises MissingExtraError where plotly is not installed."""
    engine = plotly_js()
    own = (resources.files(__package__) / "templates" / "page.js").read_text(encoding="utf-8")
    style = (resources.files(__package__) / "templates" / "page.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("saddlescape.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"clean": text.clean, "short": text.short, "tag": tag, "published": table.published_name}
    found = [study(group, f"s{index + 1}") for index, group in enumerate(studies(runs))]
    return environment.get_template("page.html.j2").render(
        title=text.clean(title) if title else "What happened to the tail",
        studies=found,
        rules=RULES,
        most_sentences=MOST_SENTENCES,
        cell=cell,
        number=table.number,
        mark=table.mark,
        caption=table.caption,
        data=figure_data,
        colours=Markup(text.json_for_html(exchange())),
        style=Markup(style),
        engine=Markup(packed(engine)),
        script=Markup(own),
        policy=policy(engine, own),
    )


def policy(*scripts: str) -> str:
    """The content policy: these scripts, inline styles, images in the page itself; no request of any kind."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def plotly_js() -> str:
    """plotly.js as it comes. Raises MissingExtraError."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingExtraError("the report", "report", "plotly") from None
    return str(get_plotlyjs())


@lru_cache(maxsize=1)
def packed(script: str) -> str:
    """gzip, in base64: two fifths of the size, and nothing in it that a browser could read as markup."""
    return base64.b64encode(gzip.compress(script.encode(), 9, mtime=0)).decode()


def study(runs: Sequence[RunData], key: str) -> Study:
    """What is shown of runs on the same data; ``key`` begins the names of its elements."""
    shown = detailed(runs)
    results = [run.raw_result for run in runs if run.raw_result is not None]
    first = next((run for run in runs if run.result), runs[0])
    known = table.build(results, published_epochs(first.dataset)) if results else None
    of_single_runs: list[tuple[str, str, Sequence[Figure | None]]] = [
        ("answers", "Predictions", [plots.confusion(shown), plots.reliability(shown)]),
        ("curvature", "Curvature", [plots.side_by_side(shown), plots.by_class(shown), plots.extremes(shown),
                                    plots.course(shown)]),
        ("surface", "Loss surfaces", plots.surfaces(shown)),
        ("sam", "What SAM does", [plots.gain(shown), plots.escape(shown)]),
    ]  # fmt: skip
    sections = [
        ("results", "Results", [plots.groups(known) if known else None, plots.classes(runs)]),
        ("training", "Training", [plots.learning(runs)]),
        *of_single_runs,
    ]
    notes = _notes(runs)
    if len(shown) < len(runs) and any(figure for _, _, figures in of_single_runs for figure in figures):
        notes.append(("Spectra, courses, surfaces and predictions are shown of the runs with the most of them.",
                      ", ".join(run.name for run in shown), ""))  # fmt: skip
    methods = list(dict.fromkeys(run.title for run in runs))
    parts = [f"imbalance {text.number(first.imbalance)}"] if first.result and first.imbalance else []
    parts += [counted(len(runs), "run"), counted(len(methods), "method")]
    return Study(
        key=key,
        title=DATASETS.get(first.dataset, text.short(first.dataset or "unknown data", 60)),
        subtitle=f"{', '.join(parts)}: {text.listed(methods, 8)}",
        sentences=reading(runs),
        tiles=tiles(runs),
        table=known,
        sections=[
            Section(name, title, [replace(figure, key=f"{key}-{figure.key}") for figure in figures if figure])
            for name, title, figures in sections
            if any(figures)
        ],
        mistakes=[(run.name, mistakes(run, run.tail_errors)) for run in shown if run.tail_errors is not None],
        facts=facts(runs),
        notes=notes,
    )


def tiles(runs: Sequence[RunData]) -> list[Tile]:
    """At most four figures: tail accuracy without and with SAM, the deepest saddle, and the work."""
    found: list[Tile] = []
    done = in_common(runs)

    def mean_tail(title: str) -> float | None:
        return table.spread([run.result.tail for run in done if run.result and run.title == title])["mean"]

    for plain, sam in pairs(runs)[-1:]:
        before, after = mean_tail(plain.title), mean_tail(sam.title)
        if before is not None and after is not None:
            found.append(Tile("Tail accuracy", f"{before:.1f} → {after:.1f} %", f"{plain.title} → with SAM"))
    scores = [(run.result.balanced_accuracy, run.name) for run in done if run.result]
    best = max((pair for pair in scores if pair[0] is not None), key=lambda pair: pair[0] or 0.0, default=None)
    if best:
        found.append(Tile("Best mean over classes", text.percent(best[0]), best[1]))
    saddles = [(run, row) for run in runs if (row := tail_class(run)) is not None and row.negative_curvature_proved]
    if saddles:
        run, row = max(saddles, key=lambda pair: pair[1].nonconvexity or 0.0)
        share = "all" if row.nonconvexity is None else text.percent(ratio(row))
        found.append(Tile("Most of a saddle in the tail", f"{share} of λmax",
                          f"λmin {text.number(row.lambda_min)}, class "
                          f"{text.short(run.class_name(row.label))}, {run.title}"))  # fmt: skip
    finished = [run.result for run in runs if run.result]
    seconds = [result.seconds for result in finished if result.seconds is not None]
    if seconds:
        found.append(Tile("Training time", duration(sum(seconds)),
                          f"{counted(len(seconds), 'run')}, {text.short(finished[0].device, 40)}"))  # fmt: skip
    return found


def _notes(runs: Sequence[RunData]) -> list[tuple[str, str, str]]:
    """(text, runs, command of the first), once for each text."""
    found: dict[str, list[tuple[str, str]]] = {}
    for run in runs:
        empty = [("curvature.json holds no class.", "")] if run.curvature and not run.measured else []
        for note, command in [*run.notes, *empty]:
            found.setdefault(text.clean(note), []).append((run.name, text.clean(command) if command else ""))
    return [(note, text.listed([name for name, _ in rows]), rows[0][1]) for note, rows in found.items()]


def mistakes(run: RunData, found: TailErrors) -> list[Mistake]:
    """The tail images that are wrong most confidently, as images in the page."""
    order = sorted(range(len(found.labels)), key=lambda i: -found.confidences[i])[:MOST_MISTAKES]
    return [
        Mistake(
            png(found.images[i]), text.short(run.class_name(int(found.labels[i]))),
            text.short(run.class_name(int(found.predictions[i]))), text.percent(100 * float(found.confidences[i]), 0),
            text.short(found.names[i], 80) if found.names else "",
        )
        for i in order
    ]  # fmt: skip


def png(image: Any) -> str:
    """uint8 [H, W, 1 or 3] -> ``data:`` URI; large images are made at most 160 pixels wide."""
    from PIL import Image

    small = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    small.thumbnail((160, 160))
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def cell(row: dict[str, Any], metric: str) -> tuple[str, str, str]:
    """(ours ± spread, published ± spread, difference) of a row of the table; "" where nothing is known."""
    ours, known = table.number(row["last"][metric]), row["published"].get(metric)
    difference = row["difference"][metric]
    beside = "" if difference is None else f"{difference:+.1f}".replace("-", "−")
    return ours, "" if known is None else table.number(known), beside


def figure_data(figure: Figure) -> tuple[Markup, int]:
    """The JSON that stands beside a figure, and the height in pixels that is kept free until it is drawn."""
    variants = [
        {"name": text.short(name, 60), "text": drawing.text, "figure": plotly_figure(drawing)}
        for name, drawing in figure.variants
    ]
    height: int = plotly_figure(figure.variants[figure.start][1])["layout"]["height"]
    return Markup(text.json_for_html({"start": figure.start, "variants": variants})), height


def tag(figure: Figure) -> str:
    return "surface" if isinstance(figure.variants[0][1], Relief) else "panels"
