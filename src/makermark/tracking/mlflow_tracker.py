"""A run in MLflow."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from makermark.errors import TrackingError
from makermark.tracking.mlflow_store import Store
from makermark.tracking.tracker import flatten

if TYPE_CHECKING:
    from mlflow.entities import Run

log = logging.getLogger(__name__)
T = TypeVar("T")

BATCH = 100  # MLflow takes so many params or tags at once


class MlflowTracker:
    """A run in MLflow. When MLflow fails, a `strict` tracker raises TrackingError; another says so once
    and does nothing more. `ends` is whether closing it ends the run: not so for one who adds to it."""

    def __init__(self, store: Store, run: Run, *, ends: bool, strict: bool = False) -> None:
        self._store, self._client, self._ends, self._strict = store, store.client, ends, strict
        self._params: dict[str, str] = dict(run.data.params)
        self._points: dict[str, set[tuple[int, float]]] = {
            key: set(store.points(run.info.run_id, key)) for key in run.data.metrics
        }
        self._lost = False
        self.run_id: str = run.info.run_id

    def params(self, values: Mapping[str, Any]) -> None:
        """MLflow never changes a param; a value that differs from the run's becomes a tag `changed.NAME`."""
        from mlflow.entities import Param

        given = {allowed(name): str(value) for name, value in flatten(values).items()}
        fresh = [Param(name, value) for name, value in given.items() if name not in self._params]
        for some in batches(fresh):
            self._send(partial(self._client.log_batch, self.run_id, params=some))
        changed = {name: value for name, value in given.items() if self._params.get(name, value) != value}
        self.tags({f"changed.{name}": value for name, value in changed.items()})
        self._params = given | self._params

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        fresh = []
        for key, value in ((allowed(name), float(value)) for name, value in values.items()):
            there = self._points.setdefault(key, set())
            if (step, value) not in there:
                there.add((step, value))
                fresh.append(Metric(key, value, now, step))
        for some in batches(fresh):
            self._send(partial(self._client.log_batch, self.run_id, metrics=some))

    def tags(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        for some in batches([RunTag(name, value) for name, value in values.items()]):
            self._send(partial(self._client.log_batch, self.run_id, tags=some))

    def artefact(self, path: Path, folder: str = "") -> None:
        put = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        self._send(partial(put, self.run_id, str(path), folder or None))

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
        if self._lost:
            return
        try:
            self._store.call(action)
        except TrackingError as error:
            if self._strict:
                raise
            self._lost = True
            go_on_without(error)


def go_on_without(error: TrackingError) -> None:
    """Say that MLflow failed, and what the user can do."""
    log.warning("%s; going on without it: record the run later with `makermark log-run`", error)


def allowed(name: str) -> str:
    """`name` with what MLflow does not take in a key replaced."""
    return re.sub(r"[^/\w.\- ]", "_", name)


def batches(items: list[T]) -> list[list[T]]:
    return [items[first : first + BATCH] for first in range(0, len(items), BATCH)]
