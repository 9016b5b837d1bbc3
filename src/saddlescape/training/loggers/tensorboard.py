"""TensorBoard as a watcher of the loop (extra ``tensorboard``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saddlescape.curvature import Spectrum
from saddlescape.errors import MissingExtraError
from saddlescape.training.loggers.values import histogram, scalars, scalars_of
from saddlescape.training.parts import Parts
from saddlescape.training.running import Running


class TensorBoard:
    """Scalars of every epoch: loss, learning rate, rho, accuracy of the whole and of each group.

    Of curvature: lambda_min, lambda_max and their ratio as scalars, spectra as histograms, of each class and group; a
    histogram counts eigenvalues, one beside it tells log10(1 + count).
    """

    takes_spectra = True

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("--tensorboard", "tensorboard", "tensorboard") from error
        self.writer = SummaryWriter(str(folder))  # type: ignore[no-untyped-call]

    def on_step(self, parts: Parts, epoch: int, running: Running) -> None:
        """Nothing: a scalar a step would cost a synchronisation a step."""

    def on_epoch(self, parts: Parts, row: dict[str, Any]) -> None:
        done = row["epoch"] + 1
        for name, value in scalars(row).items():
            self.writer.add_scalar(name, value, done)  # type: ignore[no-untyped-call]
        self.writer.flush()  # type: ignore[no-untyped-call]

    def on_curvature(
        self, step: int, rows: Sequence[Mapping[str, Any]], spectra: Mapping[str, Sequence[Spectrum]]
    ) -> None:
        for name, value in scalars_of(rows).items():
            self.writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]
        for name, found in spectra.items():
            bins = histogram(found)
            self._histogram(f"eigenvalues/{name}", bins.edges, bins.counts, bins.total, bins.squares, step)
            middles = (bins.edges[1:] + bins.edges[:-1]) / 2
            self._histogram(
                f"eigenvalues, log10(1 + count)/{name}", bins.edges, bins.heights, float(bins.heights @ middles),
                float(bins.heights @ middles**2), step,
            )  # fmt: skip
        self.writer.flush()  # type: ignore[no-untyped-call]

    def _histogram(self, tag: str, edges: Any, counts: Any, total: float, squares: float, step: int) -> None:
        """TensorBoard takes the right ends of bins; the first begins at ``min``."""
        self.writer.add_histogram_raw(  # type: ignore[no-untyped-call]
            tag, min=float(edges[0]), max=float(edges[-1]), num=float(counts.sum()), sum=total, sum_squares=squares,
            bucket_limits=edges[1:].tolist(), bucket_counts=counts.tolist(), global_step=step,
        )  # fmt: skip

    def close(self) -> None:
        """Write what is held back."""
        self.writer.close()  # type: ignore[no-untyped-call]
