"""The waveform itself as 16-bit integers, for backbones that learn their own front end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from makermark.audio import RESAMPLER, Samples
from makermark.errors import ParamsError
from makermark.features.base import MINUTE, Features, Scalar

FULL_SCALE = 32768
RATE_HZ = 16000


class Waveform:
    """One frame is one sample: round(32768 x), limited to the range of int16; divide by 32768 to go back.

    Lossless for 16-bit files at `sample_rate_hz`.
    """

    name = "waveform"
    width = 1
    dtype: np.dtype[Any] = np.dtype(np.int16)
    samples_at_once = MINUTE
    min_samples = 1

    def __init__(self, *, sample_rate_hz: int) -> None:
        if sample_rate_hz != RATE_HZ:
            raise ParamsError(
                f"front end waveform: sample_rate_hz is {sample_rate_hz}; it is {RATE_HZ}, for which the backbones "
                "that read it are made"
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
        return [_to_int16(waveform)[:, None] for waveform in waveforms]


def _to_int16(waveform: Samples) -> Features:
    scaled = np.rint(waveform * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
