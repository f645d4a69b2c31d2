"""Experiment tracking with MLflow, or without tracking.

A run is identified by its model: training tags its run with MODEL_TAG, the SHA-256 of the best weights, and later
stages add metrics of these weights to the same run. A tracking server that fails never stops a training: it costs one
warning.
"""

from makermark.foundation.tracking.artifact_locations import correct_locations
from makermark.foundation.tracking.datasets import DatasetRecord, dataset_records
from makermark.foundation.tracking.mlflow_store import MODEL_TAG, RunRecord, query_runs, quiet_mlflow
from makermark.foundation.tracking.model_registry import download_artifact, register_model
from makermark.foundation.tracking.provenance import (
    existing_store,
    find_main_repository,
    provenance_tags,
    stage_outputs_hash,
    tracking_uri,
)
from makermark.foundation.tracking.tracker import (
    NoTracker,
    Tracker,
    flatten_metrics,
    flatten_settings,
    log_epoch,
    log_run,
    open_model_run,
    open_run,
)

__all__ = [
    "MODEL_TAG",
    "DatasetRecord",
    "NoTracker",
    "RunRecord",
    "Tracker",
    "correct_locations",
    "dataset_records",
    "download_artifact",
    "existing_store",
    "find_main_repository",
    "flatten_metrics",
    "flatten_settings",
    "log_epoch",
    "log_run",
    "open_model_run",
    "open_run",
    "provenance_tags",
    "query_runs",
    "quiet_mlflow",
    "register_model",
    "stage_outputs_hash",
    "tracking_uri",
]
