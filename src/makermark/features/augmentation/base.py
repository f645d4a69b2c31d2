"""The type of an augmentation, the definition of a condition, and functions that several augmentations share.

Axes: T samples.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from makermark.foundation.audio import Samples
from makermark.foundation.errors import ParamsError, install_hint

SAMPLE_RATE_HZ = 16000  # of all waveforms in this package
PACKAGES = ("av", "pyroomacoustics")
MAX_PEAK = 0.99  # louder waveforms would be clipped in a file


@dataclass(frozen=True)
class AugmentationContext:
    """The source of randomness of an augmentation, and other utterances for babble noise."""

    rng: np.random.Generator
    voices: Sequence[Samples] = ()


Transform = Callable[[Samples, AugmentationContext], Samples]


@dataclass(frozen=True)
class Condition:
    """A condition of the robustness test. All conditions but those with `changes_duration` keep length and timing."""

    group: str  # block of the condition in the tables
    description: str
    transform: Transform
    changes_duration: bool = False


def identity(waveform: Samples, context: AugmentationContext) -> Samples:
    """Return the waveform unchanged."""
    return waveform


def rms(waveform: Samples) -> float:
    """Return the root mean square of all samples."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def match_level(waveform: Samples, reference: Samples) -> Samples:
    """Scale to the root mean square of `reference`, or to less if the peak would exceed MAX_PEAK."""
    scaled = waveform * (rms(reference) / max(rms(waveform), 1e-12))
    return limit_peak(np.asarray(scaled, dtype=np.float32))


def limit_peak(waveform: Samples) -> Samples:
    """Scale the whole waveform down if its peak exceeds MAX_PEAK."""
    peak = float(np.abs(waveform).max())
    return waveform if peak <= MAX_PEAK else np.asarray(waveform * (MAX_PEAK / peak), dtype=np.float32)


def fit_length(waveform: Samples, length: int) -> Samples:
    """Cut or zero-pad the end to exactly `length` samples."""
    out = np.zeros(length, dtype=np.float32)
    out[: len(waveform)] = waveform[:length]
    return out


def check_packages() -> None:
    """Raise ParamsError if the packages for codecs and rooms are not installed."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise ParamsError(
            f"codecs and rooms need {' and '.join(missing)}, not installed: {install_hint('robustness')}"
        )
