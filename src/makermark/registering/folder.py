"""The folder that MLflow loads: the model's files, the code that asks it, its signature, its card."""

from __future__ import annotations

import base64
import io
import logging
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from makermark import tracking
from makermark.errors import TracerError, TrackingError, how_to_add
from makermark.files import read_json
from makermark.registering.asking import FIGURES
from makermark.registering.card import card
from makermark.tracing import Tracer

MODELS = "models"  # the folder of the tracer's files inside the model
CARD = "README.md"
IMPORTED = (  # distributions that a tracer runs on; makermark itself travels with the model as source
    "filelock", "numba", "numpy", "pandas", "pyarrow", "pyyaml", "rich", "safetensors", "scikit-learn", "scipy",
    "soundfile", "soxr", "torch", "torchaudio", "typer",
)  # fmt: skip
WITH_ENCODER = ("transformers",)


def register_tracer(models: Path, metrics: Path, *, name: str, alias: str, start: Path) -> int:
    """Register the tracer in `models` under `name` with its card, and let `alias` point to it; returns its version.

    `metrics` holds score.json and trace.json of the same model. Raises TracerError where they are of another,
    TrackingError where MLflow is absent or fails.
    """
    tracer = Tracer.load(models, device="cpu")
    description, trace = read_json(models / "best.json"), read_json(metrics / "trace.json")
    if trace.get("model_sha256") != tracer.model_sha256:
        raise TracerError(
            f"{metrics / 'trace.json'}: figures of another model; run the calibrate stage again"
        )
    text = card(
        name,
        description=description,
        score=read_json(metrics / "score.json"),
        trace=trace,
        gallery=tracer.gallery,
    )
    with tempfile.TemporaryDirectory(prefix="makermark-") as folder:
        written = Path(folder, "model")
        write_model(written, models, card=text, prior_known=tracer.settings.prior_known)
        return tracking.register(
            written,
            name=name,
            alias=alias,
            description=text,
            model_sha256=tracer.model_sha256,
            start=start,
        )


def write_model(folder: Path, models: Path, *, card: str, prior_known: float) -> None:
    """Write the tracer in `models` as an MLflow model that needs nothing of this machine but the libraries it lists.

    Raises TrackingError where MLflow is not installed.
    """
    tracking.hush()
    try:
        from mlflow import pyfunc
    except ImportError as error:
        raise TrackingError(f"MLflow is not installed; {how_to_add('pipeline')}") from error
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory(prefix="makermark-") as draft:
        packed = Path(draft, MODELS)
        packed.mkdir()
        for suffix in (".safetensors", ".json"):
            shutil.copy2(models / f"best{suffix}", packed)
        shutil.copytree(models / "tracer", packed / "tracer")
        source = Path(draft, "makermark")
        shutil.copytree(here.parent, source, ignore=shutil.ignore_patterns("__pycache__"))
        pyfunc.save_model(
            folder,
            python_model=here / "served.py",
            artifacts={MODELS: str(packed)},
            code_paths=[str(source)],
            pip_requirements=requirements(read_json(models / "best.json")),
            signature=_signature(prior_known),
            input_example=example(),
        )
    (folder / CARD).write_text(card, encoding="utf-8")


def requirements(description: dict[str, Any]) -> list[str]:
    """What the model runs on, at the versions installed here; a build's own mark, such as +cpu, is left out."""
    names = IMPORTED + (WITH_ENCODER if description.get("encoder") else ())
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in names]


def example() -> pd.DataFrame:
    """A request: a tone of half a second as a WAV file."""
    import soundfile

    rate_hz = 8000
    tone = 0.1 * np.sin(2 * np.pi * 220 * np.arange(rate_hz // 2) / rate_hz)
    file = io.BytesIO()
    soundfile.write(file, tone, rate_hz, subtype="PCM_16", format="WAV")
    return pd.DataFrame({"name": ["tone.wav"], "audio": [base64.b64encode(file.getvalue()).decode()]})


def _signature(prior_known: float) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Array

    asked = Schema(
        [
            ColSpec(DataType.string, "name", required=False),
            ColSpec(DataType.string, "audio", required=False),
            ColSpec(Array(DataType.double), "samples", required=False),
            ColSpec(DataType.long, "rate_hz", required=False),
        ]
    )
    texts, figures = ("clip", "verdict", "maker", "reason", "model_sha256"), FIGURES
    told = Schema(
        [
            *(ColSpec(DataType.string, name) for name in texts),
            *(ColSpec(DataType.double, name, required=False) for name in figures),
            ColSpec(Array(AnyType()), "candidates"),  # type: ignore[no-untyped-call]
        ]
    )
    return ModelSignature(
        inputs=asked,
        outputs=told,
        params=ParamSchema([ParamSpec("prior_known", DataType.double, prior_known)]),
    )
