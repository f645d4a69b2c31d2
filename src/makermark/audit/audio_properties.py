"""Simple properties of the audio of a file as it is stored: sample rate, bandwidth, level, silence, duration.

Speech is what `foundation.signal_power` counts as speech. Axes: T samples, F frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import welch

from makermark.foundation import audio, signal_power
from makermark.foundation.arrays import Float32Array
from makermark.foundation.errors import AudioError
from makermark.foundation.progress import track
from makermark.foundation.signal_power import frame_power, is_speech

FRAME_S = 0.01
SPECTRUM_SAMPLES = 1024


@dataclass(frozen=True)
class AudioProperty:
    """The measurements that describe a property, and the remedy if the property predicts the system."""

    measurements: tuple[str, ...]
    remedy: str


PROPERTIES: dict[str, AudioProperty] = {
    "sample rate": AudioProperty(
        ("sample_rate_hz",),
        "the features are resampled to 16 kHz, which does not change the bandwidth; check the bandwidth",
    ),
    "bandwidth": AudioProperty(
        ("bandwidth_hz",), "compare with a model whose input is limited to the band of all systems"
    ),
    "level": AudioProperty(
        ("level_dbfs",), "use an instance-normalised fbank front end; a waveform model uses the level"
    ),
    "silence": AudioProperty(
        ("leading_silence_s", "trailing_silence_s", "pause_percent"),
        "random crops remove part of it; trim the silence of the corpus",
    ),
    "duration": AudioProperty(
        ("duration_s",), "crops for training have one length; whole utterances differ in length"
    ),
}
MEASUREMENTS = tuple(name for prop in PROPERTIES.values() for name in prop.measurements)


def measure_audio(samples: Float32Array, sample_rate_hz: int) -> dict[str, float]:
    """Return the MEASUREMENTS of samples (T,).

    - bandwidth_hz: from Welch's power spectrum.
    - level_dbfs: root mean square over the speech frames, in dB relative to full scale.
    - leading_silence_s, trailing_silence_s: time before the first speech frame and after the last one.
    - pause_percent: the share of the frames between these two that are no speech.

    Raises AudioError if no frame has speech.
    """
    frame_samples = max(1, round(FRAME_S * sample_rate_hz))
    power = frame_power(samples, frame_samples)
    speech = is_speech(power)
    if not speech.any():
        raise AudioError(f"silent: no sound in the first {len(power)} frames of {FRAME_S:g} s")
    first, last = (int(frame) for frame in np.flatnonzero(speech)[[0, -1]])
    trailing_samples = max(0, len(samples) - (last + 1) * frame_samples)
    return {
        "sample_rate_hz": float(sample_rate_hz),
        "bandwidth_hz": bandwidth_hz(samples, sample_rate_hz),
        "level_dbfs": float(10 * np.log10(power[speech].mean())),
        "leading_silence_s": first * frame_samples / sample_rate_hz,
        "trailing_silence_s": trailing_samples / sample_rate_hz,
        "pause_percent": 100 * float(1 - speech[first : last + 1].mean()),
        "duration_s": len(samples) / sample_rate_hz,
    }


def bandwidth_hz(samples: Float32Array, sample_rate_hz: int) -> float:
    """Return the bandwidth of `samples` (T,) from Welch's power spectrum."""
    nperseg = min(SPECTRUM_SAMPLES, len(samples))
    return signal_power.bandwidth_hz(*welch(samples, sample_rate_hz, nperseg=nperseg))


def measure_files(
    files: Iterable[Path], *, total: int, workers: int
) -> tuple[list[dict[str, float] | None], list[str]]:
    """Return the MEASUREMENTS of each file (None for an unusable file), and the sorted reasons of the unusable ones."""
    reasons: list[str] = []

    def measure_file(file: Path) -> dict[str, float] | None:
        try:
            recording = audio.load(file, sample_rate_hz=None)
        except AudioError as error:
            reasons.append(str(error))
            return None
        try:
            return measure_audio(recording.waveform, recording.rate_hz)
        except AudioError as error:
            reasons.append(f"{file}: {error}")
            return None

    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(measure_file, files)
        measured = list(track(results, total=total, description="measuring files"))
    return measured, sorted(reasons)
