"""Trackers: the interface, one that records nothing, and one for a run in MLflow; opening and logging of runs."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from makermark.foundation.errors import TrackingError, install_hint
from makermark.foundation.tracking.datasets import DatasetRecord
from makermark.foundation.tracking.mlflow_store import MODEL_TAG, MlflowStore, open_store

if TYPE_CHECKING:
    from mlflow.entities import Run

log = logging.getLogger(__name__)
T = TypeVar("T")

BATCH = 100  # the maximum number of params or tags in a request
NOT_INSTALLED = f"MLflow is not installed, so no run is recorded ({install_hint('pipeline')})"


class Tracker(Protocol):
    """One run. As a context manager it closes the run: finished, failed on an error, killed on Ctrl-C."""

    @property
    def run_id(self) -> str | None:
        """The id with which `open_run` continues this run; None if nothing is recorded."""

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Record settings, nested or flat, under dotted names."""

    def log_metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Record metrics at `step`, the epoch of a training or 0. A value that is already recorded is not repeated."""

    def set_tags(self, values: Mapping[str, str]) -> None:
        """Set tags; an old value is replaced."""

    def log_datasets(self, records: Sequence[DatasetRecord]) -> None:
        """Record which utterances the run uses. A dataset that is already recorded is not repeated."""

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file, or the content of a folder, into `folder` of the run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class NoTracker:
    """A tracker that records nothing."""

    run_id: str | None = None

    def log_params(self, values: Mapping[str, Any]) -> None:
        pass

    def log_metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        pass

    def set_tags(self, values: Mapping[str, str]) -> None:
        pass

    def log_datasets(self, records: Sequence[DatasetRecord]) -> None:
        pass

    def log_artifact(self, path: Path, folder: str = "") -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def log_epoch(tracker: Tracker, epoch: Mapping[str, float], *, prefix: str = "") -> None:
    """Record one entry of a training history: `epoch` is the step, the other values are metrics PREFIXname."""
    tracker.log_metrics(
        {f"{prefix}{name}": value for name, value in epoch.items() if name != "epoch"},
        step=int(epoch["epoch"]),
    )


def flatten_settings(params: Mapping[str, Any]) -> dict[str, str | int | float]:
    """Return nested settings under dotted names, such as `losses.ge2e.scale`; lists and None become text."""
    flat: dict[str, str | int | float] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": item for key, item in flatten_settings(value).items()}
        else:
            flat[name] = value if isinstance(value, str | int | float) else str(value)
    return flat


def flatten_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a nested metrics file under dotted names; an interval becomes `.low` and `.high`.

    Other values (text, None, tables) are left out.
    """
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, list | tuple) and len(value) == 2:
            value = dict(zip(("low", "high"), value, strict=True))
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": item for key, item in flatten_metrics(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[name] = float(value)
    return flat


class MlflowTracker:
    """A run in MLflow.

    - `ends`: closing the tracker ends the run; False for one that adds to a finished run
    - `strict`: raise TrackingError if MLflow fails; otherwise log one warning and record nothing more
    """

    def __init__(self, store: MlflowStore, run: Run, *, ends: bool, strict: bool = False) -> None:
        self._store, self._client, self._ends, self._strict = store, store.client, ends, strict
        self._params: dict[str, str] = dict(run.data.params)
        self._points: dict[str, set[tuple[int, float]]] = {
            key: set(store.metric_history(run.info.run_id, key)) for key in run.data.metrics
        }
        self._has_failed = False
        self.run_id: str = run.info.run_id

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Record settings. MLflow cannot change a param, so a changed value becomes a tag `changed.NAME`."""
        from mlflow.entities import Param

        params = {sanitise_key(name): str(value) for name, value in flatten_settings(values).items()}
        new = [Param(name, value) for name, value in params.items() if name not in self._params]
        for batch in batches(new):
            self._send(partial(self._client.log_batch, self.run_id, params=batch))
        changed = {name: value for name, value in params.items() if self._params.get(name, value) != value}
        self.set_tags({f"changed.{name}": value for name, value in changed.items()})
        self._params = params | self._params

    def log_metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        new = []
        for key, value in ((sanitise_key(name), float(value)) for name, value in values.items()):
            logged = self._points.setdefault(key, set())
            if (step, value) not in logged:
                logged.add((step, value))
                new.append(Metric(key, value, now, step))
        for batch in batches(new):
            self._send(partial(self._client.log_batch, self.run_id, metrics=batch))

    def set_tags(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        for batch in batches([RunTag(name, value) for name, value in values.items()]):
            self._send(partial(self._client.log_batch, self.run_id, tags=batch))

    def log_datasets(self, records: Sequence[DatasetRecord]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        inputs = [
            DatasetInput(
                dataset=Dataset(
                    name=record.name,
                    digest=record.digest,
                    source_type="local",
                    source=json.dumps({"uri": record.source}),
                    profile=json.dumps(dict(record.counts)),
                ),
                tags=[InputTag(key=MLFLOW_DATASET_CONTEXT, value=record.context)],
            )
            for record in records
        ]
        self._send(partial(self._client.log_inputs, self.run_id, datasets=inputs))

    def log_artifact(self, path: Path, folder: str = "") -> None:
        log_path = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        self._send(partial(log_path, self.run_id, str(path), folder or None))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._ends:
            return
        status = "FINISHED"
        if kind is not None:
            status = "FAILED" if issubclass(kind, Exception) else "KILLED"
        self._send(partial(self._client.set_terminated, self.run_id, status=status))

    def _send(self, action: Callable[[], object]) -> None:
        if self._has_failed:
            return
        try:
            self._store.call(action)
        except TrackingError as error:
            if self._strict:
                raise
            self._has_failed = True
            warn_tracking_failed(error)


def warn_tracking_failed(error: TrackingError) -> None:
    """Log that MLflow failed, with the remedy."""
    log.warning("%s; the run continues without it: record it later with `makermark log-run`", error)


def sanitise_key(name: str) -> str:
    """Return `name` with the characters replaced that MLflow does not allow in a key."""
    return re.sub(r"[^/\w.\- ]", "_", name)


def batches(items: list[T]) -> list[list[T]]:
    """Return `items` in lists of at most BATCH."""
    return [items[first : first + BATCH] for first in range(0, len(items), BATCH)]


def open_run(
    name: str, *, start: Path, experiment: str = "makermark", resume_run_id: str | None = None
) -> Tracker:
    """Return a tracker for a training in the repository around `start`.

    `resume_run_id` is the run to continue, if it still exists. Returns NoTracker, with one line in the log, if MLflow
    is not installed or cannot be reached.
    """
    try:
        store = MlflowStore(start, experiment=experiment)
        run = store.reopen(resume_run_id) if resume_run_id else None
        return MlflowTracker(store, run or store.create(name), ends=True)
    except ImportError:
        log.info(NOT_INSTALLED)
    except TrackingError as error:
        warn_tracking_failed(error)
    return NoTracker()


def open_model_run(model_sha256: str, *, start: Path, experiment: str = "makermark") -> Tracker:
    """Return a tracker that adds to the latest run of these weights; NoTracker, with a line in the log, without one."""
    try:
        store = MlflowStore(start, experiment=experiment)
        run = store.find_model_run(model_sha256)
        if run is not None:
            return MlflowTracker(store, run, ends=False)
        log.info(
            "MLflow at %s has no run of model %s; record it with `makermark log-run`",
            store.uri,
            model_sha256[:12],
        )
    except ImportError:
        log.info(NOT_INSTALLED)
    except TrackingError as error:
        warn_tracking_failed(error)
    return NoTracker()


def log_run(
    name: str,
    *,
    model_sha256: str,
    params: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    metrics: Mapping[str, Any],
    tags: Mapping[str, str],
    artifacts: Sequence[tuple[Path, str]],
    start: Path,
    emphasis: Sequence[Mapping[str, float]] = (),
    datasets: Sequence[DatasetRecord] = (),
    experiment: str = "makermark",
) -> str:
    """Log a finished run from its files, or add what its run lacks, and return the id of the run.

    For a training that ran without MLflow. A second call changes nothing.

    - `history`: one entry per epoch, with its number under `epoch`
    - `emphasis`: the history of the first training stage, if there is one
    - `metrics`: may be nested, as in metrics/headline.json
    - `artifacts`: paths with their folder in the run

    The run is the one tagged with the model, or one whose server failed during training (its epochs are the first of
    `history`), or a new one. Raises TrackingError if MLflow is not installed or fails.
    """
    store = open_store(start, experiment=experiment)
    run = store.find_model_run(model_sha256) or find_interrupted(store, name, history) or store.create(name)
    with MlflowTracker(store, run, ends=True, strict=True) as tracker:
        tracker.log_params(params)
        for epoch in emphasis:
            log_epoch(tracker, epoch, prefix="emphasis.")
        for epoch in history:
            log_epoch(tracker, epoch)
        tracker.log_metrics(flatten_metrics(metrics))
        tracker.log_datasets(datasets)
        for path, folder in artifacts:
            tracker.log_artifact(path, folder)
        tracker.set_tags({**tags, MODEL_TAG: model_sha256})
    return str(run.info.run_id)


def find_interrupted(store: MlflowStore, name: str, history: Sequence[Mapping[str, float]]) -> Run | None:
    """Return a run with this name, without a model, whose losses per epoch are the first ones of `history`."""
    losses = [(int(epoch["epoch"]), epoch["loss"]) for epoch in history]
    for run in store.search(f"attributes.run_name = '{name}'"):
        if MODEL_TAG not in run.data.tags and "loss" in run.data.metrics:
            recorded = sorted(store.metric_history(run.info.run_id, "loss"))
            if recorded == losses[: len(recorded)]:
                return run
    return None
