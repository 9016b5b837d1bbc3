"""What we learn from: split profiles, sources, one image reader, augmentation, samplers, loaders."""

from __future__ import annotations

from saddlescape.counts import class_groups
from saddlescape.data.augment import Augment, build_augment
from saddlescape.data.check import Report, check
from saddlescape.data.draw import class_counts, longtail_indices
from saddlescape.data.images import draw_hash
from saddlescape.data.load import load
from saddlescape.data.loader import build_loader
from saddlescape.data.reader import pixels, read_image
from saddlescape.data.resident import ResidentLoader
from saddlescape.data.samplers import build_sampler
from saddlescape.data.sources.registry import dataset_names
from saddlescape.data.split import hold_out, stratified_split
from saddlescape.data.stream import StreamLoader
from saddlescape.data.types import ArraySplit, Batch, Dataset, FileSplit, Preprocess, Split

__all__ = [
    "ArraySplit",
    "Augment",
    "Batch",
    "Dataset",
    "FileSplit",
    "Preprocess",
    "Report",
    "ResidentLoader",
    "Split",
    "StreamLoader",
    "build_augment",
    "build_loader",
    "build_sampler",
    "check",
    "class_counts",
    "class_groups",
    "dataset_names",
    "draw_hash",
    "hold_out",
    "load",
    "longtail_indices",
    "pixels",
    "read_image",
    "stratified_split",
]
