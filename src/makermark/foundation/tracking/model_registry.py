"""Registered models, stored with the run that trained them, and download of their files and of other artifacts."""

from __future__ import annotations

import logging
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from makermark.foundation.errors import FilesError, TrackingError, install_hint
from makermark.foundation.tracking.artifact_locations import correct_locations
from makermark.foundation.tracking.mlflow_store import MODEL_TAG, open_store, quiet_mlflow, summarise_error
from makermark.foundation.tracking.provenance import existing_store

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


NAME = re.compile(r"[^/:%\"'\x00-\x1f]{1,200}")
ALIAS = re.compile(r"(?!v\d+$|latest$)[\w-]{1,100}", re.IGNORECASE)
ARTIFACT_FOLDER = "registered"  # in the run
MODELS = "models:/"
LARGE_MODEL_BYTES = 1 << 24


def register_model(
    folder: Path,
    *,
    name: str,
    alias: str,
    description: str,
    model_sha256: str,
    start: Path,
    experiment: str = "makermark",
) -> int:
    """Register the MLflow model in `folder` as a new version of `name`, and return the number of the version.

    The files are logged to the run that trained these weights. `alias` is set to the new version unless it is empty.
    Raises TrackingError if MLflow is not installed or fails, for an invalid name, and if there is no such run.
    """
    if not NAME.fullmatch(name):
        raise TrackingError(
            f"{name!r} is not a valid name of a model: / : % and quotation marks are not allowed"
        )
    if alias and not ALIAS.fullmatch(alias):
        raise TrackingError(
            f"{alias!r} is not a valid alias: it has letters, digits, - and _, and is not `latest` or a version (v1)"
        )
    existing_store(start)  # else an empty one would be created, which has no run of this model
    store = open_store(start, experiment=experiment)
    run = store.find_model_run(model_sha256)
    if run is None:
        raise TrackingError(
            f"MLflow at {store.uri} has no run of model {model_sha256[:12]}; record it first with `makermark log-run`"
        )
    versions = store.call(lambda: store.client.list_artifacts(run.info.run_id, ARTIFACT_FOLDER))
    subfolder = f"{ARTIFACT_FOLDER}/{len(versions) + 1}"  # every version has its own files
    store.call(lambda: store.client.log_artifacts(run.info.run_id, str(folder), subfolder))
    store.call(lambda: _create_model(store.client, name))
    version = store.call(
        lambda: store.client.create_model_version(
            name,
            f"runs:/{run.info.run_id}/{subfolder}",
            run_id=run.info.run_id,
            description=description,
            tags={MODEL_TAG: model_sha256},
        )
    )
    store.call(lambda: store.client.update_registered_model(name, description=description))
    if alias:
        store.call(lambda: store.client.set_registered_model_alias(name, alias, version.version))
    return int(version.version)


def _create_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise TrackingError(summarise_error(error)) from error


def download_artifact(uri: str, folder: Path, *, start: Path) -> Path:
    """Download `runs:/RUN/PATH`, `models:/NAME/VERSION` or `models:/NAME@ALIAS` into `folder`; return its path.

    The store is that of the repository around `start`. Raises TrackingError if MLflow is not installed or fails, and
    FilesError if `folder` is on a full disk.
    """
    quiet_mlflow()
    try:
        from mlflow.artifacts import download_artifacts
    except ImportError as error:
        raise TrackingError(f"{uri}: MLflow is not installed ({install_hint('pipeline')})") from error
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    store = existing_store(start)
    correct_locations(start)
    try:
        artifact_uri = _resolve_model_uri(uri, store) if uri.startswith(MODELS) else uri
        path = download_artifacts(artifact_uri=artifact_uri, dst_path=str(folder), tracking_uri=store)
    except Exception as error:
        _check_space(folder)
        raise TrackingError(f"{uri}: MLflow {summarise_error(error)}") from error
    return Path(path)


def _check_space(folder: Path) -> None:
    """Raise FilesError if a model does not fit into the temporary `folder`, a reason that MLflow does not give."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(LARGE_MODEL_BYTES))
            probe.flush()
    except FileNotFoundError:
        return
    except OSError as error:
        raise FilesError(
            f"{folder.parent}: {error.strerror}: the model cannot be copied there; free some space or set TMPDIR"
        ) from error


def _resolve_model_uri(uri: str, store: str) -> str:
    """Return the location of the files of a registered model.

    download_artifacts would look up the model in the store of the current folder, whatever its arguments are.
    """
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=store, registry_uri=store)
    path = uri.removeprefix(MODELS)
    if "@" in path:
        name, _, alias = path.rpartition("@")
        version = client.get_model_version_by_alias(name, alias).version
    else:
        name, _, version = path.rpartition("/")
    if version == "latest":
        versions = client.search_model_versions(f"name = '{name}'", order_by=["version_number DESC"])
        version = versions[0].version if versions else version
    return str(client.get_model_version_download_uri(name, version))
