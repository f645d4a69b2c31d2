"""Normalisation of every utterance, so that level, length and silence at the ends do not identify the system.

The audio is converted to 16 kHz mono; its DC offset is removed; it is cut at the first and the last frame of speech;
the length is limited to 8 s; the level is set to a random value. Bandwidth, pace and pauses of the speech stay.
"""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from makermark.foundation.arrays import Float32Array, FloatArray
from makermark.foundation.signal_power import frame_power, is_speech

VERSION = 2  # to be raised when the normalisation, or a setting of a vocoder, changes the samples of the same speech

SAMPLE_RATE_HZ = 16000
MIN_S, MAX_S = 2.0, 8.0
FRAME_SAMPLES = 160  # 10 ms
LEVEL_DBFS = -26.0  # root mean square over the speech frames
LEVEL_SPREAD_DB = 3.0
MAX_PEAK = 0.99


class UnusableError(Exception):
    """The audio is not usable as an utterance; the message gives the reason."""


def normalise_utterance(
    waveform: Float32Array, sample_rate_hz: int, *, rng: np.random.Generator
) -> NDArray[np.int16]:
    """Return the utterance as 16-bit samples (T,) at 16 kHz. Raises UnusableError."""
    position, spread = rng.uniform(), rng.uniform(-1.0, 1.0)
    if waveform.size < sample_rate_hz // 10 or not np.isfinite(waveform).all():
        raise UnusableError(f"{waveform.size} samples, or not finite")
    samples = np.asarray(waveform, np.float64) - waveform.mean(dtype=np.float64)
    if sample_rate_hz != SAMPLE_RATE_HZ:
        samples = soxr.resample(samples, sample_rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    samples = _cut(_trim_silence(samples), position=position)
    level = 10 ** ((LEVEL_DBFS + spread * LEVEL_SPREAD_DB) / 20)
    samples = samples * (level / active_rms(samples))
    samples = samples * min(1.0, MAX_PEAK / np.abs(samples).max())
    return np.asarray(np.round(samples * 32767), np.int16)


def _trim_silence(samples: FloatArray) -> FloatArray:
    """Cut silence at both ends, in whole frames. Raises UnusableError if there is no speech.

    No margin is left: some engines' audio ends with the speech, so any margin of the original would identify them.
    """
    speech = is_speech(frame_power(samples, FRAME_SAMPLES))
    if not speech.any():
        raise UnusableError("silence")
    first, last = np.flatnonzero(speech)[[0, -1]]
    return samples[first * FRAME_SAMPLES : (last + 1) * FRAME_SAMPLES]


def _cut(samples: FloatArray, *, position: float) -> FloatArray:
    """Cut long audio to MAX_S at a relative position in [0, 1]. Raises UnusableError if it is shorter than MIN_S."""
    max_samples = int(MAX_S * SAMPLE_RATE_HZ)
    start = int(position * max(0, len(samples) - max_samples))
    samples = samples[start : start + max_samples]
    if len(samples) < MIN_S * SAMPLE_RATE_HZ:
        raise UnusableError(f"{len(samples) / SAMPLE_RATE_HZ:.2f} s of speech, fewer than {MIN_S} s")
    return samples


def active_rms(samples: FloatArray) -> float:
    """Return the root mean square over the speech frames; pauses do not count."""
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    frames = frames[is_speech(frame_power(samples, FRAME_SAMPLES))]
    return float(np.sqrt(np.mean(frames**2)))
