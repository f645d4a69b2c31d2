"""What every utterance goes through, whoever spoke it, so that level, length and margins tell nothing.

To 16 kHz mono, offset removed, silence at both ends cut to a margin drawn at random, cut to 8 s at most, and
set to a level drawn at random. What is left of a speaker is the speech: its bandwidth, pace and pauses too.
"""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

VERSION = 1  # counts up when finishing, or a vocoder's settings, would make other samples of the same speech

RATE_HZ = 16000
SHORTEST_S, LONGEST_S = 2.0, 8.0
FRAME = 160  # samples: 10 ms
SPEECH_BELOW_LOUDEST_DB = 40.0  # a frame is speech if it lies no deeper under the loudest
MARGIN_S = (0.01, 0.04)  # of what was there around the speech
LEVEL_DBFS = -26.0  # root mean square over the frames of speech
LEVEL_SPREAD_DB = 3.0
PEAK = 0.99


class UnusableError(Exception):
    """What was said is no utterance: the message says why."""


def finish(waveform: NDArray[np.float32], rate_hz: int, *, rng: np.random.Generator) -> NDArray[np.int16]:
    """The utterance as 16-bit samples (T,) at 16 kHz. Raises UnusableError."""
    margin_s, place, spread = rng.uniform(*MARGIN_S), rng.uniform(), rng.uniform(-1.0, 1.0)
    if waveform.size < rate_hz // 10 or not np.isfinite(waveform).all():
        raise UnusableError(f"{waveform.size} samples, or not finite")
    samples = np.asarray(waveform, np.float64) - waveform.mean(dtype=np.float64)
    if rate_hz != RATE_HZ:
        samples = soxr.resample(samples, rate_hz, RATE_HZ, quality="HQ")
    speech = _is_speech(samples)
    if not speech.any():
        raise UnusableError("silence")
    first, last = np.flatnonzero(speech)[[0, -1]]
    margin = int(margin_s * RATE_HZ)
    samples = samples[max(0, first * FRAME - margin) : (last + 1) * FRAME + margin]
    longest = int(LONGEST_S * RATE_HZ)
    start = int(place * max(0, len(samples) - longest))
    samples = samples[start : start + longest]
    if len(samples) < SHORTEST_S * RATE_HZ:
        raise UnusableError(f"{len(samples) / RATE_HZ:.2f} s of speech, fewer than {SHORTEST_S} s")
    level = 10 ** ((LEVEL_DBFS + spread * LEVEL_SPREAD_DB) / 20)
    samples = samples * (level / active_rms(samples))
    samples = samples * min(1.0, PEAK / np.abs(samples).max())
    return np.asarray(np.round(samples * 32767), np.int16)


def active_rms(samples: NDArray[np.float64]) -> float:
    """Root mean square over the frames of speech only: pauses do not count."""
    frames = _frames(samples)[_is_speech(samples)]
    return float(np.sqrt(np.mean(frames**2)))


def _is_speech(samples: NDArray[np.float64]) -> NDArray[np.bool_]:
    power = np.mean(_frames(samples) ** 2, axis=1)
    return np.asarray((power > 0) & (power >= power.max() * 10 ** (-SPEECH_BELOW_LOUDEST_DB / 10)))


def _frames(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """(frames, FRAME): whole frames only."""
    return samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
