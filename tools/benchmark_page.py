"""All benchmarks on one page: what each asks, its command, and every figure of the committed results.

    python tools/benchmark_page.py > page.md

Taken from the docstrings of ``benchmarks/*.py`` and from ``benchmarks/results/*.json`` whenever the documents are
built, so the page says what is there and nothing else. A benchmark without results is named as one.
"""

from __future__ import annotations

import ast
import html
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
KINDS = ("Against the peers", "Beside the roofline", "Growth", "Other figures")
ACCURACIES = ("accuracy", "head", "mid", "tail")
OPENING = (
    "What is measured, how it grows with what it works on (an exponent of 1 is linear), and how near it comes to what "
    "this machine was measured to do. All figures below are read from the committed results when this page is built; "
    "quartiles are those of the rounds."
)


@dataclass(frozen=True)
class Script:
    """``question`` and ``commands`` are the first line and the indented lines of the docstring of ``name``."""

    name: str
    question: str
    commands: list[str]


def scripts(folder: Path) -> list[Script]:
    """The programs in ``folder`` that can be run, by name."""
    found = []
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        described = ast.get_docstring(ast.parse(text)) or ""
        if "__main__" in text and described:
            lines = described.splitlines()
            commands = [line.strip() for line in lines[1:] if line.startswith("    ")]
            found.append(Script(path.stem, lines[0], commands))
    return found


def page(folder: Path = BENCHMARKS) -> str:
    """The page in Markdown, its headings from the second level on."""
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(_files(folder))}
    known = scripts(folder)
    owned: dict[str, list[str]] = {script.name: [] for script in known}
    others = []
    for stem, result in results.items():
        owner = owner_of(stem, result, list(owned))
        (owned[owner] if owner else others).append(stem)
    lines = [OPENING, "", "| benchmark | asks | results |", "| --- | --- | --- |"]
    for script in known:
        links = ", ".join(f"`{stem}.json`" for stem in owned[script.name]) or "none are committed yet"
        lines.append(f"| `{script.name}.py` | {_cell(script.question)} | {links} |")
    for script in known:
        lines += ["", f"## `{script.name}.py`", "", script.question, "", "```text", *script.commands, "```"]
        for stem in owned[script.name]:
            lines += ["", *one_result(folder, stem, results[stem])]
        if not owned[script.name]:
            lines += ["", "No results are committed yet."]
    if others:
        lines += ["", "## Further results"]
        for stem in others:
            lines += ["", *one_result(folder, stem, results[stem])]
    return "\n".join(lines) + "\n"


def owner_of(stem: str, result: Any, names: Sequence[str]) -> str | None:
    """The script that wrote a result: it says so, its command does, or its name begins with the script's."""
    if not isinstance(result, dict):
        return None
    told = result.get("benchmark")
    if told in names:
        return str(told)
    commands = [str(result.get("command", "")), *map(str, result.get("commands") or [])]
    for name in names:
        if any(f"benchmarks/{name}.py" in command for command in commands):
            return name
    fitting = [name for name in names if stem.startswith(name)]
    return max(fitting, key=len, default=None)


def one_result(folder: Path, stem: str, result: Any) -> list[str]:
    """Where a result was taken, and its figures: of rows, of a table beside it, or of finished runs."""
    lines = [f"### `{stem}.json`", ""]
    if not isinstance(result, dict):
        return [*lines, "A file of another form; see it in `benchmarks/results/`."]
    lines += [*_where(result), ""]
    beside = folder / "results" / f"{stem}.md"
    rows = [one for row in result.get("rows") or [] if isinstance(row, dict) and "name" in row for one in figures(row)]
    runs = [run for run in result.get("results") or [] if isinstance(run, dict) and "method" in run]
    if rows:
        lines += _rows(stem, rows)
    elif beside.is_file():
        lines += beside.read_text(encoding="utf-8").strip().splitlines()
    elif runs:
        lines += _runs(runs)
    else:
        lines += ["Its figures have a form of their own; see the file in `benchmarks/results/`."]
    if result.get("missing"):
        lines += ["", f"Peers that were not installed: {', '.join(map(str, result['missing']))}."]
    return lines


def figures(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The row, or, where it holds several figures of one contender, each of them as a row; ratios have quartiles."""
    if "value" in row:
        return [row]
    found: list[Mapping[str, Any]] = []
    for key, value in row.items():
        words = key.replace("_", " ")
        if isinstance(value, dict) and "value" in value:
            found.append({"name": f"{row['name']} {words}", "unit": "times", **value})
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append({"name": f"{words}, {row['name']}", "value": value})
    return found


def kind(row: Mapping[str, Any]) -> str:
    """Which of ``KINDS`` a figure is."""
    name, unit = str(row["name"]), row.get("unit")
    if "growth" in name or unit == "exponent":
        return "Growth"
    if name.startswith("share of"):
        return "Beside the roofline"
    return "Against the peers" if " over " in name and unit in (None, "times") else "Other figures"


def number(value: Any) -> str:
    """Four digits at most; words as they are; a dash for none."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _cell(str(value))
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _rows(stem: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines: list[str] = []
    for title in KINDS:
        mine = [row for row in rows if kind(row) == title]
        if not mine:
            continue
        lines += ["", f"**{title}**", ""]
        if title == "Against the peers" and any(_positive(row["value"]) for row in mine):
            lines += [*bars(f"{stem}: times as fast as the peer", mine), ""]
        goals = any(row.get("floor") is not None or row.get("goal") is not None for row in mine)
        heads = ["figure", "value", "quartiles or range", "unit", *(["floor", "goal"] if goals else [])]
        lines += ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
        for row in mine:
            spread = row.get("quartiles") or row.get("range")
            cells = [
                _cell(str(row["name"])), number(row["value"]),
                "-" if not spread else f"{number(spread[0])} to {number(spread[1])}", _cell(str(row.get("unit") or "")),
            ]  # fmt: skip
            cells += [number(row.get("floor")), number(row.get("goal"))] if goals else []
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def bars(title: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A picture of ratios, one bar each on a logarithmic scale, as a block of HTML; a line at 1, a tick at the goal."""
    shown = [row for row in rows if _positive(row["value"])]
    values = [float(row["value"]) for row in shown]
    goals = [float(row["goal"]) for row in shown if _positive(row.get("goal"))]
    low, high = math.log(min([*values, *goals, 0.8])), math.log(max([*values, *goals, 2.0]))
    left, width, line = 330, 330, 24

    def x(value: float) -> float:
        return left + width * (math.log(value) - low) / (high - low)

    height = line * len(shown) + 6
    one = x(1.0)
    out = [
        f'<svg role="img" aria-label="{html.escape(title)}" viewBox="0 0 740 {height}" width="100%" '
        'style="max-width:740px;font:12px sans-serif" fill="currentColor">'
    ]
    for place, row in enumerate(shown):
        top, value = place * line + 4, float(row["value"])
        start, end = sorted((one, x(value)))
        name = str(row["name"])
        name = name if len(name) <= 52 else name[:51] + "…"
        out += [
            f'<text x="{left - 8}" y="{top + 13}" text-anchor="end">{html.escape(name)}</text>',
            f'<rect x="{start:.1f}" y="{top + 2}" width="{max(end - start, 1):.1f}" height="14" fill="#3b76af"/>',
            f'<text x="{max(end, one) + 6:.1f}" y="{top + 13}">{number(value)}</text>',
        ]
        if _positive(row.get("goal")):
            at = x(float(row["goal"]))
            out.append(f'<path d="M{at:.1f} {top}v18" stroke="#c8553d" stroke-width="2"><title>goal</title></path>')
    out += [f'<path d="M{one:.1f} 0V{height}" stroke="currentColor" stroke-dasharray="3 3"/>', "</svg>"]
    return ["```{raw} html", *out, "```"]


def _runs(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    heads = ["method", "seed", "epochs", *ACCURACIES]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for run in runs:
        cells = [_cell(str(run["method"])), number(run.get("seed")), number(run.get("epochs"))]
        lines.append("| " + " | ".join([*cells, *(number(run.get(name)) for name in ACCURACIES)]) + " |")
    return lines


def _where(result: Mapping[str, Any]) -> list[str]:
    """The machine, versions, load and command, one sentence each where they are told."""
    taken = result.get("environment") or {}
    told = [str(result[name]) for name in ("what", "note") if result.get(name)]
    machine = taken.get("device") or result.get("cpu")
    if machine:
        threads = f", {taken['threads']} threads" if "threads" in taken else ""
        told.append(f"On {machine}{threads}.")
    versions = [f"{name} {taken[name]}" for name in ("torch", "saddlescape") if name in taken]
    commit = taken.get("commit") or result.get("commit")
    if commit:
        versions.append(f"commit {str(commit)[:10]}{' with changes' if '+' in str(commit) else ''}")
    if versions:
        told.append(f"With {', '.join(versions)}{', on ' + taken['date'][:10] if 'date' in taken else ''}.")
    load = taken.get("load_average")
    if load:
        told.append(f"Load average at the start {load[0]:g}{': a busy machine' if load[0] > 0.5 else ''}.")
    lines = [_cell(" ".join(text if text.endswith(".") else text + "." for text in told))]
    commands = result.get("commands") or [taken.get("command") or result.get("command")]
    commands = [str(command) for command in commands if command]
    return [*lines, "", "```text", *commands, "```"] if commands else lines


def _files(folder: Path) -> list[Path]:
    return list((folder / "results").glob("*.json"))


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf


def _cell(text: str) -> str:
    """Text that Markdown shows as it is."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


if __name__ == "__main__":
    sys.stdout.write(page())
