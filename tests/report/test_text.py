"""Numbers for people, and names that stay names."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saddlescape.errors import duration
from saddlescape.report.text import clean, json_for_html, label, listed, number, rounded, short

HOSTILE = "<script>alert(1)</script>"


@given(st.text())
def test_a_cleaned_name_is_one_printable_line_that_can_be_written(text: str) -> None:
    shown = clean(text)
    assert shown.encode("utf-8")
    assert shown.strip() == shown != ""
    assert len(shown.splitlines()) == 1


def test_half_surrogates_controls_and_overrides_of_direction_are_marked() -> None:
    assert clean("a\ud800b") == "a\ufffdb"
    assert clean("a\x00b\u202ec") == "a\ufffdb\ufffdc"
    assert clean("  a\n b ") == "a b"
    assert clean("") == "(no name)"
    assert clean("ä 犬 ✓") == "ä 犬 ✓"


@given(st.text(min_size=1), st.integers(5, 40))
def test_short_names_keep_both_ends(text: str, longest: int) -> None:
    shown, whole = short(text, longest), clean(text)
    assert len(shown) <= longest
    assert shown == whole or (shown[0] == whole[0] and shown[-1] == whole[-1] and "…" in shown)


@given(st.text())
def test_plotly_labels_hold_no_markup(text: str) -> None:
    shown = label(text)
    assert "<" not in shown
    assert ">" not in shown
    assert shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == short(text)


def test_an_entity_in_a_name_is_shown_as_it_is() -> None:
    assert label("&lt;b&gt;") == "&amp;lt;b&amp;gt;"


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_in_a_page_says_the_same_and_ends_no_element(value: object) -> None:
    text = json_for_html(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


def test_not_a_number_is_refused_in_a_page() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        json_for_html([math.nan])
    assert rounded(math.nan) is None
    assert rounded(math.inf) is None


@pytest.mark.parametrize(("value", "shown"), [
    (-3.1, "−3.1"), (0, "0"), (0.25, "0.25"), (74.35, "74.3"), (1234.5, "1230"), (3e-5, "3 × 10⁻⁵"),
    (1.5e7, "1.5 × 10⁷"), (None, "n/a"), (math.inf, "∞"), (100.0, "100"), (0.001, "0.001"), (-0.0312, "−0.0312"),
    (10.0, "10"), (200, "200"),
])  # fmt: skip
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown


@given(st.floats(-1e6, 1e6, allow_subnormal=False))
def test_a_number_shown_is_within_half_a_percent(value: float) -> None:
    text = number(value).replace("−", "-")
    if "×" in text:
        mantissa, power = text.split(" × 10")
        exponent = int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")))
        found = float(mantissa) * 10.0**exponent
    else:
        found = float(text)
    assert found == pytest.approx(value, rel=6e-3, abs=1e-300)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_rounding_keeps_four_digits(value: float) -> None:
    assert rounded(value) == pytest.approx(value, rel=5.1e-4)


def test_lists_and_times() -> None:
    assert listed([]) == "none"
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdefgh"), 4) == "a, b, c and 5 more"
    assert [duration(s) for s in (40, 400, 9000, None)] == ["40 s", "7 min", "2.5 h", "n/a"]
