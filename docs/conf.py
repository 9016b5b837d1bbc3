"""The site's settings: ``python -m sphinx -W -b html docs docs/_build``. Nothing is fetched while it is built."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ABOUT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = ABOUT["name"]
author = "the authors of saddlescape"
version = release = ABOUT["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"{project} {version}"

default_role = "code"  # docstrings write `name` for code
smartquotes = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

LITERAL = re.compile(r"(``.+?``)")


def plain_words(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are written to be read in a terminal; mend what reStructuredText would take amiss."""
    mended: list[str] = []
    literal: int | None = None  # the margin of the paragraph whose "::" began a literal block, which stays as it is
    for line in lines:
        margin = len(line) - len(line.lstrip())
        if literal is not None and (not line.strip() or margin > literal):
            mended.append(line)
            continue
        literal = margin if line.rstrip().endswith("::") else None
        # A list right under the line that announces it would be one paragraph with that line.
        if mended and mended[-1].rstrip().endswith(":") and re.match(r"\s*(1\.|-) ", line):
            mended.append("")
        parts = LITERAL.split(line)
        # Absolute values are no substitutions, and the stars of **options no bold.
        parts[::2] = [re.sub(r"\*\*(?=\w+[,)])", r"\\*\\*", part.replace("|", r"\|")) for part in parts[::2]]
        mended.append("".join(parts))
    lines[:] = mended


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", plain_words, priority=400)  # napoleon, at 500, reads what comes out
