"""Loggers that watch the loop, one file each; each needs the extra of its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from saddlescape.curvature import Spectrum
from saddlescape.errors import InputError, near
from saddlescape.training.loop import Watcher

LOGGERS = {"tensorboard": "TensorBoard", "wandb": "WeightsAndBiases", "mlflow": "MLflow"}
"""Name, which is that of its module, -> class."""


class Logger(Watcher, Protocol):
    """A watcher that takes curvature too. ``takes_spectra``: whether it can show a histogram."""

    takes_spectra: bool

    def on_curvature(
        self, step: int, rows: Sequence[Mapping[str, Any]], spectra: Mapping[str, Sequence[Spectrum]]
    ) -> None: ...

    def close(self) -> None:
        """Write what is held back."""


def logger_names(text: str) -> list[str]:
    """ "tensorboard,wandb" -> the loggers named, each once. Raises InputError for an unknown one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in LOGGERS:
            raise InputError(f"--log {name}: unknown logger; {near(name, LOGGERS)}")
    return list(dict.fromkeys(names))


def open_logger(name: str, folder: Path) -> Logger:
    """The logger called ``name``, writing into ``folder``. Raises MissingExtraError where its library is missing."""
    module = import_module(f"{__name__}.{name}")
    logger: Logger = getattr(module, LOGGERS[name])(folder)
    return logger
