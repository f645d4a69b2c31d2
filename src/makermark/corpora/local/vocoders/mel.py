"""Mel spectrograms from which vocoders resynthesise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import soxr

from makermark.foundation.arrays import Float32Array


@dataclass(frozen=True)
class MelSettings:
    """The settings of a mel spectrogram; window and hop in samples."""

    sample_rate_hz: int
    n_fft: int
    window: int
    hop: int
    bands: int
    low_hz: float
    high_hz: float
    is_centred: bool = True  # False: one frame per hop, as in HiFi-GAN


def mel_spectrogram(waveform: Float32Array, settings: MelSettings) -> Float32Array:
    """Return magnitudes in mel bands, shape (bands, frames)."""
    import torch

    if not settings.is_centred:
        waveform = np.pad(waveform, (settings.n_fft - settings.hop) // 2, mode="reflect")
    spectrum = torch.stft(
        torch.from_numpy(np.ascontiguousarray(waveform)),
        n_fft=settings.n_fft,
        hop_length=settings.hop,
        win_length=settings.window,
        window=torch.hann_window(settings.window),
        center=settings.is_centred,
        pad_mode="reflect",
        return_complex=True,
    ).abs()
    return np.asarray(mel_filters(settings) @ spectrum.numpy(), np.float32)


@cache
def mel_filters(settings: MelSettings) -> Float32Array:
    """Return Slaney's mel filters, shape (bands, bins)."""
    import torchaudio

    filters = torchaudio.functional.melscale_fbanks(
        settings.n_fft // 2 + 1,
        settings.low_hz,
        settings.high_hz,
        settings.bands,
        settings.sample_rate_hz,
        norm="slaney",
        mel_scale="slaney",
    )
    return np.ascontiguousarray(filters.T.numpy())


def resample(waveform: Float32Array, from_hz: int, to_hz: int) -> Float32Array:
    return waveform if from_hz == to_hz else np.asarray(soxr.resample(waveform, from_hz, to_hz))
