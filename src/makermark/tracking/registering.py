"""A folder as a version of a model in MLflow's registry, kept with the run that trained it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from makermark.errors import TrackingError, how_to_add
from makermark.tracking.mlflow_store import Store, reason

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

NAME = re.compile(r"[^/:%\"'\x00-\x1f]{1,200}")
ALIAS = re.compile(r"(?!v\d+$|latest$)[\w-]{1,100}", re.IGNORECASE)
PLACE = "registered"  # of the run's artefacts


def register(
    folder: Path,
    *,
    name: str,
    alias: str,
    description: str,
    model_sha256: str,
    start: Path,
    experiment: str = "makermark",
) -> int:
    """Log the MLflow model in `folder` to the run that made these weights, as a new version of the registered model
    `name`, to which `alias` then points (none where it is empty); returns the version's number.

    Raises TrackingError where MLflow is absent or fails, has no such run, or a name is none.
    """
    if not NAME.fullmatch(name):
        raise TrackingError(f"{name!r} is no name for a model: it has no / : % or quotation mark")
    if alias and not ALIAS.fullmatch(alias):
        raise TrackingError(
            f"{alias!r} is no alias: it has letters, digits, - and _, and is neither `latest` nor a version such as v1"
        )
    try:
        store = Store(start, experiment=experiment)
    except ImportError as error:
        raise TrackingError(f"MLflow is not installed; {how_to_add('pipeline')}") from error
    run = store.of_model(model_sha256)
    if run is None:
        raise TrackingError(
            f"MLflow at {store.uri} has no run of model {model_sha256[:12]}; record it first with `makermark log-run`"
        )
    before = store.call(lambda: store.client.list_artifacts(run.info.run_id, PLACE))
    place = f"{PLACE}/{len(before) + 1}"  # a version keeps its own files
    store.call(lambda: store.client.log_artifacts(run.info.run_id, str(folder), place))
    store.call(lambda: _create(store.client, name))
    version = store.call(
        lambda: store.client.create_model_version(
            name,
            f"runs:/{run.info.run_id}/{place}",
            run_id=run.info.run_id,
            description=description,
            tags={"makermark.model_sha256": model_sha256},
        )
    )
    store.call(lambda: store.client.update_registered_model(name, description=description))
    if alias:
        store.call(lambda: store.client.set_registered_model_alias(name, alias, version.version))
    return int(version.version)


def _create(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise TrackingError(reason(error)) from error
