"""Griffin-Lim (1984): a waveform whose spectrogram has given magnitudes, by iteration from zero phase."""

from __future__ import annotations

import numpy as np
import torch
import torchaudio

from makermark.corpora.local.vocoders.mel import MelSettings, mel_filters, mel_spectrogram, resample
from makermark.foundation.arrays import Float32Array

SAMPLE_RATE_HZ = 16000  # the rate of the corpus: a higher rate would only cost time
TACOTRON_MEL = MelSettings(
    SAMPLE_RATE_HZ, n_fft=1024, window=800, hop=200, bands=80, low_hz=40.0, high_hz=8000.0
)
TACOTRON2_MEL = MelSettings(22050, n_fft=1024, window=1024, hop=256, bands=80, low_hz=0.0, high_hz=8000.0)
ITERATIONS = 32
SHORT_ITERATIONS = 8
MOMENTUM = 0.99  # Perraudin et al. 2013


def from_mel(waveform: Float32Array, sample_rate_hz: int) -> tuple[Float32Array, int]:
    """Resynthesise from the 80-band mel spectrogram alone: 32 iterations with momentum.

    Frames as in Tacotron: 50 ms every 12.5 ms.
    """
    output = _invert_mel(waveform, sample_rate_hz, TACOTRON_MEL, iterations=ITERATIONS, momentum=MOMENTUM)
    return output, TACOTRON_MEL.sample_rate_hz


def from_mel_22k(waveform: Float32Array, sample_rate_hz: int) -> tuple[Float32Array, int]:
    """Resynthesise from the 80-band mel spectrogram of Tacotron 2, up to 8 kHz.

    Frames of 46 ms every 12 ms at 22.05 kHz; 8 iterations of the original algorithm.
    """
    output = _invert_mel(waveform, sample_rate_hz, TACOTRON2_MEL, iterations=SHORT_ITERATIONS, momentum=0.0)
    return output, TACOTRON2_MEL.sample_rate_hz


def from_linear(waveform: Float32Array, sample_rate_hz: int) -> tuple[Float32Array, int]:
    """Resynthesise from linear magnitudes in frames of 25 ms every 6.25 ms: 32 iterations with momentum."""
    samples = resample(waveform, sample_rate_hz, SAMPLE_RATE_HZ)
    magnitudes = _magnitudes(samples, n_fft=512, window=400, hop=100)
    output = _invert(magnitudes, n_fft=512, window=400, hop=100, iterations=ITERATIONS, momentum=MOMENTUM)
    return output, SAMPLE_RATE_HZ


def short(waveform: Float32Array, sample_rate_hz: int) -> tuple[Float32Array, int]:
    """Resynthesise from linear magnitudes in frames of 64 ms every 16 ms: 8 iterations of the original algorithm."""
    samples = resample(waveform, sample_rate_hz, SAMPLE_RATE_HZ)
    magnitudes = _magnitudes(samples, n_fft=1024, window=1024, hop=256)
    output = _invert(magnitudes, n_fft=1024, window=1024, hop=256, iterations=SHORT_ITERATIONS, momentum=0.0)
    return output, SAMPLE_RATE_HZ


def _invert_mel(
    waveform: Float32Array, sample_rate_hz: int, settings: MelSettings, *, iterations: int, momentum: float
) -> Float32Array:
    """Return speech (T,) with the mel spectrogram of `waveform`, by the least-squares inverse of the mel filters."""
    mel = mel_spectrogram(resample(waveform, sample_rate_hz, settings.sample_rate_hz), settings)
    inverse = torch.linalg.pinv(torch.from_numpy(mel_filters(settings)))
    return _invert(
        (inverse @ torch.from_numpy(mel)).clamp_min(1e-6),
        n_fft=settings.n_fft,
        window=settings.window,
        hop=settings.hop,
        iterations=iterations,
        momentum=momentum,
    )


def _magnitudes(samples: Float32Array, *, n_fft: int, window: int, hop: int) -> torch.Tensor:
    """Return the magnitudes of the spectrogram, shape (n_fft // 2 + 1, frames)."""
    spectrum = torch.stft(
        torch.from_numpy(np.ascontiguousarray(samples)),
        n_fft,
        hop,
        window,
        torch.hann_window(window),
        return_complex=True,
    )
    return spectrum.abs()


def _invert(
    magnitudes: torch.Tensor, *, n_fft: int, window: int, hop: int, iterations: int, momentum: float
) -> Float32Array:
    output = torchaudio.functional.griffinlim(
        magnitudes,
        window=torch.hann_window(window),
        n_fft=n_fft,
        hop_length=hop,
        win_length=window,
        power=1.0,
        n_iter=iterations,
        momentum=momentum,
        length=None,
        rand_init=False,
    )
    return np.asarray(output.numpy())
