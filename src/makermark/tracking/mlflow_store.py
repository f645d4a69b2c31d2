"""An experiment in an MLflow store, reached through MLflow's client alone: no global active run.

MLflow must be quiet, quick to give up, and safe with several workers on one SQLite file.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock

from makermark.errors import TrackingError
from makermark.tracking.repository import main_repository, tracking_uri
from makermark.tracking.tracker import MODEL_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

T = TypeVar("T")

SECONDS_TO_WAIT_FOR_OTHERS = 120


class Store:
    """One experiment in one MLflow store. Raises TrackingError where MLflow fails."""

    def __init__(self, start: Path, *, experiment: str) -> None:
        hush()
        import mlflow.tracking  # noqa: F401  where it is not installed, nothing is written

        self.uri = tracking_uri(start)
        folder = main_repository(start) / "mlartifacts"  # absolute: stages may run in a copy
        try:
            if self.uri.startswith("sqlite:"):
                with only_one(folder):
                    self.client, self.experiment_id = connect(
                        self.uri, experiment=experiment, artefacts=str(folder)
                    )
            else:
                self.client, self.experiment_id = connect(self.uri, experiment=experiment, artefacts=None)
        except Exception as error:
            raise self.failure(error) from error

    def call(self, action: Callable[[], T]) -> T:
        """Do something with the client; whatever goes wrong becomes a TrackingError of one line."""
        try:
            return action()
        except Exception as error:
            raise self.failure(error) from error

    def failure(self, error: Exception) -> TrackingError:
        """The error as one line, without the password that a URI may hold."""
        return TrackingError(f"MLflow at {re.sub('//[^/]*@', '//', self.uri)} {reason(error)}")

    def create(self, name: str) -> Run:
        """A new run, in progress."""
        tags = {"mlflow.source.name": "makermark", "mlflow.source.type": "LOCAL"}
        return self.call(lambda: self.client.create_run(self.experiment_id, run_name=name, tags=tags))

    def reopen(self, run_id: str) -> Run | None:
        """The run with this id, in progress again; None if it is not in this store any more."""
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise self.failure(error) from error
        if run.info.lifecycle_stage != "active" or run.info.experiment_id != self.experiment_id:
            return None
        self.call(lambda: self.client.update_run(run_id, status="RUNNING"))
        return run

    def of_model(self, model_sha256: str) -> Run | None:
        """The latest run that made these weights."""
        found = self.search(f"tags.`{MODEL_TAG}` = '{model_sha256}'")
        return found[0] if found else None

    def search(self, condition: str) -> list[Run]:
        """Runs of the experiment that meet an MLflow filter, latest first."""
        order = ["attributes.start_time DESC"]
        return list(
            self.call(lambda: self.client.search_runs([self.experiment_id], condition, order_by=order))
        )

    def points(self, run_id: str, key: str) -> list[tuple[int, float]]:
        """(step, value) of everything recorded under one metric."""
        history = self.call(lambda: self.client.get_metric_history(run_id, key))
        return [(point.step, point.value) for point in history]


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """One process at a time: several that create one database at once leave it broken."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".opening.lock", timeout=SECONDS_TO_WAIT_FOR_OTHERS):
        yield


def connect(uri: str, *, experiment: str, artefacts: str | None) -> tuple[MlflowClient, str]:
    """A client and the id of the experiment, which is made if it is not there."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        try:
            return client, client.create_experiment(experiment, artifact_location=artefacts)
        except MlflowException as error:  # another worker was quicker
            found = client.get_experiment_by_name(experiment)
            if found is None:
                raise error
    if found.lifecycle_stage != "active":
        client.restore_experiment(found.experiment_id)
    return client, found.experiment_id


def hush() -> None:
    """No telemetry, no chatter, and seconds instead of minutes for a server that is down.

    What the user has set in the environment stays.
    """
    quick = {"REQUEST_TIMEOUT": "10", "REQUEST_MAX_RETRIES": "1", "REQUEST_BACKOFF_FACTOR": "1"}
    for name, value in quick.items():
        os.environ.setdefault(f"MLFLOW_HTTP_{name}", value)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("mlflow", "alembic", "urllib3", "git"):
        logging.getLogger(name).setLevel(logging.ERROR)


def reason(error: Exception) -> str:
    """What failed: the first line of an error, cut where it gets long."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "Max retries exceeded" in text:
        return "cannot be reached"
    return f"failed: {text[:200]}{'...' * (len(text) > 200)}"
