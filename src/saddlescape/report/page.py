"""One self-contained HTML page: works from a file, offline, without any network request.

Everything from data passes Jinja2's escaping or ``text.json_for_html``; plotly.js is in the page once, compressed, and
decompressed before the first figure is drawn; the content policy allows these two scripts by their hashes and nothing
else, so that markup which slipped through could not run.
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

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from saddlescape.disk import write_text
from saddlescape.errors import MissingExtraError, counted, duration
from saddlescape.records.files import make_folder
from saddlescape.records.predictions import TailErrors
from saddlescape.report import plots, table, text
from saddlescape.report.calibration import class_scores
from saddlescape.report.drawing import Figure, Relief
from saddlescape.report.facts import RunFacts, facts
from saddlescape.report.palette import exchange
from saddlescape.report.plotly_figure import figure as plotly_figure
from saddlescape.report.read import Missing, RunData, read, studies
from saddlescape.report.reading import RULES, Sentence, changed, couples, lead, published_epochs, reading
from saddlescape.report.select import both_ends, by_method, detailed, in_common, pairs, ranked, tail_class

MOST_MISTAKES, MOST_SENTENCES, MOST_CLASSES = 18, 8, 60
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


class Sample(NamedTuple):
    """Training images of one class, as ``data:`` URIs."""

    name: str
    about: str
    sources: list[str]


class ClassRow(NamedTuple):
    """A class in the table of precision, recall and F1; ``values``: three a run."""

    name: str
    group: str
    images: int
    values: list[str]


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
    lead: str
    opening: list[Figure]  # on the first screen
    sentences: list[Sentence]
    tiles: list[Tile]
    table: dict[str, Any] | None
    sections: list[Section]
    scored: list[str]  # runs of the table of classes
    classes: list[ClassRow]
    samples: list[Sample]
    mistakes: list[tuple[str, list[Mistake]]]
    facts: RunFacts
    made: str
    notes: list[tuple[str, str]]  # text, runs
    script: str  # the commands that measure what is missing

    @property
    def figures(self) -> list[Figure]:
        return [*self.opening, *(figure for section in self.sections for figure in section.figures)]


def write_page(paths: Sequence[Path], out: Path, title: str = "") -> Path:
    """Write the page of the runs and grids at ``paths`` to ``out``.

    Args:
        paths: Run folders, and folders of runs.
        out: The page, an HTML file.
        title: Its headline; by default "What happened to the tail".

    Returns:
        ``out``.

    Raises:
        InputError: a path that is neither a run nor a grid, or a file that cannot be written.
        MissingExtraError: plotly is not installed.
    """
    page = render(read(paths), title)
    make_folder(out.parent)
    write_text(out, page)
    return out


def render(runs: Sequence[RunData], title: str = "") -> str:
    """The page's HTML.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    engine = plotly_js()
    own = (resources.files(__package__) / "templates" / "page.js").read_text(encoding="utf-8")
    style = (resources.files(__package__) / "templates" / "page.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("saddlescape.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"clean": text.clean, "short": text.short, "tag": tag, "published": table.published_name,
                            "tight": text.tight}
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
    """plotly.js as it comes.

    Raises:
        MissingExtraError: plotly is not installed.
    """
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
        ("curvature", "Curvature", [plots.spectra(shown), plots.extremes(shown), plots.course(shown)]),
        ("surface", "Loss surfaces", plots.surfaces(shown)),
        ("sam", "What SAM does", [plots.gain(shown), plots.escape(shown)]),
    ]
    sections = [
        ("results", "Results", [plots.classes(runs), plots.learning(runs)]),
        *of_single_runs,
    ]
    notes, script = _notes(runs, shown)
    if len(shown) < len(runs) and any(figure for _, _, figures in of_single_runs for figure in figures):
        words = "Spectra, courses, surfaces and predictions are shown of the runs with the most of them."
        notes.append((words, ", ".join(run.name for run in shown)))
    methods = list(dict.fromkeys(run.title for run in runs))
    parts = [f"imbalance {text.number(first.imbalance)}"] if first.result and first.imbalance else []
    parts += [counted(len(runs), "run"), counted(len(methods), "method")]
    scored = [run for run in shown if run.predictions is not None and run.classes == first.classes]

    def keyed(figures: Sequence[Figure | None]) -> list[Figure]:
        return [replace(figure, key=f"{key}-{figure.key}") for figure in figures if figure]

    return Study(
        key=key,
        title=DATASETS.get(first.dataset, text.short(first.dataset or "unknown data", 60)),
        subtitle=f"{', '.join(parts)}: {text.listed(methods, 8)}",
        lead=lead(runs),
        opening=keyed([plots.groups(known) if known else None]),
        sentences=reading(runs),
        tiles=tiles(runs),
        table=known,
        sections=[Section(name, title, keyed(figures)) for name, title, figures in sections if any(figures)],
        scored=[run.name for run in scored],
        classes=class_rows(first, scored),
        samples=samples(next((run for run in shown if run.samples is not None), first)),
        mistakes=[(run.name, mistakes(run, run.tail_errors)) for run in shown if run.tail_errors is not None],
        facts=facts(runs),
        made=_made(first),
        notes=notes,
        script=script,
    )


def tiles(runs: Sequence[RunData]) -> list[Tile]:
    """At most four: tail accuracy and the lowest curvature of a tail class without and with SAM, the best method, the
    work."""
    found: list[Tile] = []
    for plain, sam in couples(runs)[-1:]:
        if change := changed(plain, sam, "tail"):
            seeds = "one seed" if len(plain) == len(sam) == 1 else f"{len(plain)} seeds"
            found.append(Tile("Tail accuracy", f"{change.before['mean']:.1f} → {change.after['mean']:.1f} %",
                              f"{plain[0].title} → with SAM, {seeds}"))  # fmt: skip
    methods = by_method([run for run in in_common(runs) if run.result])
    scores = {title: table.spread([run.result.balanced_accuracy for run in seeds if run.result])
              for title, seeds in methods.items()}  # fmt: skip
    known = {title: score for title, score in scores.items() if score["mean"] is not None}
    if known:
        best = max(known, key=lambda title: known[title]["mean"] or 0.0)
        found.append(Tile("Best mean over classes", f"{table.number(known[best])} %", best))
    measured = [(plain, sam) for plain, sam in pairs(runs) if plain.measured and sam.measured]
    alone = [(run, run) for run in runs if run.measured]
    for one, other in measured[-1:] or alone[-1:]:
        row = tail_class(one)
        after = next((each for each in other.measured if row and each.label == row.label), None)
        if row and after:
            name = f"λmin of class {text.short(row.name or one.class_name(row.label), 20)}"
            value, about = text.number(row.lambda_min, 2), f"{one.title}; below 0: a saddle"
            if other is not one:
                value = f"{value} → {text.number(after.lambda_min, 2)}"
                about = f"{one.title} → with SAM; below 0: a saddle"
            found.append(Tile(name, value, about))
    finished = [run.result for run in runs if run.result]
    seconds = [result.seconds for result in finished if result.seconds is not None]
    if seconds:
        work = [result.work for result in finished if result.work is not None]
        about = f"{counted(len(seconds), 'run')}, {text.short(finished[0].device, 40)}"
        if work:
            ends = " to ".join(dict.fromkeys(text.number(end) for end in (min(work), max(work))))
            about = f"{counted(len(seconds), 'run')} of {ends} epochs of SGD"
        found.append(Tile("Training time", duration(sum(seconds)), about))
    return found


def _notes(runs: Sequence[RunData], shown: Sequence[RunData]) -> tuple[list[tuple[str, str]], str]:
    """(text, runs) once for each text, and the commands as one script. Of finished runs that are shown in the table
    alone, what was not measured is not missing."""
    found: dict[str, list[str]] = {}
    commands: dict[str, None] = {}
    for run in runs:
        empty = [Missing("curvature.json holds no class.")] if run.curvature and not run.measured else []
        for note in [*run.notes, *empty]:
            if note.command and not any(run is one for one in shown):
                continue
            found.setdefault(text.clean(note.text), []).append(run.name)
            if note.command:
                commands[text.clean(note.command)] = None
    return [(note, text.listed(names)) for note, names in found.items()], "\n".join(commands)


def _made(run: RunData) -> str:
    """Where the figures come from, in a line: versions, commit, date."""
    if run.result is None:
        return ""
    commit = f" at commit {text.clean(run.result.commit)[:12]}" if run.result.commit else ""
    when = f", finished {text.clean(run.result.finished)}" if run.result.finished else ""
    return f"saddlescape {text.clean(run.result.version or 'of unknown version')}{commit}{when}"


def class_rows(first: RunData, runs: Sequence[RunData]) -> list[ClassRow]:
    """Precision, recall and F1 of each class with each of ``runs``, the most frequent class first; of very many classes
    those from both ends of the frequencies."""
    if not runs:
        return []
    size = len(first.classes)
    scores = [class_scores(run.predictions, size) for run in runs if run.predictions is not None]
    group = {label: name for name, members in (first.groups or {}).items() for label in members}
    return [
        ClassRow(
            text.short(first.class_name(label)), group.get(label, ""), first.counts[label],
            ["n/a" if value != value else f"{value:.1f}" for one in scores for value in one[label]],
        )
        for label in both_ends(first, range(size), MOST_CLASSES)
    ]  # fmt: skip


def samples(run: RunData) -> list[Sample]:
    """Training images of the classes that were kept, the most frequent class first."""
    if run.samples is None:
        return []
    images, labels = run.samples
    return [
        Sample(text.short(run.class_name(label), 20), counted(run.counts[label], "image"),
               [png(images[i]) for i in np.flatnonzero(labels == label)])
        for label in ranked(run) if (labels == label).any()
    ]  # fmt: skip


def mistakes(run: RunData, found: TailErrors) -> list[Mistake]:
    """The tail images with the most confident wrong predictions."""
    order = sorted(range(len(found.labels)), key=lambda i: -found.confidences[i])[:MOST_MISTAKES]
    return [
        Mistake(
            png(found.images[i]) if found.images[i].size > 3 else "", text.short(run.class_name(int(found.labels[i]))),
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
