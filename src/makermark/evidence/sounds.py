"""Sounds and pictures of them, small enough to travel inside a page. Legend of axes: T samples, F bands, C columns."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from makermark.audio import Samples

LONGEST_SECONDS = 60.0  # of a sound, heard or drawn
MEDIA_TYPE = "audio/mpeg"  # the one that every browser plays
WINDOW = 512  # samples of a spectrum
BANDS = 96
MOST_COLUMNS = 1000
SHORTEST_HOP = 160  # samples
SHADES = 32
RANGE_DB = 70.0  # below the loudest: the darkest


@dataclass(frozen=True)
class Spectrogram:
    """Levels (F, C) in dB below the loudest, low bands first, of the first `seconds`; bands lie evenly in mel, from 0
    to `top_hz`."""

    level_db: NDArray[np.float32]
    seconds: float
    top_hz: float


def first_seconds(waveform: Samples, rate_hz: int) -> Samples:
    """What of a sound is played and drawn."""
    return waveform[: round(LONGEST_SECONDS * rate_hz)]


def playable(waveform: Samples, rate_hz: int) -> bytes:
    """The first LONGEST_SECONDS as MP3: to listen to, no longer what was measured."""
    import soundfile

    file = BytesIO()
    soundfile.write(file, first_seconds(waveform, rate_hz), rate_hz, format="MP3")
    return file.getvalue()


def spectrogram(waveform: Samples, rate_hz: int) -> Spectrogram:
    """Of the first LONGEST_SECONDS; at most MOST_COLUMNS spectra, evenly spread."""
    from torchaudio.functional import melscale_fbanks

    shown = first_seconds(waveform, rate_hz)
    padded = np.pad(shown, WINDOW // 2)
    hop = max(SHORTEST_HOP, -(-len(shown) // MOST_COLUMNS))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::hop]  # (C, WINDOW)
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), axis=1)) ** 2
    bands = melscale_fbanks(WINDOW // 2 + 1, 0.0, rate_hz / 2, BANDS, rate_hz).numpy()
    level_db = 10 * np.log10(np.maximum(power @ bands, 1e-12))
    level_db = np.maximum(level_db - level_db.max(), -RANGE_DB)
    return Spectrogram(level_db.T.astype(np.float32), len(shown) / rate_hz, rate_hz / 2)


def as_png(colours: NDArray[np.floating]) -> bytes:
    """A picture (F, C, 3) of red, green and blue from 0 to 1, one pixel a value, the first row at its foot."""
    from matplotlib.image import imsave

    file = BytesIO()
    imsave(file, np.ascontiguousarray(np.round(colours[::-1] * 255).astype(np.uint8)), format="png")
    return file.getvalue()


def draw(sound: Spectrogram) -> bytes:
    """The picture of a spectrogram, dark to bright in SHADES steps, that keep it small; PNG."""
    from matplotlib import colormaps

    level = np.floor((1 + sound.level_db / RANGE_DB) * (SHADES - 1) + 0.5) / (SHADES - 1)
    return as_png(colormaps["magma"](level)[..., :3])
