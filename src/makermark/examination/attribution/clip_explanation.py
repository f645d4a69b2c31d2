"""Explanation of the similarity of one clip to a system: attribution and deletion test.

Legend of axes: T frames, F bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from makermark.examination.attribution.deletion_test import DeletionResult, run_deletion_test
from makermark.examination.attribution.methods import METHODS, SimilarityModel, cosine_and_baseline
from makermark.features.fbank import FilterBank
from makermark.features.linear_fbank_changes import LinearFbankChanges
from makermark.foundation.arrays import Float32Array, FloatArray
from makermark.foundation.errors import TracerError
from makermark.tracing.extractor import Audio
from makermark.tracing.tracer import Tracer

MAX_EXPLAINED_SECONDS = 20.0


@dataclass(frozen=True)
class ClipBands:
    """A clip as input of a similarity model.

    - model: similarity to a system as a function of `bands` (1, T, F)
    - log_energies, times_s, bands_hz: as in Explanation
    """

    model: SimilarityModel
    bands: Tensor
    log_energies: Float32Array
    times_s: FloatArray
    bands_hz: FloatArray


@dataclass(frozen=True)
class Explanation:
    """Attribution of the similarity of a clip to a system.

    - cosine: of the clip and the centroid of the system; baseline_cosine: with every band at its mean
    - attribution (T, F): positive where a cell supports the system. For integrated gradients in units of the cosine,
      and negative where a cell opposes the system; the sum is cosine - baseline_cosine + completeness_gap. For Grad-CAM
      not negative, without unit, and completeness_gap is None
    - log_energies (T, F): the filter bank, natural logarithm
    - times_s (T,): centre of each frame; bands_hz (F,): peak frequency of each band
    - deletion: result of the deletion test
    """

    system: str
    method: str
    cosine: float
    baseline_cosine: float
    completeness_gap: float | None
    attribution: Float32Array
    log_energies: Float32Array
    times_s: FloatArray
    bands_hz: FloatArray
    deletion: DeletionResult


def explain_clip(
    tracer: Tracer,
    audio: Audio,
    *,
    system: str,
    method: str = "integrated_gradients",
    start_s: float = 0.0,
    longest_s: float = MAX_EXPLAINED_SECONDS,
    unit: str = "cells",
    draws: int = 4,
    seed: int = 0,
) -> Explanation:
    """Attribute the similarity of a clip to `system` of the gallery to the cells of its filterbank.

    The segment from `start_s`, of at most `longest_s` seconds, is explained as a clip of its own. `method` is one of
    METHODS; `unit` and `draws` are parameters of the deletion test, and `seed` determines its random draws. Raises
    AudioError for an unusable clip, TracerError for a system that is not in the gallery or a segment beyond the end,
    AttributionError for a backbone that does not read filterbanks or if Captum is missing.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not one of {list(METHODS)}")
    clip = prepare_clip(tracer, audio, system=system, start_s=start_s, longest_s=longest_s)
    attribution = METHODS[method](clip.model, clip.bands)
    deletion = run_deletion_test(clip.model, clip.bands, attribution, seed=seed, unit=unit, draws=draws)
    cosine, baseline = cosine_and_baseline(clip.model, clip.bands)
    gap = float(attribution.sum(dtype=np.float64)) - (cosine - baseline)
    return Explanation(
        system=system,
        method=method,
        cosine=cosine,
        baseline_cosine=baseline,
        completeness_gap=gap if method == "integrated_gradients" else None,
        attribution=attribution,
        log_energies=clip.log_energies,
        times_s=clip.times_s,
        bands_hz=clip.bands_hz,
        deletion=deletion,
    )


def prepare_clip(
    tracer: Tracer,
    audio: Audio,
    *,
    system: str,
    start_s: float = 0.0,
    longest_s: float = MAX_EXPLAINED_SECONDS,
) -> ClipBands:
    """Return the segment of a clip from `start_s`, of at most `longest_s` seconds, as input of a similarity model.

    Raises what `explain_clip` raises.
    """
    front_end = tracer.extractor.front_end
    model = SimilarityModel(tracer.extractor.backbone, tracer.centroid(system), front_end=front_end.name)
    assert isinstance(front_end, FilterBank | LinearFbankChanges)  # otherwise SimilarityModel raises
    rate_hz = front_end.sample_rate_hz
    waveform, first = tracer.load_clip(audio).waveform, round(start_s * rate_hz)
    segment = waveform[first : first + round(longest_s * rate_hz)]
    if first < 0 or len(segment) < front_end.min_samples:
        raise TracerError(
            f"nothing to explain from {start_s:g} s on: the clip has {len(waveform) / rate_hz:.1f} s"
        )
    features, bands_hz = front_end.transform([segment])[0], front_end.band_centres_hz()
    return ClipBands(
        model=model,
        bands=model.normalised_bands(features),
        log_energies=features[:, : len(bands_hz)].astype(np.float32),
        times_s=start_s + np.arange(len(features)) / front_end.frames_per_second,
        bands_hz=bands_hz,
    )
