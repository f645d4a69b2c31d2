"""An experiment in an MLflow store, accessed through MlflowClient, without a global active run.

MLflow must be quiet, give up soon, and be safe for several processes with one SQLite file.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock

from makermark.foundation.errors import TrackingError, install_hint
from makermark.foundation.tracking.artifact_locations import ARTIFACTS, artifact_location, correct_locations
from makermark.foundation.tracking.provenance import existing_store, find_main_repository, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


T = TypeVar("T")

LOCK_TIMEOUT_S = 120
MODEL_TAG = "makermark.model_sha256"
PAGE_RUNS = 1000  # maximum number of runs in a response of MLflow
CHANGED = "changed."  # prefix of the tag of a param that changed after it was recorded


class MlflowStore:
    """One experiment in one MLflow store. Every method raises TrackingError if MLflow fails."""

    def __init__(self, start: Path, *, experiment: str) -> None:
        quiet_mlflow()
        import mlflow.tracking  # noqa: F401  raises ImportError before any file is written

        self.uri = tracking_uri(start)
        folder = find_main_repository(start) / ARTIFACTS  # absolute: stages may run in a copy
        is_local = self.uri.startswith(("sqlite:", "sqlite+"))
        try:
            with lock_creation(folder) if is_local else nullcontext():
                correct_locations(start)
                self.client, self.experiment_id = connect(
                    self.uri,
                    experiment=experiment,
                    artifacts=artifact_location(folder) if is_local else None,
                )
        except TrackingError:
            raise
        except Exception as error:
            raise self.failure(error) from error

    def call(self, action: Callable[[], T]) -> T:
        """Call `action`; any exception becomes a TrackingError of one line."""
        try:
            return action()
        except Exception as error:
            raise self.failure(error) from error

    def failure(self, error: Exception) -> TrackingError:
        """Return the error as one line, without the password that a URI may contain."""
        return TrackingError(f"MLflow at {re.sub('//[^/]*@', '//', self.uri)} {summarise_error(error)}")

    def create(self, name: str) -> Run:
        """Create a run with status RUNNING."""
        tags = {"mlflow.source.name": "makermark", "mlflow.source.type": "LOCAL"}
        return self.call(lambda: self.client.create_run(self.experiment_id, run_name=name, tags=tags))

    def reopen(self, run_id: str) -> Run | None:
        """Set a run to status RUNNING again; return None if the store does not have it."""
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

    def find_model_run(self, model_sha256: str) -> Run | None:
        """Return the latest run that trained these weights, or None."""
        runs = self.search(f"tags.`{MODEL_TAG}` = '{model_sha256}'")
        return runs[0] if runs else None

    def search(self, condition: str) -> list[Run]:
        """Return the runs of the experiment that match an MLflow filter, latest first."""
        order = ["attributes.start_time DESC"]
        return list(
            self.call(lambda: self.client.search_runs([self.experiment_id], condition, order_by=order))
        )

    def metric_history(self, run_id: str, key: str) -> list[tuple[int, float]]:
        """Return (step, value) of every value of a metric."""
        history = self.call(lambda: self.client.get_metric_history(run_id, key))
        return [(point.step, point.value) for point in history]


def open_store(start: Path, *, experiment: str) -> MlflowStore:
    """Return the store of the repository around `start`. Raises TrackingError, also if MLflow is not installed."""
    try:
        return MlflowStore(start, experiment=experiment)
    except ImportError as error:
        raise TrackingError(f"MLflow is not installed; {install_hint('pipeline')}") from error


@contextmanager
def lock_creation(folder: Path) -> Iterator[None]:
    """Hold a lock: processes that create one database at the same time corrupt it."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".opening.lock", timeout=LOCK_TIMEOUT_S):
        yield


def connect(uri: str, *, experiment: str, artifacts: str | None) -> tuple[MlflowClient, str]:
    """Return a client and the id of the experiment, which is created if it is missing."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    record = client.get_experiment_by_name(experiment)
    if record is None:
        try:
            return client, client.create_experiment(experiment, artifact_location=artifacts)
        except MlflowException as error:  # another process has created it
            record = client.get_experiment_by_name(experiment)
            if record is None:
                raise error
    if record.lifecycle_stage != "active":
        client.restore_experiment(record.experiment_id)
    return client, record.experiment_id


def quiet_mlflow() -> None:
    """Disable telemetry and log messages of MLflow, and give up on a server after seconds instead of minutes.

    Variables that the user has set in the environment are unchanged.
    """
    timeouts = {"REQUEST_TIMEOUT": "10", "REQUEST_MAX_RETRIES": "1", "REQUEST_BACKOFF_FACTOR": "1"}
    for name, value in timeouts.items():
        os.environ.setdefault(f"MLFLOW_HTTP_{name}", value)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("mlflow", "alembic", "urllib3", "git"):
        logging.getLogger(name).setLevel(logging.ERROR)


def summarise_error(error: Exception) -> str:
    """Return the first line of an error, truncated to 200 characters."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "Max retries exceeded" in text:
        return "cannot be reached"
    return f"failed: {text[:200]}{'...' * (len(text) > 200)}"


@dataclass(frozen=True)
class RunRecord:
    """One run of the store."""

    run_id: str
    commit: str
    clean: bool  # its code was that of the commit
    data: str  # hashes of the outputs of its download stage
    params: Mapping[str, str]  # dotted names
    metrics: Mapping[str, float]  # dotted names


def query_runs(start: Path, *, experiment: str = "makermark") -> list[RunRecord]:
    """Return all runs in the store of the repository around `start`, latest first. Raises TrackingError."""
    existing_store(start)
    store = open_store(start, experiment=experiment)
    search = partial(
        store.client.search_runs,
        [store.experiment_id],
        order_by=["attributes.start_time DESC"],
        max_results=PAGE_RUNS,
    )
    page = store.call(search)
    runs = list(page)
    while page.token:
        page = store.call(partial(search, page_token=page.token))
        runs += page
    return [_to_record(run) for run in runs]


def _to_record(run: Run) -> RunRecord:
    tags = run.data.tags
    changed = {name.removeprefix(CHANGED): value for name, value in tags.items() if name.startswith(CHANGED)}
    return RunRecord(
        run_id=run.info.run_id,
        commit=tags.get("git.commit", "none"),
        clean=tags.get("git.dirty") == "false",
        data=tags.get("data.download", "none"),
        params={**run.data.params, **changed},
        metrics=dict(run.data.metrics),
    )
