"""Bandwidth limits: telephone band, resampling, low-pass filters.

Axes: T samples.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, firwin, sosfiltfilt

from makermark.features.augmentation.base import SAMPLE_RATE_HZ, AugmentationContext, Transform, fit_length
from makermark.features.augmentation.codecs import resample
from makermark.foundation.audio import Samples

TELEPHONE_BAND_HZ = (300, 3400)
TELEPHONE_RATE_HZ = 8000
FILTER_ORDER = 6  # of the telephone band-pass, applied forwards and backwards
LOW_PASS_TAPS = 513


def telephone(waveform: Samples, context: AugmentationContext) -> Samples:
    """Band-pass from 300 to 3400 Hz at 8 kHz, without coding and without delay."""
    return telephone_band(waveform, TELEPHONE_BAND_HZ)


def telephone_band(waveform: Samples, band_hz: tuple[float, float]) -> Samples:
    """Band-pass between the two frequencies at 8 kHz, -3 dB at each, without coding and without delay."""
    narrow = resample(waveform, SAMPLE_RATE_HZ, TELEPHONE_RATE_HZ)
    sections = butter(FILTER_ORDER, band_hz, "bandpass", fs=TELEPHONE_RATE_HZ, output="sos")
    band = sosfiltfilt(sections, narrow).astype(np.float32)
    return fit_length(resample(band, TELEPHONE_RATE_HZ, SAMPLE_RATE_HZ), len(waveform))


def resample_roundtrip(rate_hz: int) -> Transform:
    """Return a transform that resamples to `rate_hz` and back."""

    def transform(waveform: Samples, context: AugmentationContext) -> Samples:
        resampled = resample(waveform, SAMPLE_RATE_HZ, rate_hz)
        return fit_length(resample(resampled, rate_hz, SAMPLE_RATE_HZ), len(waveform))

    return transform


def low_pass(cutoff_hz: float) -> Transform:
    """Return a linear-phase low-pass without delay: -6 dB at `cutoff_hz`, -60 dB from 150 Hz above it."""

    def transform(waveform: Samples, context: AugmentationContext) -> Samples:
        filtered = fftconvolve(waveform, _low_pass_taps(cutoff_hz), mode="full")
        return filtered[LOW_PASS_TAPS // 2 :][: len(waveform)].astype(np.float32)

    return transform


@cache
def _low_pass_taps(cutoff_hz: float) -> NDArray[np.floating[Any]]:
    taps: NDArray[np.floating[Any]] = firwin(LOW_PASS_TAPS, cutoff_hz, window="blackman", fs=SAMPLE_RATE_HZ)
    return taps
