"""Noise added at a stated ratio. Legend of axes: T samples."""

from __future__ import annotations

import numpy as np
from scipy.signal import welch

from makermark.audio import Samples
from makermark.degrading.base import RATE_HZ, Change, Draw, rms, unclipped

TALKERS = 6  # that babble together
SPECTRUM_POINTS = 512


def white(length: int, like: Samples, draw: Draw) -> Samples:
    """All frequencies alike."""
    return draw.rng.standard_normal(length).astype(np.float32)


def speech_shaped(length: int, like: Samples, draw: Draw) -> Samples:
    """With the long-term spectrum of the very utterance: it masks every band alike."""
    frequencies, power = welch(like, RATE_HZ, nperseg=min(SPECTRUM_POINTS, len(like)))
    spectrum = np.fft.rfft(draw.rng.standard_normal(length))
    shape = np.sqrt(np.interp(np.fft.rfftfreq(length, 1 / RATE_HZ), frequencies, power))
    return np.fft.irfft(spectrum * shape, length).astype(np.float32)


def babble(length: int, like: Samples, draw: Draw) -> Samples:
    """TALKERS of the other utterances at once, equally loud; raises ValueError where there are none."""
    if not draw.voices:
        raise ValueError("babble needs other utterances")
    chosen = draw.rng.integers(len(draw.voices), size=TALKERS)
    starts = draw.rng.integers(length, size=TALKERS)
    mixed = np.zeros(length, dtype=np.float32)
    for voice, start in zip((draw.voices[number] for number in chosen), starts, strict=True):
        mixed += np.roll(np.resize(voice / max(rms(voice), 1e-12), length), start)
    return mixed


SOURCES = {"white": white, "speech-shaped": speech_shaped, "babble": babble}


def with_noise(source: str, snr_db: float) -> Change:
    """Noise of SOURCES[source]; `snr_db` is mean power over mean power, pauses included."""

    def change(waveform: Samples, draw: Draw) -> Samples:
        return mixed_at(waveform, SOURCES[source](len(waveform), waveform, draw), snr_db)

    return change


def mixed_at(waveform: Samples, noise: Samples, snr_db: float) -> Samples:
    """Both together; turned down as a whole where the sum would clip."""
    gain = rms(waveform) / max(rms(noise), 1e-12) * 10 ** (-snr_db / 20)
    return unclipped(np.asarray(waveform + gain * noise, dtype=np.float32))
