"""Additive noise at a given signal-to-noise ratio.

Axes: T samples.
"""

from __future__ import annotations

import numpy as np

from makermark.features.augmentation.base import (
    SAMPLE_RATE_HZ,
    AugmentationContext,
    Transform,
    limit_peak,
    rms,
)
from makermark.foundation.audio import Samples

BABBLE_TALKERS = 6
SPECTRUM_POINTS = 512


def white_noise(length: int, speech: Samples, context: AugmentationContext) -> Samples:
    """Return white noise (length,)."""
    return context.rng.standard_normal(length).astype(np.float32)


def speech_shaped_noise(length: int, speech: Samples, context: AugmentationContext) -> Samples:
    """Return noise (length,) with the long-term spectrum of `speech`, so that it masks all bands equally."""
    from scipy.signal import welch  # here: every stage imports this module, and SciPy takes a second

    frequencies, power = welch(speech, SAMPLE_RATE_HZ, nperseg=min(SPECTRUM_POINTS, len(speech)))
    spectrum = np.fft.rfft(context.rng.standard_normal(length))
    shape = np.sqrt(np.interp(np.fft.rfftfreq(length, 1 / SAMPLE_RATE_HZ), frequencies, power))
    return np.fft.irfft(spectrum * shape, length).astype(np.float32)


def babble_noise(length: int, speech: Samples, context: AugmentationContext) -> Samples:
    """Return the sum (length,) of BABBLE_TALKERS other utterances at equal level.

    Raises ValueError if the context has no voices.
    """
    if not context.voices:
        raise ValueError("babble noise needs other utterances: pass voices")
    indices = context.rng.integers(len(context.voices), size=BABBLE_TALKERS)
    starts = context.rng.integers(length, size=BABBLE_TALKERS)
    mixed = np.zeros(length, dtype=np.float32)
    for voice, start in zip((context.voices[index] for index in indices), starts, strict=True):
        mixed += np.roll(np.resize(voice / max(rms(voice), 1e-12), length), start)
    return mixed


SOURCES = {"white": white_noise, "speech-shaped": speech_shaped_noise, "babble": babble_noise}


def add_noise(source: str, snr_db: float) -> Transform:
    """Return a transform that adds noise of SOURCES[source]; both powers are means that include pauses."""

    def transform(waveform: Samples, context: AugmentationContext) -> Samples:
        return mix_at_snr(waveform, SOURCES[source](len(waveform), waveform, context), snr_db)

    return transform


def mix_at_snr(waveform: Samples, noise: Samples, snr_db: float) -> Samples:
    """Add the noise at this ratio; the sum is scaled down if it would be clipped."""
    factor = rms(waveform) / max(rms(noise), 1e-12) * 10 ** (-snr_db / 20)
    return limit_peak(np.asarray(waveform + factor * noise, dtype=np.float32))
