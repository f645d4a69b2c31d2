"""What a store holds of earlier runs: where they came from, their params and their latest figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from makermark.errors import TrackingError, how_to_add
from makermark.tracking.mlflow_store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

PAGE = 1000  # the most runs that MLflow gives at once
CHANGED = "changed."  # begins the tag of a param that changed after it was first recorded


@dataclass(frozen=True)
class Recorded:
    """One run of the store."""

    run_id: str
    commit: str
    clean: bool  # whether its code was that of the commit
    data: str  # the hashes of what its download stage wrote
    params: Mapping[str, str]  # dotted names
    metrics: Mapping[str, float]  # dotted names


def recorded_runs(start: Path, *, experiment: str = "makermark") -> list[Recorded]:
    """Every run in the store of the repository around `start`, latest first; raises TrackingError."""
    try:
        store = Store(start, experiment=experiment)
    except ImportError as error:
        raise TrackingError(f"MLflow is not installed; {how_to_add('pipeline')}") from error
    return [_recorded(run) for run in _all_runs(store)]


def _all_runs(store: Store) -> Iterator[Run]:
    search = partial(
        store.client.search_runs,
        [store.experiment_id],
        order_by=["attributes.start_time DESC"],
        max_results=PAGE,
    )
    page = store.call(search)
    yield from page
    while page.token:
        page = store.call(partial(search, page_token=page.token))
        yield from page


def _recorded(run: Run) -> Recorded:
    tags = run.data.tags
    changed = {name.removeprefix(CHANGED): value for name, value in tags.items() if name.startswith(CHANGED)}
    return Recorded(
        run_id=run.info.run_id,
        commit=tags.get("git.commit", "none"),
        clean=tags.get("git.dirty") == "false",
        data=tags.get("data.download", "none"),
        params={**run.data.params, **changed},
        metrics=dict(run.data.metrics),
    )
