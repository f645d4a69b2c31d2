"""Files that MLflow keeps, brought here."""

from __future__ import annotations

import logging
from pathlib import Path

from makermark.errors import TrackingError, how_to_add
from makermark.tracking.mlflow_store import hush, reason
from makermark.tracking.repository import tracking_uri


def download(uri: str, folder: Path, *, start: Path) -> Path:
    """What stands at `runs:/RUN/PATH` or `models:/NAME/VERSION` of the store of the repository around `start`, copied
    into `folder`; returns where. Raises TrackingError where MLflow is absent or does not have it."""
    hush()
    try:
        from mlflow.artifacts import download_artifacts
    except ImportError as error:
        raise TrackingError(f"{uri}: MLflow is not installed ({how_to_add('pipeline')})") from error
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        where = tracking_uri(start)
        found = download_artifacts(artifact_uri=_place(uri, where), dst_path=str(folder), tracking_uri=where)
    except Exception as error:
        raise TrackingError(f"{uri}: MLflow {reason(error)}") from error
    return Path(found)


def _place(uri: str, where: str) -> str:
    """Where the files of a registered model lie: MLflow itself would look in the store of the current folder."""
    if not uri.startswith("models:/"):
        return uri
    from mlflow.store.artifact.utils.models import get_model_name_and_version
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=where, registry_uri=where)
    name, version = get_model_name_and_version(client, uri)  # type: ignore[no-untyped-call]
    return str(client.get_model_version_download_uri(name, version))
