"""Clips in a table, verdicts in a table: what the served model answers. Knows no MLflow."""

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

from makermark.errors import AudioError
from makermark.tracing import Trace, Tracer

SHOWN = 5  # candidates, besides all that are in the set
NOT_HEARD = "could not be heard"
FIGURES = ("duration_s", "speech_s", "log10_lr", "posterior", "posterior_unknown", "prior_known")


def answer(tracer: Tracer, clips: pd.DataFrame) -> pd.DataFrame:
    """A row for each clip, in their order: what the verdict is, of which maker, and how sure that is.

    A clip is `audio` (a file's bytes in Base64, of any format that libsndfile reads) or `samples` (numbers, full scale
    1) with `rate_hz`; `name` is repeated in the answer. One that cannot be heard has that as its verdict, and why as
    its reason.
    """
    rows = [_row(tracer, clip, number) for number, clip in enumerate(clips.to_dict("records"))]
    return pd.DataFrame(rows, dtype=object)  # so that what is not there is null in JSON, not NaN


def _row(tracer: Tracer, clip: Mapping[Any, Any], number: int) -> dict[str, Any]:
    name = str(clip["name"]) if _given(clip, "name") else f"clip {number}"
    try:
        return {"clip": name, **_told(_trace(tracer, clip))}
    except AudioError as error:
        nothing: dict[str, Any] = dict.fromkeys(FIGURES)
        said = {"verdict": NOT_HEARD, "maker": "", "reason": str(error)}
        return {"clip": name, **said, **nothing, "candidates": [], "model_sha256": tracer.model_sha256}


def _trace(tracer: Tracer, clip: Mapping[Any, Any]) -> Trace:
    if _given(clip, "samples"):
        if not _given(clip, "rate_hz") or int(clip["rate_hz"]) <= 0:
            raise AudioError("samples: rate_hz is missing, or not above 0")
        return tracer.trace((np.asarray(clip["samples"], dtype=np.float32), int(clip["rate_hz"])))
    if not _given(clip, "audio"):
        raise AudioError("neither audio nor samples are given")
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


def _given(clip: Mapping[Any, Any], name: str) -> bool:
    value = clip.get(name)
    return value is not None and not (isinstance(value, float) and np.isnan(value))


def _told(trace: Trace) -> dict[str, Any]:
    likeliest = trace.candidates[0]
    return {
        "verdict": trace.verdict,
        "maker": trace.name,
        "reason": trace.reason,
        "duration_s": trace.duration_s,
        "speech_s": trace.speech_s,
        "log10_lr": likeliest.log10_lr,
        "posterior": likeliest.posterior,
        "posterior_unknown": trace.posterior_unknown,
        "prior_known": trace.prior_known,
        "candidates": [
            asdict(each) for place, each in enumerate(trace.candidates) if place < SHOWN or each.in_set
        ],
        "model_sha256": trace.model_sha256,
    }
