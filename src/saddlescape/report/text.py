"""Words and numbers as the page shows them, and names from data without markup.

Class names, paths and messages come from data that anyone may have written. Jinja2 escapes them in HTML and
:func:`json_for_html` in scripts; plotly reads a little HTML in its own labels, hence :func:`label`.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from typing import Any

LONGEST = 32  # characters of a name on an axis
INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # controls, overrides of direction, half pairs, line ends


def clean(text: object) -> str:
    """Any value as one printable line: no control characters, no half surrogates, no overrides of direction."""
    shown = "".join(
        " " if c in "\n\r\t" else "\ufffd" if unicodedata.category(c) in INVISIBLE else c for c in str(text)
    )
    return " ".join(shown.split()) or "(no name)"


def short(text: object, longest: int = LONGEST) -> str:
    """``clean``, with the middle of a long name left out."""
    shown = clean(text)
    if len(shown) <= longest:
        return shown
    front = (longest - 1) * 2 // 3
    return f"{shown[:front]}…{shown[len(shown) - (longest - 1 - front) :]}"


def label(text: object, longest: int = LONGEST) -> str:
    """A name for plotly, which reads ``<b>``, ``<a href>``, ``<br>`` and ``&lt;`` in its labels: shown as it is."""
    return short(text, longest).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def json_for_html(value: Any) -> str:
    """JSON that may stand inside ``<script>``: nothing in it ends the element or begins a comment; no NaN."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def rounded(value: float | None, digits: int = 4) -> float | int | None:
    """``digits`` significant digits, so that a page stays small; None for what is not finite."""
    if value is None or not math.isfinite(value):
        return None
    found = float(f"{value:.{digits}g}")
    if not math.isfinite(found):  # rounded up beyond the largest number there is
        return value
    return int(found) if found == int(found) and abs(found) < 1e15 else found


def number(value: float | None, digits: int = 3) -> str:
    """``-3.1`` -> "−3.1"; large and tiny ones in powers of ten; "n/a" for None."""
    if value is None:
        return "n/a"
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "n/a"
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa} × 10{raised(int(exponent))}".replace("-", "−")
    places = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:.{places}f}"
    if float(text) and abs(value) >= 10**digits:
        text = f"{float(f'{value:.{digits}g}'):.0f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "−")


def raised(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def percent(value: float | None, digits: int = 1) -> str:
    return "n/a" if value is None else f"{value:.{digits}f} %".replace("-", "−")


def tight(text: str) -> str:
    """``text`` without line breaks before "%", around "±", within "|λmin/λmax|" and after "class"."""
    text = text.replace("|λ", "|\u2060λ")
    return re.sub(r" (?=[%±])|(?<=[±×]) |(?<=\bclass) (?=\d)", "\u00a0", text)


def points(value: float) -> str:
    """A difference of percentages, with its sign."""
    return f"{value:+.1f} points".replace("-", "−")


def listed(items: list[str], most: int = 6) -> str:
    """ "a, b and c"; with more than ``most``, the first and how many more."""
    if len(items) > most:
        return f"{', '.join(items[: most - 1])} and {len(items) - most + 1} more"
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else "none"
