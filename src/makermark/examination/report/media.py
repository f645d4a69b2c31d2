"""Sounds and images that are embedded in the report. Legend of axes: F bands, C columns."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from matplotlib.colors import to_rgb
from scipy.ndimage import gaussian_filter

from makermark.examination.attribution.clip_explanation import Explanation
from makermark.foundation.arrays import Float32Array, FloatArray
from makermark.foundation.audio import Samples
from makermark.foundation.figures import COLOURS

MAX_MEDIA_SECONDS = 60.0  # of a sound that is played or drawn
MP3_MEDIA_TYPE = "audio/mpeg"  # supported by all browsers
WINDOW_SAMPLES = 512
BANDS = 96
MAX_COLUMNS = 1000
MIN_HOP_SAMPLES = 160
SHADES = 32  # few shades keep the PNG file small
RANGE_DB = 70.0  # dynamic range of the image
SUPPORTING_COLOUR, OPPOSING_COLOUR = COLOURS[5], COLOURS[4]
SMOOTHING = (4.0, 1.0)  # standard deviations in frames and bands
SATURATION_PERCENTILE = 99.5  # of the absolute attributions
GREY_PERCENTILES = 2, 98  # of the filterbank, for black and for MAX_GREY
MAX_GREY = 0.55


@dataclass(frozen=True)
class Spectrogram:
    """Mel spectrogram of the first `seconds` of a sound.

    - level_db (F, C): relative to the maximum, lowest band first; the bands are equally spaced in mel from 0 to
      `top_hz`
    """

    level_db: Float32Array
    seconds: float
    top_hz: float


def cut_to_media_length(waveform: Samples, rate_hz: int) -> Samples:
    """Return the first MAX_MEDIA_SECONDS."""
    return waveform[: round(MAX_MEDIA_SECONDS * rate_hz)]


def encode_mp3(waveform: Samples, rate_hz: int) -> bytes:
    """Return the first MAX_MEDIA_SECONDS as MP3, for playback only."""
    import soundfile

    file = BytesIO()
    soundfile.write(file, cut_to_media_length(waveform, rate_hz), rate_hz, format="MP3")
    return file.getvalue()


def compute_spectrogram(waveform: Samples, rate_hz: int) -> Spectrogram:
    """Return the spectrogram of the first MAX_MEDIA_SECONDS with about MAX_COLUMNS columns at most."""
    from torchaudio.functional import melscale_fbanks

    shown = cut_to_media_length(waveform, rate_hz)
    padded = np.pad(shown, WINDOW_SAMPLES // 2)
    hop = max(MIN_HOP_SAMPLES, -(-len(shown) // MAX_COLUMNS))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::hop]  # (C, WINDOW_SAMPLES)
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW_SAMPLES), axis=1)) ** 2
    filters = melscale_fbanks(WINDOW_SAMPLES // 2 + 1, 0.0, rate_hz / 2, BANDS, rate_hz).numpy()
    level_db = 10 * np.log10(np.maximum(power @ filters, 1e-12))
    level_db = np.maximum(level_db - level_db.max(), -RANGE_DB)
    return Spectrogram(level_db.T.astype(np.float32), len(shown) / rate_hz, rate_hz / 2)


def encode_png(colours: FloatArray) -> bytes:
    """Return an RGB image (F, C, 3) with values from 0 to 1 as PNG; the first row is at the bottom."""
    from matplotlib.image import imsave

    file = BytesIO()
    imsave(file, np.ascontiguousarray(np.round(colours[::-1] * 255).astype(np.uint8)), format="png")
    return file.getvalue()


def draw_spectrogram(spectrogram: Spectrogram) -> bytes:
    """Return a spectrogram as PNG, in SHADES shades from dark to bright."""
    from matplotlib import colormaps

    level = np.floor((1 + spectrogram.level_db / RANGE_DB) * (SHADES - 1) + 0.5) / (SHADES - 1)
    return encode_png(colormaps["magma"](level)[..., :3])


def draw_attribution(explanation: Explanation) -> bytes:
    """Return the filter bank in grey with the smoothed attribution in two colours (supporting, opposing) as PNG."""
    low, high = np.percentile(explanation.log_energies, GREY_PERCENTILES)
    grey = MAX_GREY * np.clip((explanation.log_energies - low) / max(high - low, 1e-9), 0, 1)[..., None]
    smooth = gaussian_filter(explanation.attribution.astype(np.float64), SMOOTHING)
    saturation = max(float(np.percentile(np.abs(smooth), SATURATION_PERCENTILE)), 1e-12)
    opacity = np.clip(np.abs(smooth) / saturation, 0, 1)[..., None]
    colour = np.where(smooth[..., None] > 0, to_rgb(SUPPORTING_COLOUR), to_rgb(OPPOSING_COLOUR))
    return encode_png(((1 - opacity) * grey + opacity * colour).swapaxes(0, 1))
