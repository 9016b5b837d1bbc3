"""Where pictures come from: one file per source, and the registry of names."""

from __future__ import annotations

from saddlescape.data.sources.pictures import ArrayPictures, EncodedPictures, FilePictures, Found, Pictures, Request
from saddlescape.data.sources.registry import SOURCES, dataset_names, find

__all__ = [
    "SOURCES",
    "ArrayPictures",
    "EncodedPictures",
    "FilePictures",
    "Found",
    "Pictures",
    "Request",
    "dataset_names",
    "find",
]
