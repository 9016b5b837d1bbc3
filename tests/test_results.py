"""What README.md and docs/ say of results is what the committed result files say, number by number."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from saddlescape.report import table as tables

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ROOT / "docs"
SADDLE = (PAGES / "results_saddle.md").read_text(encoding="utf-8")
CIFAR10 = (PAGES / "results_cifar10_lt.md").read_text(encoding="utf-8")


def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def accuracy(name: str, method: str) -> str:
    return tables.number(next(row for row in read(name)["rows"] if row["method"] == method)["last"]["acc"])


def after(words: str, text: str = README) -> str:
    """The text from ``words`` on, as one line."""
    text = " ".join(text.split())
    assert words in text, f"no longer says {words!r}"
    return text[text.index(words) :]


def test_what_is_said_of_digits() -> None:
    first, second = [row["last"]["acc"] for row in read("digits-lt-10-seeds.json")["rows"]][:2]
    best = max(read("digits-lt-10-seeds.json")["rows"], key=lambda row: row["last"]["acc"]["mean"])
    assert best["method"] == "ours" and first["mean"] - second["mean"] < first["std"]
    assert "Our recipe leads, within noise." in (PAGES / "results_digits.md").read_text(encoding="utf-8")
    number = len(read("digits-lt-300-epochs.json")["rows"])
    assert f"{number} long-tailed methods" in README and f"{number} methods on digits" in " ".join(README.split())


def test_what_twenty_epochs_cost_sam() -> None:
    rows = read("cifar10-lt-20-epochs.json")["table"]["rows"]
    gap = [rows[i]["last"]["acc"]["mean"] - rows[i + 1]["last"]["acc"]["mean"] for i in (0, 2, 4)]
    assert f"costs {min(gap):.0f} to {max(gap):.0f} points" in CIFAR10


def test_the_readme_s_table() -> None:
    """Two rows of the accuracy per work, two of 200 epochs; "-" stands for what was not published."""
    short = {(row["work"], row["method"]): row for row in read("accuracy_per_work-cifar10-lt.json")["rows"]
             if row["dataset"] == "cifar10"}  # fmt: skip
    for method in ("ce+drw", "ours"):
        row = short[40, method]
        cells = [str(len(row["seeds"])), *(tables.number(row["last"][metric]) for metric in tables.METRICS)]
        assert f"| `{method}` | 40 | {' | '.join(cells)} | - | - |" in README
    sgd, sam = read("cifar10-lt-200-epochs.json")["results"]
    for work, name, row in ((200, "ce+drw", sgd), (400, "ce+drw+sam", sam)):
        cells = [f"{row[key] + 1e-9:.1f}" for key in ("accuracy", "head", "mid", "tail")]
        published = tables.published("cifar10", 100.0, row["method"])
        cells += [f"{published[metric]['mean']:.1f}" for metric in ("acc", "tail")]
        assert f"| `{name}` | {work} | 1 | {' | '.join(cells)} |" in README
        assert f"| {name}{' (rho 0.5)' if 'sam' in name else ''} | {' | '.join(cells)} |" in CIFAR10
    gain, tail = (sam[key] - sgd[key] for key in ("accuracy", "tail"))
    for page in (SADDLE, CIFAR10):
        assert f"{gain:.1f} points and {tail:.1f} on the tail" in page
    caption = after("*CIFAR-10-LT").split("## ")[0]
    ours, points = short[40, "ours"]["last"], [tables.published("cifar10", 100.0, row["method"]) for row in (sgd, sam)]
    assert f"the work of 40 epochs our recipe reaches {ours['acc']['mean']:.1f} %" in caption
    assert f"the three rarest classes {ours['tail']['mean']:.1f} %" in caption
    for point, work in zip(points, ("with the work of 200", "with SAM and 400"), strict=True):
        assert f"{point['acc']['mean']:.1f} % ({point['tail']['mean']:.1f} %) {work}" in caption


def test_what_is_said_of_speed() -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    (ratios,) = re.findall(r"fastest peer \| 500 images, both runs \| ([\d.]+) and ([\d.]+)", page)
    assert all(float(ratio) > 1.9 for ratio in ratios)
    assert "about half the time that the fastest other package needs" in after("A Hessian product")


def test_what_is_said_of_saddles() -> None:
    runs = read("saddle-cifar10-lt.json")["runs"]
    final = {who: {row["class"]: row for row in runs[who]["final"]} for who in ("sgd", "sam")}

    def span(who: str, group: str, key: str) -> tuple[float, float]:
        values = [abs(row[key]) for row in final[who].values() if row["group"] == group]
        return min(values), max(values)

    sgd_says = after("After SGD's 200 epochs", SADDLE).split("After SAM's")[0]
    sam_says = after("After SAM's the tail's", SADDLE)
    (tail_low, tail_high), (head_low, head_high) = (span("sgd", group, "nonconvexity") for group in ("tail", "head"))
    (tail_flat, tail_deep), (head_flat, head_deep) = (span("sgd", group, "lambda_min") for group in ("tail", "head"))
    assert f"{tail_low:.2f}" == f"{tail_high:.2f}"  # said as one number
    assert f"-{tail_flat:.2f} to -{tail_deep:.1f} (ratio to lambda_max {tail_low:.2f}) in the tail" in sgd_says
    assert f"-{head_flat:.2f} to -{head_deep:.1f} ({head_low:.2f} to {head_high:.2f}) in the head" in sgd_says
    assert max(row["loss"] for row in final["sgd"].values() if row["group"] == "tail") < 0.005
    low, high = span("sam", "tail", "lambda_min")
    assert f"lambda_min is -{low:.1f} to -{high:.1f}" in sam_says
    low, high = span("sam", "tail", "nonconvexity")
    assert f"ratio {low:.2f} to {high:.2f}" in sam_says
    tail = [name for name, row in final["sgd"].items() if row["group"] == "tail"]
    ratios = [final["sam"][name]["loss"] / final["sgd"][name]["loss"] for name in tail]
    assert f"loss is {min(ratios):.0f} to {max(ratios):.0f} times higher" in sam_says
    scores = {who: runs[who]["accuracy"]["per_class"] for who in runs}
    gains = [scores["sam"][label] - scores["sgd"][label] for label in (7, 8, 9)]
    assert f"{min(gains):.0f} to {max(gains):.0f} points better" in sam_says
    equal = read("saddle-cifar10-lt.json")["verdict"]["equal_loss"].values()
    said = (("lambda_min", "a fifth to a quarter", 0.19, 0.28), ("lambda_max", "a ninth to a sixth", 0.11, 0.17))
    for key, words, low, high in said:
        assert all(low <= row[key] <= high for row in equal)
        assert words in after("At equal loss of a class") and words in after("At equal class loss", SADDLE)
    shallow, deep = (min(row["lambda_min"] for row in final[who].values() if row["group"] == "tail") for who in final)
    assert deep < shallow and "tail's curvature is *less* negative than after SAM" in after("Does SAM help")


def test_what_the_page_on_accuracy_per_work_says() -> None:
    page = " ".join((ROOT / "docs" / "results_accuracy_per_work.md").read_text(encoding="utf-8").split())
    content = read("accuracy_per_work-cifar10-lt.json")
    last = {(row["method"], row["work"]): row["last"] for row in content["rows"] if row["dataset"] == "cifar10"}
    ours, peer = last["ours", 40], last["ce+drw", 40]["acc"]["mean"]
    assert f"`ours` has {ours['acc']['mean']:.1f} at 40 units (tail {ours['tail']['mean']:.1f})" in page
    assert f"and {ours['acc']['mean'] - peer:.1f} more than `ce+drw` at 40" in page
    longer = last["ours", 80]
    assert f"{longer['acc']['mean']:.1f} at 80 units (tail {longer['tail']['mean']:.1f})" in page
    known = tables.published("cifar10", 100.0, "ce+drw")["acc"]["mean"]
    assert f"the published {known:.1f} of `ce+drw` at 200 units" in page
    assert all(run["test_openings"] == 1 for run in content["runs"] if run["method"] == "ours")


TABLES = ("digits-lt-10-seeds", "digits-lt-300-epochs", "digits-lt-10-published")


@pytest.mark.parametrize("name", TABLES)
def test_a_table_and_its_page_say_the_same(name: str) -> None:
    assert tables.markdown(read(f"{name}.json")) == (RESULTS / f"{name}.md").read_text(encoding="utf-8")


def test_the_figures_of_frozen_features() -> None:
    text = (ROOT / "docs" / "tutorial_pretrained.md").read_text()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    said = {(line[0], head): cell for line in table[2:] for head, cell in zip(table[0], line, strict=True)}
    files = [RESULTS / f"frozen_features-{name}-lt.json" for name in ("cifar10", "cifar100")]
    rows = [row for path in files for row in json.loads(path.read_text())["results"]]
    for row in rows:
        head = f"`{row['method']}`" + (", `--mirror`" if row["mirror"] else "")
        column = f"{row['dataset'].replace('cifar', 'CIFAR-')}-LT, {row['pixels']} pixels"
        assert said[head, column] == f"{row['accuracy']:.1f} ({row['tail']:.1f})"
    best = next(row for row in rows if (row["pixels"], row["method"], row["mirror"]) == (176, "la", False))
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"{best['accuracy']:.1f} % (tail {best['tail']:.1f} %)" in readme and best["seconds"] < 60
