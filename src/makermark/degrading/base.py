"""What a condition is: a waveform in, the same speech under other circumstances out.

Legend of axes: T samples.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from makermark.audio import Samples
from makermark.errors import ParamsError, how_to_add

RATE_HZ = 16000  # of every waveform here
PACKAGES = ("av", "pyroomacoustics")
PEAK = 0.99  # what is louder after a change of level would be clipped by a file


@dataclass(frozen=True)
class Draw:
    """What chance may take: random numbers, and other utterances to speak in the background."""

    rng: np.random.Generator
    voices: Sequence[Samples] = ()


Change = Callable[[Samples, Draw], Samples]


@dataclass(frozen=True)
class Condition:
    """`group` is its block in the tables, `what` its meaning there. All but `cuts` keep length and timing."""

    group: str
    what: str
    change: Change
    cuts: bool = False


def unchanged(waveform: Samples, draw: Draw) -> Samples:
    """As it is."""
    return waveform


def rms(waveform: Samples) -> float:
    """Root of the mean square over all samples."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def as_loud(changed: Samples, like: Samples) -> Samples:
    """`changed` with the root mean square of `like`, or less where a peak would be clipped."""
    scaled = changed * (rms(like) / max(rms(changed), 1e-12))
    return unclipped(np.asarray(scaled, dtype=np.float32))


def unclipped(waveform: Samples) -> Samples:
    """Turned down as a whole where its peak is above PEAK."""
    peak = float(np.abs(waveform).max())
    return waveform if peak <= PEAK else np.asarray(waveform * (PEAK / peak), dtype=np.float32)


def fitted(waveform: Samples, length: int) -> Samples:
    """Exactly `length` samples: the end is cut, or filled with silence."""
    out = np.zeros(length, dtype=np.float32)
    out[: len(waveform)] = waveform[:length]
    return out


def check_packages() -> None:
    """Raise ParamsError where the packages of codecs and rooms are absent."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise ParamsError(
            f"{' and '.join(missing)} not installed, for codecs and rooms: {how_to_add('robustness')}"
        )
