"""Speech activity and bandwidth of a signal, by its power.

A frame is speech if its power is within a range of the loudest frame's. Levels, corpora and their audits use this rule:
their recordings are known to be speech, and another detector would change them. Steady noise and tones count as speech.
The tracer gets any audio and uses voice activity detection instead (makermark.tracing.voice_activity).

Legend of axes: T samples, F frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from makermark.foundation.arrays import BoolArray, FloatArray

SPEECH_RANGE_DB = 40.0
BANDWIDTH_RANGE_DB = 60.0
SMALLEST_POWER = float(np.nextafter(0.0, 1.0))  # excludes frames of digital silence


def frame_power(samples: NDArray[Any], frame_samples: int) -> FloatArray:
    """Return the mean square (F,) of each whole frame of `samples` (T,).

    Samples that fill no frame form a frame of their own; otherwise those after the last whole frame are ignored.
    """
    length = min(frame_samples, len(samples))
    frames = samples[: len(samples) // length * length].astype(np.float64).reshape(-1, length)
    return np.asarray((frames**2).mean(axis=1))


def is_speech(power: FloatArray, *, floor: float = SMALLEST_POWER) -> BoolArray:
    """Return for each frame whether its power (F,) is within SPEECH_RANGE_DB of the loudest and at least `floor`."""
    return np.asarray(power >= max(power.max() * 10 ** (-SPEECH_RANGE_DB / 10), floor))


def bandwidth_hz(frequencies_hz: FloatArray, power: NDArray[np.floating[Any]]) -> float:
    """Return the highest of `frequencies_hz` (K,) whose `power` (K,) is within BANDWIDTH_RANGE_DB of the maximum."""
    present = np.flatnonzero(power >= power.max() * 10 ** (-BANDWIDTH_RANGE_DB / 10))
    return float(frequencies_hz[present[-1]])
