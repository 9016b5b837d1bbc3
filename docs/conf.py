"""The site's settings: ``python -m sphinx -W -b html docs docs/_build``. Nothing is fetched, by builder or reader."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

from saddlescape.cli.app import build as commands

ROOT = Path(__file__).parents[1]
ABOUT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = ABOUT["name"]
author = "the authors of saddlescape"
version = release = ABOUT["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"{project} {version}"
html_math_renderer = "mathml"  # browsers draw it; MathJax would be loaded from another host

default_role = "code"  # docstrings write `name` for code
smartquotes = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def generated(app: Sphinx, page: str, source: list[str]) -> None:
    """Fill in the command line, and a table of public names before the reference of a module."""
    if page == "cli":
        source[0] += commands().generate_docs("markdown", heading_level=1).split("\n", 1)[1]
    if page.startswith("api_"):
        module = importlib.import_module(f"saddlescape.{page.removeprefix('api_')}")
        names = "\n".join(f"   {name}" for name in module.__all__ if callable(getattr(module, name)))
        table = f".. currentmodule:: {module.__name__}\n.. autosummary::\n   :nosignatures:\n\n{names}\n\n"
        source[0] = source[0].replace("```{eval-rst}\n", f"```{{eval-rst}}\n{table}", 1)


def formula(translator: nodes.NodeVisitor, node: nodes.Element) -> None:
    translator.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))  # type: ignore[attr-defined]
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.connect("source-read", generated)
    app.add_html_math_renderer("mathml", inline_renderers=(formula, None), block_renderers=(formula, None))
