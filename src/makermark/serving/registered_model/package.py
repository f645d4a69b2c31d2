"""Packaging of the tracer as an MLflow model: files, code, signature, requirements and model card."""

from __future__ import annotations

import base64
import io
import logging
import shutil
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import makermark
from makermark.foundation import tracking
from makermark.foundation.errors import TracerError, TrackingError, install_hint
from makermark.foundation.files import read_json
from makermark.reporting.tables import results_markdown
from makermark.serving.registered_model.predict import NUMBER_COLUMNS
from makermark.tracing import Gallery, Tracer
from makermark.tracing.scope import describe_scope, describe_test_rates

MODELS = "models"  # folder of the tracer's files inside the model
CARD = "README.md"
TEXT_COLUMNS = ("clip", "conclusion", "verdict", "maker", "reason", "model_sha256")
REQUIREMENTS = (  # distributions that a tracer imports; makermark itself is part of the model as source
    "filelock", "numba", "numpy", "pandas", "pyarrow", "pydantic", "pyyaml", "rich", "safetensors", "scikit-learn",
    "scipy", "soundfile", "soxr", "torch", "torchaudio", "typer",
)  # fmt: skip
ENCODER_REQUIREMENTS = ("transformers",)
LICENCE_NOTE = "Check yourself what this means for weights trained on it."
LICENCES = {
    "local": (
        "Code: Apache-2.0. The training speech was made by synthesis engines with their own licences: some are GPL, "
        f"some have voices for non-commercial use only. docs/local-corpus.md lists them. {LICENCE_NOTE}"
    ),
    "mlaad-v5": f"Code: Apache-2.0. The training speech is MLAAD version 5, CC BY-NC 4.0. {LICENCE_NOTE}",
}
OTHER_LICENCE = f"Code: Apache-2.0. The training speech has the licence of its corpus. {LICENCE_NOTE}"
LIMITS = """\
- The model compares TTS systems. It assumes that a clip is synthetic and does not detect synthetic speech.
- It does not identify the user of a system or the speaker. A system outside the gallery is only reported as unknown.
- Many clips of known systems are also reported as `unknown system`; see the tables.
- The metrics hold for clean files of one corpus. They do not cover other engine versions, channels, codecs or noise.
- Likelihood ratios hold for systems and clips as in dev. They are less reliable for systems enrolled from few clips.
- The model is an investigative aid. No decision should rest on its result alone."""
PERCENT_COLUMNS = {
    "identification": "identification_percent",
    "named right": "seen_correct_percent",
    "family right": "seen_family_percent",
    "wrong": "seen_wrong_percent",
    "unknown": "seen_unknown_percent",
    "unseen: wrong": "unseen_wrong_percent",
    "unseen: family right": "unseen_family_percent",
    "unseen: unknown": "unseen_unknown_percent",
    "AUROC": "auroc_percent",
    "FPR95": "fpr95_percent",
    "coverage": "coverage_percent",
}


Metrics = Mapping[str, Any]


def register_tracer(models: Path, metrics: Path, *, name: str, alias: str, start: Path) -> int:
    """Register the tracer in `models` under `name`, with its card, and point `alias` to it; return the version.

    `metrics` holds score.json and trace.json of the same model. Raises TracerError if they belong to another model,
    TrackingError if MLflow is not installed or fails.
    """
    tracer = Tracer.load(models, device="cpu")
    description, trace = read_json(models / "best.json"), read_json(metrics / "trace.json")
    if trace.get("model_sha256") != tracer.model_sha256:
        raise TracerError(
            f"{metrics / 'trace.json'}: metrics of another model; run the calibrate stage again"
        )
    card = format_model_card(
        name,
        description=description,
        score=read_json(metrics / "score.json"),
        trace=trace,
        gallery=tracer.gallery,
    )
    with tempfile.TemporaryDirectory(prefix="makermark-") as folder:
        model = Path(folder, "model")
        write_model(model, models, card=card, prior_known=tracer.settings.prior_known)
        return tracking.register_model(
            model,
            name=name,
            alias=alias,
            description=card,
            model_sha256=tracer.model_sha256,
            start=start,
        )


def write_model(folder: Path, models: Path, *, card: str, prior_known: float) -> None:
    """Write the tracer in `models` as an MLflow model that depends only on the libraries it lists.

    Raises TrackingError if MLflow is not installed.
    """
    tracking.quiet_mlflow()
    try:
        from mlflow import pyfunc
    except ImportError as error:
        raise TrackingError(f"MLflow is not installed; {install_hint('pipeline')}") from error
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="makermark-") as draft:
        artifacts = Path(draft, MODELS)
        artifacts.mkdir()
        for suffix in (".safetensors", ".json"):
            shutil.copy2(models / f"best{suffix}", artifacts)
        shutil.copytree(models / "tracer", artifacts / "tracer")
        source = Path(draft, "makermark")
        package = Path(makermark.__file__).parent
        shutil.copytree(package, source, ignore=shutil.ignore_patterns("__pycache__"))
        pyfunc.save_model(
            folder,
            python_model=Path(__file__).with_name("pyfunc_model.py"),
            artifacts={MODELS: str(artifacts)},
            code_paths=[str(source)],
            pip_requirements=list_requirements(read_json(models / "best.json")),
            signature=_signature(prior_known),
            input_example=example_request(),
        )
    (folder / CARD).write_text(card, encoding="utf-8")


def list_requirements(description: dict[str, Any]) -> list[str]:
    """Return the model's requirements at the installed versions, without local version labels such as +cpu."""
    names = REQUIREMENTS + (ENCODER_REQUIREMENTS if description.get("encoder") else ())
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in names]


def example_request() -> pd.DataFrame:
    """Return a request with one clip: a tone of half a second as a WAV file."""
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

    inputs = Schema(
        [
            ColSpec(DataType.string, "name", required=False),
            ColSpec(DataType.string, "audio", required=False),
            ColSpec(Array(DataType.double), "samples", required=False),
            ColSpec(DataType.long, "rate_hz", required=False),
        ]
    )
    outputs = Schema(
        [
            *(ColSpec(DataType.string, name) for name in TEXT_COLUMNS),
            *(ColSpec(DataType.double, name, required=False) for name in NUMBER_COLUMNS),
            ColSpec(Array(AnyType()), "candidates"),  # type: ignore[no-untyped-call]
        ]
    )
    return ModelSignature(
        inputs=inputs,
        outputs=outputs,
        params=ParamSchema([ParamSpec("prior_known", DataType.double, prior_known)]),
    )


def format_model_card(
    name: str, *, description: Metrics, score: Metrics, trace: Metrics, gallery: Gallery
) -> str:
    """Return the card as Markdown, from the content of best.json, score.json, trace.json and the gallery."""
    params = description["params"]
    sections = [
        f"# {name}: source tracing of synthetic speech",
        _format_summary(description, gallery),
        "## Training data",
        _format_training_data(description, gallery),
        "## Scores by stratum",
        results_markdown(score).strip(),
        "## Tracing metrics on test, by clip length",
        describe_test_rates(trace["test"]),
        _format_tracing_metrics(trace),
        _format_enrolment(trace),
        "## Limits",
        LIMITS,
        "## Licence",
        LICENCES.get(params["corpus"], OTHER_LICENCE),
        "## Usage",
        _format_usage(name),
    ]
    return "\n\n".join(sections) + "\n"


def _format_summary(description: Metrics, gallery: Gallery) -> str:
    return (
        "The model names the TTS system of a synthetic voice. It consists of a "
        f"{description['backbone']} trained with the loss {description['loss']} ({description['dim']} dimensions), a "
        f"gallery of {len(gallery.systems)} systems, and a calibration of scores to likelihood ratios, fitted on dev. "
        f"{describe_scope(description['params'].get('corpus', ''), systems=len(description['systems']))}"
    )


def _format_training_data(description: Metrics, gallery: Gallery) -> str:
    table = gallery.summary
    languages = ", ".join(name or "(unknown)" for name in description["languages"] or ["not recorded"])
    systems = "\n".join(
        f"| {system} | {family or '-'} | {origin} | {clips} |"
        for system, family, origin, clips in table[["family", "origin", "clips"]].itertuples(name=None)
    )
    return (
        f"Corpus `{description['params']['corpus']}`, {int(table['clips'].sum())} utterances, languages: {languages}. "
        f"Commit {description['git_commit']}, feature fingerprint {description['feature_fingerprint'][:12] or '-'}, "
        f"weights {gallery.model_sha256}, epoch {description['epoch']} (dev EER "
        f"{description['dev_eer_percent']:.2f} %).\n\n"
        f"| system | family | origin | clips |\n| --- | --- | --- | ---: |\n{systems}"
    )


def _format_tracing_metrics(trace: Metrics) -> str:
    header = ["clip", "seen/unseen clips", *(f"{title}, %" for title in PERCENT_COLUMNS), "Cllr (min)"]
    rows = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for length, metrics in trace["test"].items():
        cllr, min_cllr = (_format_number(metrics[key], ".2f") for key in ("cllr", "min_cllr"))
        rows.append(
            [
                length,
                f"{metrics['seen_clips']}/{metrics['unseen_clips']}",
                *(_format_with_interval(metrics, key) for key in PERCENT_COLUMNS.values()),
                f"{cllr} ({min_cllr})",
            ]
        )
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return (
        f"{table}\n\nBrackets: 95 % confidence intervals over systems. Seen: systems of the gallery. identification "
        "(closed set): the candidate with the largest likelihood ratio is the true system, whether or not the tracer "
        "names it. named right, family right, wrong, "
        "unknown: the conclusions (the remaining clips have too little speech). AUROC, FPR95: seen against unseen "
        "systems. coverage: the true system is in the candidate set. Cllr: cost of the log-likelihood ratios in bits; "
        "1 for an uninformative system; in parentheses the minimum over calibrations."
    )


def _format_with_interval(metrics: Metrics, key: str) -> str:
    value = metrics[key]
    if value is None or metrics[f"{key}_ci95"] is None:
        return _format_number(value, ".1f")
    low, high = metrics[f"{key}_ci95"]
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _format_number(value: float | None, spec: str) -> str:
    return "-" if value is None else f"{value:{spec}}"


def _format_enrolment(trace: Metrics) -> str:
    metrics = trace["enrolment"]
    if not metrics["systems"]:
        return "Enrolment was not measured: every system of test is in the gallery."
    return (
        f"Enrolment: each of {metrics['systems']} unseen systems was enrolled from {metrics['clips']} clips. Of its "
        f"other clips, {_format_with_interval(metrics, 'identification_percent')} % are identified and "
        f"{_format_with_interval(metrics, 'named_percent')} % are named. The identification rate of the other systems "
        f"falls by {metrics['others_identification_loss_percent']:.2f} percentage points."
    )


def _format_usage(name: str) -> str:
    return f"""\
```bash
makermark trace --model models:/{name}@champion clip.wav      # or another alias, or models:/{name}/1
mlflow models serve -m models:/{name}@champion --env-manager local --port 5001
```

A request to `/invocations` has one row per clip: either `audio` (the bytes of a file in Base64) or `samples` with
`rate_hz`. The parameter `prior_known` is the prior probability that the system is in the gallery:

```json
{{"dataframe_records": [{{"name": "clip.wav", "audio": "UklGR..."}}], "params": {{"prior_known": 0.5}}}}
```"""
