"""Why a tracer finds a clip like a system: where in time and frequency, and whether that part matters.

Legend of axes: T frames, F bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from makermark.attributing import METHODS, Deletion, Likeness, band_centres_hz, delete, whole_and_baseline
from makermark.errors import TracerError
from makermark.tracing.tracer import Audio, Tracer

LONGEST_SECONDS = 20.0


@dataclass(frozen=True)
class LaidOut:
    """A clip as the network takes it: its likeness to a system as a function of bands (1, T, F); the rest as in
    Explanation."""

    likeness: Likeness
    bands: Tensor
    log_mel: NDArray[np.float32]
    times_s: NDArray[np.float64]
    bands_hz: NDArray[np.float64]


@dataclass(frozen=True)
class Explanation:
    """What of a clip speaks for a system.

    - system, method: as asked for
    - cosine: of the clip to the system's direction; baseline_cosine: with every band at its mean throughout
    - attribution (T, F) float32: positive where a cell speaks for the system. By integrated gradients in units of the
      cosine, negative where it speaks against; the sum is cosine - baseline_cosine + completeness_gap. By grad_cam
      never negative, in no unit, and completeness_gap is None
    - log_mel (T, F) float32: the filterbank itself, natural logarithm
    - times_s (T,): middle of each frame, from the beginning of the clip; bands_hz (F,): where each band is highest
    - deletion: the cosine with the highest attributions deleted, against as much elsewhere
    """

    system: str
    method: str
    cosine: float
    baseline_cosine: float
    completeness_gap: float | None
    attribution: NDArray[np.float32]
    log_mel: NDArray[np.float32]
    times_s: NDArray[np.float64]
    bands_hz: NDArray[np.float64]
    deletion: Deletion


def explain_clip(
    tracer: Tracer,
    audio: Audio,
    *,
    system: str,
    method: str = "integrated_gradients",
    start_s: float = 0.0,
    longest_s: float = LONGEST_SECONDS,
    unit: str = "cells",
    draws: int = 4,
    seed: int = 0,
) -> Explanation:
    """Lay the likeness of a clip to `system` of the gallery out over its filterbank.

    Of a long clip the stretch from `start_s` of at most `longest_s` seconds is explained, as if it were a clip of its
    own. `method` is one of METHODS; `unit` and `draws` are those of the deletion test, whose draws `seed` decides.
    Raises AudioError for what cannot be heard, TracerError for a system that is not in the gallery or a stretch beyond
    the end, AttributionError where the network does not read filterbanks or Captum is missing.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {list(METHODS)}")
    clip = lay_out(tracer, audio, system=system, start_s=start_s, longest_s=longest_s)
    attribution = METHODS[method](clip.likeness, clip.bands)
    deletion = delete(clip.likeness, clip.bands, attribution, seed=seed, unit=unit, draws=draws)
    cosine, baseline = whole_and_baseline(clip.likeness, clip.bands)
    gap = float(attribution.sum(dtype=np.float64)) - (cosine - baseline)
    return Explanation(
        system=system,
        method=method,
        cosine=cosine,
        baseline_cosine=baseline,
        completeness_gap=gap if method == "integrated_gradients" else None,
        attribution=attribution,
        log_mel=clip.log_mel,
        times_s=clip.times_s,
        bands_hz=clip.bands_hz,
        deletion=deletion,
    )


def lay_out(
    tracer: Tracer, audio: Audio, *, system: str, start_s: float = 0.0, longest_s: float = LONGEST_SECONDS
) -> LaidOut:
    """The stretch of a clip from `start_s` on, of at most `longest_s` seconds; raises what `explain_clip` does."""
    front_end = tracer.hearing.front_end
    likeness = Likeness(tracer.hearing.network, tracer.direction(system), front_end=front_end.name)
    rate_hz = front_end.sample_rate_hz
    waveform, first = tracer.waveform(audio), round(start_s * rate_hz)
    stretch = waveform[first : first + round(longest_s * rate_hz)]
    if first < 0 or len(stretch) < front_end.min_samples:
        raise TracerError(
            f"nothing to explain from {start_s:g} s on: the clip has {len(waveform) / rate_hz:.1f} s"
        )
    features = front_end.transform([stretch])[0]
    return LaidOut(
        likeness=likeness,
        bands=likeness.bands_of(features),
        log_mel=features.astype(np.float32),
        times_s=start_s + np.arange(len(features)) / front_end.frames_per_second,
        bands_hz=band_centres_hz(front_end.width, sample_rate_hz=rate_hz),
    )
