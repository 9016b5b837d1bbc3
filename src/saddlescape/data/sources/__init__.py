"""Where images come from: one file per source, and the registry of names."""

from __future__ import annotations

from saddlescape.data.sources.found import Found, Request
from saddlescape.data.sources.registry import SOURCES, dataset_names, find

__all__ = ["SOURCES", "Found", "Request", "dataset_names", "find"]
