"""Predictions of the registered model: a table of clips in, a table of conclusions out. Independent of MLflow."""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from makermark.foundation.errors import AudioError
from makermark.tracing import Trace, Tracer

MAX_CANDIDATES = 5  # listed besides those of the candidate set
UNREADABLE = "could not be heard"  # conclusion for a clip that cannot be read
NUMBER_COLUMNS = ("duration_s", "speech_s", "log10_lr", "posterior", "posterior_unknown", "prior_known")


def predict_clips(tracer: Tracer, clips: pd.DataFrame) -> pd.DataFrame:
    """Return one row per clip, in order: conclusion, system, likelihood ratio and posteriors.

    A clip is either `audio` (the bytes of an audio file in Base64) or `samples` (numbers, full scale 1) with `rate_hz`.
    The optional `name` is repeated in the result. For an unreadable clip, `conclusion` is UNREADABLE and `reason` is
    the error message. `verdict` is the earlier name of `conclusion`.
    """
    rows = [_predict_clip(tracer, clip, index) for index, clip in enumerate(clips.to_dict("records"))]
    return pd.DataFrame(rows, dtype=object)  # a missing value becomes null in JSON, not NaN


def _predict_clip(tracer: Tracer, clip: Mapping[Any, Any], index: int) -> dict[str, Any]:
    name = str(clip["name"]) if _has_value(clip, "name") else f"clip {index}"
    try:
        return {"clip": name, **_trace_row(_trace(tracer, clip))}
    except AudioError as error:
        return {
            "clip": name,
            "conclusion": UNREADABLE,
            "verdict": UNREADABLE,
            "maker": "",
            "reason": str(error),
            **dict.fromkeys(NUMBER_COLUMNS),
            "candidates": [],
            "model_sha256": tracer.model_sha256,
        }


def _trace(tracer: Tracer, clip: Mapping[Any, Any]) -> Trace:
    if _has_value(clip, "samples"):
        if not _has_value(clip, "rate_hz") or int(clip["rate_hz"]) <= 0:
            raise AudioError("samples: rate_hz is missing, or not above 0")
        return tracer.trace((np.asarray(clip["samples"], dtype=np.float32), int(clip["rate_hz"])))
    if not _has_value(clip, "audio"):
        raise AudioError("the row has neither audio nor samples")
    try:
        content = base64.b64decode(clip["audio"], validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise AudioError(f"audio: not Base64 ({error})") from error
    with tempfile.TemporaryDirectory(prefix="makermark-") as folder:
        path = Path(folder, "clip")
        path.write_bytes(content)
        try:
            return tracer.trace(path)
        except AudioError as error:
            raise AudioError(str(error).removeprefix(f"{path}: ")) from error


def _has_value(clip: Mapping[Any, Any], column: str) -> bool:
    value = clip.get(column)
    return value is not None and not (isinstance(value, float) and np.isnan(value))


def _trace_row(trace: Trace) -> dict[str, Any]:
    top = trace.candidates[0]
    return {
        "conclusion": trace.conclusion,
        "verdict": trace.conclusion,
        "maker": trace.name,
        "reason": trace.reason,
        "duration_s": trace.duration_s,
        "speech_s": trace.speech_s,
        "log10_lr": top.log10_lr,
        "posterior": top.posterior,
        "posterior_unknown": trace.posterior_unknown,
        "prior_known": trace.prior_known,
        "candidates": [
            asdict(candidate)
            for index, candidate in enumerate(trace.candidates)
            if index < MAX_CANDIDATES or candidate.in_set
        ],
        "model_sha256": trace.model_sha256,
    }
