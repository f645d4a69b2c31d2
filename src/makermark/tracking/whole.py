"""Record a finished run from its files: what was trained while MLflow was away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from makermark.errors import TrackingError, how_to_add
from makermark.tracking.mlflow_store import Store
from makermark.tracking.mlflow_tracker import MlflowTracker
from makermark.tracking.tracker import MODEL_TAG, log_epoch, numbers

if TYPE_CHECKING:
    from mlflow.entities import Run


def log_run(
    name: str,
    *,
    model_sha256: str,
    params: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    metrics: Mapping[str, Any],
    tags: Mapping[str, str],
    artefacts: Sequence[tuple[Path, str]],
    start: Path,
    emphasis: Sequence[Mapping[str, float]] = (),
    experiment: str = "makermark",
) -> str:
    """Record a whole run, or what its run lacks, and return the run's id. Doing it twice changes nothing.

    `history` has one entry per epoch, with its number under `epoch`; `metrics` may be nested as in
    metrics/*.json; `artefacts` are paths with their folder in the run; `emphasis` is the history of a first
    stage. The run is the one tagged with the model, or one that lost its server in mid-training (its epochs
    are the first of `history`), or a new one. Raises TrackingError if MLflow is not installed or fails.
    """
    try:
        store = Store(start, experiment=experiment)
    except ImportError as error:
        raise TrackingError(f"MLflow is not installed; {how_to_add('pipeline')}") from error
    run = store.of_model(model_sha256) or interrupted(store, name, history) or store.create(name)
    with MlflowTracker(store, run, ends=True, strict=True) as tracker:
        tracker.params(params)
        for epoch in emphasis:
            log_epoch(tracker, epoch, prefix="emphasis.")
        for epoch in history:
            log_epoch(tracker, epoch)
        tracker.metrics(numbers(metrics))
        for path, folder in artefacts:
            tracker.artefact(path, folder)
        tracker.tags({**tags, MODEL_TAG: model_sha256})
    return str(run.info.run_id)


def interrupted(store: Store, name: str, history: Sequence[Mapping[str, float]]) -> Run | None:
    """A run of this name without a model whose losses are, epoch by epoch, the first ones of `history`."""
    losses = [(int(epoch["epoch"]), epoch["loss"]) for epoch in history]
    for run in store.search(f"attributes.run_name = '{name}'"):
        if MODEL_TAG not in run.data.tags and "loss" in run.data.metrics:
            recorded = sorted(store.points(run.info.run_id, "loss"))
            if recorded == losses[: len(recorded)]:
                return run
    return None
