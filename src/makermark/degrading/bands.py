"""Less band than there was: the telephone's, another sample rate's, a low-pass. Legend of axes: T samples."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, firwin, sosfiltfilt

from makermark.audio import Samples
from makermark.degrading.base import RATE_HZ, Change, Draw, fitted
from makermark.degrading.codecs import resampled

TELEPHONE_HZ = (300, 3400)
ORDER = 6  # of the telephone's band-pass, run forwards and backwards
TAPS = 513


def telephone(waveform: Samples, draw: Draw) -> Samples:
    """300 to 3400 Hz at 8 kHz, and back to the rate it had; no coding. No delay."""
    narrow = resampled(waveform, RATE_HZ, 8000)
    band = sosfiltfilt(butter(ORDER, TELEPHONE_HZ, "bandpass", fs=8000, output="sos"), narrow)
    return fitted(resampled(band.astype(np.float32), 8000, RATE_HZ), len(waveform))


def by_way_of(rate_hz: int) -> Change:
    """Resampled to `rate_hz` and back."""

    def change(waveform: Samples, draw: Draw) -> Samples:
        return fitted(resampled(resampled(waveform, RATE_HZ, rate_hz), rate_hz, RATE_HZ), len(waveform))

    return change


def below(highest_hz: float) -> Change:
    """A linear-phase low-pass: half the amplitude at `highest_hz`, 60 dB less 150 Hz above it. No delay."""

    def change(waveform: Samples, draw: Draw) -> Samples:
        return fftconvolve(waveform, _low_pass(highest_hz), mode="full")[TAPS // 2 :][: len(waveform)].astype(
            np.float32
        )

    return change


@cache
def _low_pass(highest_hz: float) -> NDArray[np.floating[Any]]:
    taps: NDArray[np.floating[Any]] = firwin(TAPS, highest_hz, window="blackman", fs=RATE_HZ)
    return taps
