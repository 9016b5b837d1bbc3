"""What README.md says of results is what the committed result files say, number by number."""

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
TEXT = " ".join(README.split())


def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def accuracy(name: str, method: str) -> str:
    return tables.number(next(row for row in read(name)["rows"] if row["method"] == method)["last"]["acc"])


def after(words: str) -> str:
    """The README from ``words`` on, as one line."""
    assert words in TEXT, f"README.md no longer says {words!r}"
    return TEXT[TEXT.index(words) :]


def test_the_ten_seeds_of_digits() -> None:
    named = {"our own recipe": "ours", "CC-SAM": "cc-sam", "MiSLAS": "mislas", "MiSLAS with SAM": "mislas+sam"}
    said = after("[ten seeds]").split("Plain `ce`")[0]
    found = re.findall(r"(our own recipe|CC-SAM|MiSLAS with SAM|MiSLAS) (\d+\.\d ± \d+\.\d)", said)
    assert len(found) == len(re.findall("±", said)) == 4
    for name, value in found:
        assert value == accuracy("digits-lt-10-seeds.json", named[name]), name
    ranked = [float(value.split()[0]) for _, value in found]
    assert ranked == sorted(ranked, reverse=True)
    assert "ours leads, within noise" in said
    assert f"Plain `ce` has {accuracy('digits-lt-300-epochs.json', 'ce')}" in TEXT


def test_the_table_of_twenty_epochs() -> None:
    rows = read("cifar10-lt-20-epochs.json")["table"]["rows"]
    for row in rows:
        cells = [tables.number(row["last"][metric]) for metric in tables.METRICS]
        cells += [f"{row['published'][metric]['mean']:.1f}" for metric in ("acc", "tail")]
        assert f"| {row['method']} | {' | '.join(cells)} |" in README
    gap = [rows[i]["last"]["acc"]["mean"] - rows[i + 1]["last"]["acc"]["mean"] for i in (0, 2, 4)]
    assert f"costs {min(gap):.0f} to {max(gap):.0f} points" in TEXT


def test_the_two_rows_of_two_hundred_epochs() -> None:
    sgd, sam = read("cifar10-lt-200-epochs.json")["results"]
    for name, row in (("ce+drw", sgd), ("ce+drw+sam (rho 0.5)", sam)):
        cells = [f"{row[key] + 1e-9:.1f}" for key in ("accuracy", "head", "mid", "tail")]
        published = tables.published("cifar10", 100.0, row["method"])
        cells += [f"{published[metric]['mean']:.1f}" for metric in ("acc", "tail")]
        assert f"| {name} | {' | '.join(cells)} |" in README
    gain, tail = sam["accuracy"] - sgd["accuracy"], sam["tail"] - sgd["tail"]
    assert f"{gain:.1f} points and {tail:.1f} on the tail" in TEXT


def test_what_is_said_of_saddles() -> None:
    runs = read("saddle-cifar10-lt.json")["runs"]
    final = {who: {row["class"]: row for row in runs[who]["final"]} for who in ("sgd", "sam")}

    def span(who: str, group: str, key: str) -> tuple[float, float]:
        values = [abs(row[key]) for row in final[who].values() if row["group"] == group]
        return min(values), max(values)

    sgd_says, sam_says = after("After SGD's 200 epochs").split("After SAM's")[0], after("After SAM's the tail's")
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


def test_what_the_page_on_accuracy_per_work_says() -> None:
    page = " ".join((ROOT / "docs" / "results_accuracy_per_work.md").read_text(encoding="utf-8").split())
    content = read("accuracy_per_work-cifar10-lt.json")
    last = {(row["method"], row["work"]): row["last"] for row in content["rows"] if row["dataset"] == "cifar10"}
    ours, peer = last["ours", 40], last["ce+drw", 40]["acc"]["mean"]
    assert f"`ours` has {ours['acc']['mean']:.1f} at 40 units (tail {ours['tail']['mean']:.1f})" in page
    assert f"and {ours['acc']['mean'] - peer:.1f} more than `ce+drw` at 40" in page
    known = tables.published("cifar10", 100.0, "ce+drw")["acc"]["mean"]
    assert f"the published {known:.1f} of `ce+drw` at 200 units" in page
    assert all(run["test_openings"] == 1 for run in content["runs"] if run["method"] == "ours")


TABLES = ("digits-lt-10-seeds", "digits-lt-300-epochs", "digits-lt-10-published")


@pytest.mark.parametrize("name", TABLES)
def test_a_table_and_its_page_say_the_same(name: str) -> None:
    assert tables.markdown(read(f"{name}.json")) == (RESULTS / f"{name}.md").read_text(encoding="utf-8")
