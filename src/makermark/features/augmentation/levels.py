"""Level and silence.

Axes: T samples.
"""

from __future__ import annotations

import numpy as np

from makermark.features.augmentation.base import SAMPLE_RATE_HZ, AugmentationContext, Transform, limit_peak
from makermark.foundation.arrays import BoolArray, FloatArray
from makermark.foundation.audio import Samples
from makermark.foundation.signal_power import frame_power, is_speech

FRAME_SAMPLES = round(0.02 * SAMPLE_RATE_HZ)
SILENCE_POWER = 1e-20
SPEECH_LEVEL_DBFS = -26.0
FULL_SCALE = 32768


def gain(gain_db: float) -> Transform:
    """Return a transform that scales the samples of a 16-bit file, with rounding and clipping."""

    def transform(waveform: Samples, context: AugmentationContext) -> Samples:
        steps = np.round(waveform * (FULL_SCALE * 10 ** (gain_db / 20)))
        return np.asarray(np.clip(steps, -FULL_SCALE, FULL_SCALE - 1) / FULL_SCALE, dtype=np.float32)

    return transform


def clip_peaks(excess_db: float) -> Transform:
    """Return a transform that scales the peak to `excess_db` above full scale and clips at full scale."""

    def transform(waveform: Samples, context: AugmentationContext) -> Samples:
        factor = 10 ** (excess_db / 20) / max(float(np.abs(waveform).max()), 1e-12)
        return np.asarray(np.clip(waveform * factor, -1, 1), dtype=np.float32)

    return transform


def normalise_speech_level(waveform: Samples, context: AugmentationContext) -> Samples:
    """Scale the root mean square over the speech frames to -26 dBFS, or less if the peak would be clipped."""
    power = frame_power(waveform, FRAME_SAMPLES)
    speech_power = power[_find_speech(power)].mean()
    scaled = waveform * (10 ** (SPEECH_LEVEL_DBFS / 20) / np.sqrt(speech_power))
    return limit_peak(np.asarray(scaled, dtype=np.float32))


def trim_silence(waveform: Samples, context: AugmentationContext) -> Samples:
    """Cut the silence before and after the speech."""
    speech = np.flatnonzero(_find_speech(frame_power(waveform, FRAME_SAMPLES)))
    end = min((int(speech[-1]) + 1) * FRAME_SAMPLES, len(waveform))
    return waveform[int(speech[0]) * FRAME_SAMPLES : end]


def remove_pauses(waveform: Samples, context: AugmentationContext) -> Samples:
    """Keep only the speech frames."""
    speech = _find_speech(frame_power(waveform, FRAME_SAMPLES))
    mask = np.repeat(speech, FRAME_SAMPLES)[: len(waveform)]
    return waveform[: len(speech) * FRAME_SAMPLES][mask]


def _find_speech(power: FloatArray) -> BoolArray:
    return is_speech(power, floor=SILENCE_POWER)
