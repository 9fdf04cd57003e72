"""MLflow logger of a run, on a local SQLite database or a server."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from time import time
from typing import TYPE_CHECKING

from pneumo.common.files import lock_of
from pneumo.training.experiment_tracker import Tracker
from pneumo.training.tracking import Setup

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
_MAX_PARAMETERS, _MAX_LETTERS = 100, 500  # of a request and a value; MLflow's limits since version 1.28
# MLflow reports usage to its authors by default. It also repeats a failed request for minutes, while training waits.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class MLFlowRunLogger(Tracker):
    """Logger for MLflow: hyperparameters as parameters, metrics by epoch, configuration and figures as artifacts."""

    title, extra = "MLflow", "mlflow"

    def __init__(
        self, run_dir: str, project: str, run_name: str, tracking_uri: str, artifact_location: str | None = None
    ) -> None:
        """Initialize without connecting to the tracking server.

        Args:
            run_dir: Run folder, which stores the ID of the run.
            project: Name of the MLflow experiment.
            run_name: Name of the run.
            tracking_uri: Address of the tracking server, or of a database, such as sqlite:///mlflow.db.
            artifact_location: Folder or address of the artifacts of a new experiment; None for mlartifacts/ next to an
                SQLite database, or the server's default.
        """
        super().__init__(run_dir, project, run_name)
        self.tracking_uri, self.artifact_location = tracking_uri, artifact_location
        self._client: MlflowClient | None = None

    @property
    def address(self) -> str:
        """Return the tracking URI."""
        return self.tracking_uri

    @property
    def experiment(self) -> "MlflowClient":
        """Return the client, for callbacks that log further content."""
        assert self._client is not None, "the run has not started"
        return self._client

    def start(self, run_id: str | None) -> str:
        """Create the database, the experiment and the run if they do not exist."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        with _quiet():
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        self.errors = (MlflowException, OSError)
        database = None
        if self.tracking_uri.startswith(_SQLITE):
            database = Path(self.tracking_uri.removeprefix(_SQLITE).partition("?")[0])
            database.parent.mkdir(parents=True, exist_ok=True)
        # Parallel jobs of a sweep would create the same tables and the same experiment.
        with lock_of(database) if database else nullcontext(), _quiet():
            self._client = MlflowClient(self.tracking_uri)
            experiment_id = self._experiment_id(database)
            if run_id is None or not self._exists(run_id):
                return str(self._client.create_run(experiment_id, run_name=self.run_name).info.run_id)
            self._client.update_run(run_id, status="RUNNING")
            return run_id

    def send_setup(self, setup: Setup) -> None:
        """Send the hyperparameters that a resumed run has not sent before: MLflow does not allow changes."""
        from mlflow.entities import Param

        values = {**setup.hyperparameters, **{f"config/{key}": value for key, value in setup.settings.items()}}
        known = self.experiment.get_run(self.run_id).data.params
        rest = iter([Param(key, str(value)[:_MAX_LETTERS]) for key, value in values.items() if key not in known])
        while part := list(islice(rest, _MAX_PARAMETERS)):
            self.experiment.log_batch(self.run_id, params=part)
        self.experiment.log_text(self.run_id, setup.yaml, "config.yaml")

    def send_metrics(self, metrics: Mapping[str, float], epochs: int) -> None:
        """Send scalars."""
        from mlflow.entities import Metric

        milliseconds = round(time() * 1000)
        rows = [Metric(name, float(value), milliseconds, epochs) for name, value in metrics.items()]
        self.experiment.log_batch(self.run_id, metrics=rows)

    def send_images(self, images: Mapping[str, bytes], epochs: int) -> None:
        """Send PNG files as artifacts, such as figures/test/roc.png."""
        with TemporaryDirectory() as folder:
            for tag, png in images.items():
                path = Path(folder, f"{PurePosixPath(tag).name}.png")
                path.write_bytes(png)
                self.experiment.log_artifact(self.run_id, str(path), f"figures/{PurePosixPath(tag).parent}")

    def send_results(self, metrics: Mapping[str, float], epochs: int) -> None:
        """Send the final metrics."""
        self.send_metrics(metrics, epochs)

    def end(self, failed: bool) -> None:
        """Set the status of the run."""
        self.experiment.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")

    def _experiment_id(self, database: Path | None) -> str:
        """Return the ID of the experiment; create it if it does not exist."""
        from mlflow.exceptions import MlflowException

        location = self.artifact_location
        if location is None and database:
            location = (database.resolve().parent / "mlartifacts").as_uri()
        found = self.experiment.get_experiment_by_name(self.project)
        if found is None:
            try:
                return str(self.experiment.create_experiment(self.project, artifact_location=location))
            except MlflowException:
                found = self.experiment.get_experiment_by_name(self.project)
                if found is None:  # not created by a job on another machine either
                    raise
        return str(found.experiment_id)

    def _exists(self, run_id: str) -> bool:
        """Return whether the server has a run, which users may delete."""
        from mlflow.exceptions import MlflowException

        try:
            return bool(self.experiment.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress messages about the tables of a new database, and warnings about MLflow's own imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
