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
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from saddlescape.disk import write_text
from saddlescape.errors import MissingExtraError
from saddlescape.records.files import make_folder
from saddlescape.records.predictions import TailErrors
from saddlescape.report import pictures, table, text
from saddlescape.report.charts import figure
from saddlescape.report.facts import Facts, facts
from saddlescape.report.palette import exchange
from saddlescape.report.panels import Plate, Relief
from saddlescape.report.read import RunData, read, studies
from saddlescape.report.reading import RULES, Sentence, published_epochs, reading
from saddlescape.report.select import detailed, in_common, measured, pairs, tail_class

MOST_MISTAKES, MOST_SENTENCES = 18, 9
DATASETS = {**table.DATASETS, "digits": "Digits-LT"}


@dataclass(frozen=True)
class Tile:
    """A figure told at a glance."""

    what: str
    value: str
    about: str


@dataclass(frozen=True)
class Mistake:
    source: str  # data: URI of a PNG
    true: str
    taken: str
    sure: str
    name: str


@dataclass(frozen=True)
class Section:
    key: str
    title: str
    plates: list[Plate]


@dataclass
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
    notes: list[tuple[str, str, str]] = field(default_factory=list)  # text, runs, command


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
        data=plate_data,
        height=plate_height,
        colours=Markup(text.json_for_html(exchange())),
        style=Markup(style),
        engine=Markup(packed(engine)),
        script=Markup(own),
        policy=policy(engine, own),
    )


def policy(*scripts: str) -> str:
    """The content policy: these scripts, inline styles, pictures in the page itself; no request of any kind."""
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
    """What is shown of runs on the same data."""
    shown = detailed(runs)
    results = [run.raw_result for run in runs if run.raw_result is not None]
    first = next((run for run in runs if run.result), runs[0])
    known = table.build(results, published_epochs(first.dataset)) if results else None
    sections: list[tuple[str, str, Sequence[Plate | None]]] = [
        ("results", "Results", [pictures.groups(known) if known else None, pictures.classes(runs)]),
        ("training", "Training", [pictures.learning(runs)]),
        ("answers", "Answers", [pictures.confusion(shown), pictures.reliability(shown)]),
        ("curvature", "Curvature", [pictures.side_by_side(shown), pictures.by_class(shown), pictures.extremes(shown),
                                    pictures.course(shown)]),
        ("surface", "Loss surfaces", [*pictures.surfaces(shown)]),
        ("sam", "What SAM does", [pictures.gain(shown), pictures.escape(shown)]),
    ]  # fmt: skip
    present = [
        Section(name, title, [_own(plate, key) for plate in plates if plate]) for name, title, plates in sections
    ]
    notes = _notes(runs)
    if len(shown) < len(runs) and any(len(section.plates) for section in present[2:]):
        notes.append(("Single parts (spectra, courses, surfaces, answers) are shown of the runs with the most of them.",
                      ", ".join(run.name for run in shown), ""))  # fmt: skip
    imbalance = first.result.imbalance if first.result else None
    name = DATASETS.get(first.dataset, text.short(first.dataset or "unknown data", 60))
    return Study(
        key=key,
        title=name,
        subtitle=_subtitle(runs, imbalance),
        sentences=reading(runs),
        tiles=tiles(runs),
        table=known,
        sections=[section for section in present if section.plates],
        mistakes=[(run.name, mistakes(run, run.tail_errors)) for run in shown if run.tail_errors is not None],
        facts=facts(runs),
        notes=notes,
    )


def _own(plate: Plate, key: str) -> Plate:
    return Plate(
        f"{key}-{plate.key}", plate.title, plate.caption, plate.variants, plate.choice, plate.start, plate.notes
    )


def _subtitle(runs: Sequence[RunData], imbalance: float | None) -> str:
    methods = list(dict.fromkeys(run.title for run in runs))
    parts = [text.count(len(runs), "run"), text.count(len(methods), "method")]
    if imbalance:
        parts.insert(0, f"imbalance {text.number(imbalance)}")
    return ", ".join(parts) + f": {text.listed(methods, 8)}"


def tiles(runs: Sequence[RunData]) -> list[Tile]:
    """At most four figures: tail accuracy without and with SAM, the deepest saddle, and the work."""
    found: list[Tile] = []
    couples = pairs(runs)
    done = in_common(runs)
    if couples:
        plain, sam = couples[-1]
        assert plain.result and sam.result
        mine = [
            run.result.tail for run in done if run.title == plain.title and run.result and run.result.tail is not None
        ]
        theirs = [
            run.result.tail for run in done if run.title == sam.title and run.result and run.result.tail is not None
        ]
        if mine and theirs:
            before, after = sum(mine) / len(mine), sum(theirs) / len(theirs)
            found.append(Tile("Tail accuracy", f"{before:.1f} → {after:.1f} %", f"{plain.title} → with SAM"))
    best = max(done, key=lambda run: run.result.balanced_accuracy or 0.0 if run.result else 0.0, default=None)
    if best is not None and best.result is not None and best.result.balanced_accuracy is not None:
        found.append(Tile("Best mean over classes", text.percent(best.result.balanced_accuracy), best.name))
    saddles = [(run, row) for run in runs if (row := tail_class(run)) is not None and row.negative_curvature_proved]
    if saddles:
        run, row = max(saddles, key=lambda pair: pair[1].nonconvexity or 0.0)
        share = text.percent(100 * row.nonconvexity) if row.nonconvexity is not None else "all"
        found.append(Tile("Most of a saddle in the tail", f"{share} of λmax",
                          f"λmin {text.number(row.lambda_min)}, class "
                          f"{text.short(run.class_name(row.label or 0))}, {run.title}"))  # fmt: skip
    done = [run for run in runs if run.result]
    seconds = [run.result.seconds for run in done if run.result and run.result.seconds is not None]
    if seconds and done[0].result:
        found.append(Tile("Training time", text.duration(sum(seconds)),
                          f"{text.count(len(seconds), 'run')}, {text.short(done[0].result.device, 40)}"))  # fmt: skip
    return found


def _notes(runs: Sequence[RunData]) -> list[tuple[str, str, str]]:
    """(text, runs, command of the first), once for each text."""
    found: dict[str, list[tuple[str, str]]] = {}
    for run in runs:
        for note in run.notes:
            found.setdefault(text.clean(note.text), []).append(
                (run.name, text.clean(note.command) if note.command else "")
            )
        if not measured(run) and run.curvature is not None:
            found.setdefault("curvature.json holds no class.", []).append((run.name, ""))
    return [(told, text.listed([name for name, _ in rows]), rows[0][1]) for told, rows in found.items()]


def mistakes(run: RunData, found: TailErrors) -> list[Mistake]:
    """The tail images that are wrong most confidently, as pictures in the page."""
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
    """uint8 [H, W, 1 or 3] -> ``data:`` URI; large pictures are made at most 160 pixels wide."""
    from PIL import Image

    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    picture.thumbnail((160, 160))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def cell(row: dict[str, Any], metric: str) -> tuple[str, str, str]:
    """(ours ± spread, published ± spread, difference) of a row of the table; "" where nothing is known."""
    ours, known = table.number(row["last"][metric]), row["published"].get(metric)
    difference = row["difference"][metric]
    beside = "" if difference is None else f"{difference:+.1f}".replace("-", "−")
    return ours, "" if known is None else table.number(known), beside


def plate_data(plate: Plate) -> Markup:
    """The JSON that stands beside a plate."""
    variants = [
        {"name": text.short(name, 60), "text": drawing.text, "figure": figure(drawing)}
        for name, drawing in plate.variants
    ]
    return Markup(text.json_for_html({"start": plate.start, "variants": variants}))


def plate_height(plate: Plate) -> int:
    """Pixels of the drawing that is shown first, kept free before it is drawn."""
    found: int = figure(plate.variants[plate.start][1])["layout"]["height"]
    return found


def tag(plate: Plate) -> str:
    return "surface" if isinstance(plate.variants[0][1], Relief) else "panels"
