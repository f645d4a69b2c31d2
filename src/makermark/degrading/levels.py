"""Level and silence. Legend of axes: T samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from makermark.audio import Samples
from makermark.degrading.base import RATE_HZ, Change, Draw, unclipped

FRAME = round(0.02 * RATE_HZ)
SPEECH_DB = 40.0  # below the loudest frame still counts as speech
EQUAL_DBFS = -26.0
FULL_SCALE = 32768


def louder_by(gain_db: float) -> Change:
    """Gain on the samples of a 16-bit file: rounded to its steps, clipped at its full scale."""

    def change(waveform: Samples, draw: Draw) -> Samples:
        steps = np.round(waveform * (FULL_SCALE * 10 ** (gain_db / 20)))
        return np.asarray(np.clip(steps, -FULL_SCALE, FULL_SCALE - 1) / FULL_SCALE, dtype=np.float32)

    return change


def clipped_by(over_db: float) -> Change:
    """Turned up until the peak lies `over_db` above full scale, where a file cuts it off."""

    def change(waveform: Samples, draw: Draw) -> Samples:
        gain = 10 ** (over_db / 20) / max(float(np.abs(waveform).max()), 1e-12)
        return np.asarray(np.clip(waveform * gain, -1, 1), dtype=np.float32)

    return change


def equally_loud(waveform: Samples, draw: Draw) -> Samples:
    """Its speech at EQUAL_DBFS (root mean square over the frames of speech), or less where a peak would be clipped."""
    power = frame_power(waveform)
    speech = power[is_speech(power)].mean()
    return unclipped(np.asarray(waveform * (10 ** (EQUAL_DBFS / 20) / np.sqrt(speech)), dtype=np.float32))


def trimmed(waveform: Samples, draw: Draw) -> Samples:
    """Without the silence before and after the speech."""
    speech = np.flatnonzero(is_speech(frame_power(waveform)))
    end = min((int(speech[-1]) + 1) * FRAME, len(waveform))
    return waveform[int(speech[0]) * FRAME : end]


def without_pauses(waveform: Samples, draw: Draw) -> Samples:
    """The frames of speech alone."""
    speech = is_speech(frame_power(waveform))
    return waveform[: len(speech) * FRAME][np.repeat(speech, FRAME)[: len(waveform)]]


def frame_power(waveform: Samples) -> NDArray[np.float64]:
    """Mean square of each FRAME; of what is shorter, as one."""
    count = max(1, len(waveform) // FRAME)
    whole = waveform[: count * FRAME].astype(np.float64)
    return np.asarray(np.square(whole).reshape(count, -1).mean(axis=1))


def is_speech(power: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Frames no more than SPEECH_DB below the loudest."""
    return np.asarray(power >= max(power.max() * 10 ** (-SPEECH_DB / 10), 1e-20))
