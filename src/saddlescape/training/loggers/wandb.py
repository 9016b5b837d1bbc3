"""Weights & Biases as a watcher of the loop (extra ``wandb``)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saddlescape.curvature import Spectrum
from saddlescape.errors import InputError, MissingExtraError
from saddlescape.training.loggers.values import histogram, scalars, scalars_of
from saddlescape.training.parts import Parts
from saddlescape.training.running import Running


class WeightsAndBiases:
    """Scalars of every epoch: loss, learning rate, rho, accuracy of the whole and of each group.

    wandb's own environment decides whether anything leaves the machine (``WANDB_MODE=offline`` keeps all here) and
    under which names (``WANDB_PROJECT``, else ``saddlescape``; ``WANDB_NAME``, else the name of the run folder). A
    training that is taken up again goes on in the same run: its id is kept in ``folder/run_id``.

    Args:
        folder: where wandb writes, below a run folder; made if it is not there.

    Raises:
        MissingExtraError: wandb is not installed.
        InputError: wandb does not start, as without a key and not offline.
    """

    takes_spectra = True

    def __init__(self, folder: Path) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError("--log wandb", "wandb", "wandb") from error
        folder.mkdir(parents=True, exist_ok=True)  # without it wandb writes to the system's temporary folder
        known = folder / "run_id"
        try:
            self.run: Any = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or "saddlescape",
                name=os.environ.get("WANDB_NAME") or folder.absolute().parent.name,
                dir=str(folder),
                id=known.read_text(encoding="utf-8") if known.is_file() else None,
                resume="allow",
                reinit="create_new",  # a grid trains several runs in one process, each a run of its own
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"wandb does not start: {reason}; set WANDB_MODE=offline to log on this machine"
            ) from error
        known.write_text(self.run.id, encoding="utf-8")

    def on_step(self, parts: Parts, epoch: int, running: Running) -> None:
        """Nothing: a scalar a step would cost a synchronisation a step."""

    def on_epoch(self, parts: Parts, row: dict[str, Any]) -> None:
        # The epoch is a value and not wandb's step, which may never go back as a second stage's first epoch does.
        self.run.log({"epoch": row["epoch"] + 1, **scalars(row)})

    def on_curvature(
        self, step: int, rows: Sequence[Mapping[str, Any]], spectra: Mapping[str, Sequence[Spectrum]]
    ) -> None:
        import wandb

        bars: dict[str, Any] = {}
        for name, found in spectra.items():
            bins = histogram(found)
            shown = {"eigenvalues": bins.counts, "eigenvalues, log10(1 + count)": bins.heights}
            bars |= {f"{kind}/{name}": wandb.Histogram(np_histogram=(c, bins.edges)) for kind, c in shown.items()}
        self.run.log({"epoch": step, **scalars_of(rows), **bars})

    def close(self) -> None:
        """Write what is held back and end the run."""
        self.run.finish()
