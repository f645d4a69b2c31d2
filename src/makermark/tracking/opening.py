"""Open the run of a training, or that of a model already trained."""

from __future__ import annotations

import logging
from pathlib import Path

from makermark.errors import TrackingError, how_to_add
from makermark.tracking.mlflow_store import Store
from makermark.tracking.mlflow_tracker import MlflowTracker, go_on_without
from makermark.tracking.tracker import NoTracker, Tracker

log = logging.getLogger(__name__)

NOT_INSTALLED = f"MLflow is not installed, so no run is recorded ({how_to_add('pipeline')})"


def open_run(
    name: str, *, start: Path, experiment: str = "makermark", resume_run_id: str | None = None
) -> Tracker:
    """A run in progress for a training in the repository around `start`.

    `resume_run_id` is the run to go on with, if it is still there. When MLflow is absent or cannot be
    reached the answer is NoTracker, with one line in the log.
    """
    try:
        store = Store(start, experiment=experiment)
        run = store.reopen(resume_run_id) if resume_run_id else None
        return MlflowTracker(store, run or store.create(name), ends=True)
    except ImportError:
        log.info(NOT_INSTALLED)
    except TrackingError as error:
        go_on_without(error)
    return NoTracker()


def open_model_run(model_sha256: str, *, start: Path, experiment: str = "makermark") -> Tracker:
    """The latest run that made these weights, to add to; NoTracker, with one line in the log, if there is none."""
    try:
        store = Store(start, experiment=experiment)
        run = store.of_model(model_sha256)
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
        go_on_without(error)
    return NoTracker()
