"""MLflow as a watcher of the loop (extra ``mlflow``)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saddlescape.curvature import Spectrum
from saddlescape.errors import MissingExtraError
from saddlescape.training.loggers.values import scalars, scalars_of
from saddlescape.training.parts import Parts
from saddlescape.training.running import Running


class MLflow:
    """Scalars of every epoch: loss, learning rate, rho, accuracy of the whole and of each group.

    They go to ``folder`` as files, or to ``MLFLOW_TRACKING_URI`` where that is set; the experiment is
    ``MLFLOW_EXPERIMENT_NAME``, else ``saddlescape``; the run has the name of the run folder. A training that is taken
    up again goes on in the same run: its id is kept in ``folder/run_id``. MLflow's reports about its own use are off
    unless ``MLFLOW_DISABLE_TELEMETRY=false`` asks for them.

    Args:
        folder: where MLflow writes, below a run folder; made if it is not there.

    Raises:
        MissingExtraError: mlflow is not installed (mlflow-skinny is enough).
    """

    takes_spectra = False  # it knows no histograms

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise MissingExtraError("--log mlflow", "mlflow", "mlflow-skinny") from error
        folder.mkdir(parents=True, exist_ok=True)
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            # A store of files needs no more than mlflow-skinny; newer versions want to be told that it is meant.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (folder / "mlruns").absolute().as_uri()
        self.client: Any = MlflowClient(tracking_uri=uri)
        known = folder / "run_id"
        if known.is_file():
            self.run_id = known.read_text(encoding="utf-8")
            self.client.set_terminated(self.run_id, status="RUNNING")
        else:
            self.run_id = self.client.create_run(self._experiment(), run_name=folder.absolute().parent.name).info.run_id
            known.write_text(self.run_id, encoding="utf-8")

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "saddlescape"
        found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self.client.create_experiment(name))

    def on_step(self, parts: Parts, epoch: int, running: Running) -> None:
        """Nothing: a scalar a step would cost a synchronisation a step."""

    def on_epoch(self, parts: Parts, row: dict[str, Any]) -> None:
        for name, value in scalars(row).items():
            self.client.log_metric(self.run_id, name, value, step=row["epoch"] + 1)

    def on_curvature(
        self, step: int, rows: Sequence[Mapping[str, Any]], spectra: Mapping[str, Sequence[Spectrum]]
    ) -> None:
        for name, value in scalars_of(rows).items():
            allowed = re.sub(r"[^A-Za-z0-9_./ -]", "_", name)  # MLflow refuses other letters in the name of a metric
            self.client.log_metric(self.run_id, allowed, value, step=step)

    def close(self) -> None:
        """End the run."""
        self.client.set_terminated(self.run_id)
