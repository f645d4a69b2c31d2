"""The waveform as 16-bit integers, for backbones that take raw audio.

Axes: T samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from makermark.features.front_end import MINUTE_SAMPLES, Features, Scalar
from makermark.foundation.audio import RESAMPLER, Samples
from makermark.foundation.errors import ParamsError

FULL_SCALE = 32768
SAMPLE_RATE_HZ = 16000


class Waveform:
    """One value per sample: round(32768 x), clipped to the range of int16; divide by 32768 to invert.

    Lossless for 16-bit files at `sample_rate_hz`. Raises ParamsError for another rate than 16 kHz.
    """

    name = "waveform"
    width = 1
    dtype: np.dtype[Any] = np.dtype(np.int16)
    chunk_samples = MINUTE_SAMPLES
    min_samples = 1

    def __init__(self, *, sample_rate_hz: int) -> None:
        if sample_rate_hz != SAMPLE_RATE_HZ:
            raise ParamsError(
                f"front end waveform: sample_rate_hz is {sample_rate_hz}; it must be {SAMPLE_RATE_HZ}, the rate of "
                "the backbones that read it"
            )
        self.sample_rate_hz = sample_rate_hz
        self.frames_per_second = float(sample_rate_hz)

    def parameters(self) -> dict[str, Scalar]:
        return {
            "front_end": self.name,
            "sample_rate_hz": self.sample_rate_hz,
            "resampler": RESAMPLER,
            "full_scale": FULL_SCALE,
            "dtype": self.dtype.name,
        }

    def libraries(self) -> Sequence[str]:
        return ("numpy", "soundfile", "soxr")

    def transform(self, waveforms: Sequence[Samples]) -> list[Features]:
        """Return features (T, 1) int16 of each waveform."""
        return [_to_int16(waveform)[:, None] for waveform in waveforms]


def _to_int16(waveform: Samples) -> Features:
    scaled = np.rint(waveform * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
