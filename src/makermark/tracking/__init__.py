"""Where runs are written down: MLflow, or nowhere.

A run is found again by the model it made, not by an id in a file: training ends by tagging its run
with MODEL_TAG, the SHA-256 of the best weights, and whoever later scores or probes these weights adds
to that run. Nothing here ever ends a training: a server that is down costs one warning.
"""

from makermark.tracking.fetching import download
from makermark.tracking.mlflow_store import hush
from makermark.tracking.opening import open_model_run, open_run
from makermark.tracking.provenance import outputs_hash, provenance
from makermark.tracking.recorded import Recorded, recorded_runs
from makermark.tracking.registering import register
from makermark.tracking.repository import main_repository, tracking_uri
from makermark.tracking.tracker import MODEL_TAG, NoTracker, Tracker, flatten, log_epoch, numbers
from makermark.tracking.whole import log_run

__all__ = [
    "MODEL_TAG",
    "NoTracker",
    "Recorded",
    "Tracker",
    "download",
    "flatten",
    "hush",
    "log_epoch",
    "log_run",
    "main_repository",
    "numbers",
    "open_model_run",
    "open_run",
    "outputs_hash",
    "provenance",
    "recorded_runs",
    "register",
    "tracking_uri",
]
