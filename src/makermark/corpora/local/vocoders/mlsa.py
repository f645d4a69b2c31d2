"""Mel-cepstral vocoder with the mel log spectrum approximation (MLSA) filter (Imai 1983), as in HMM synthesis."""

from __future__ import annotations

import diffsptk
import numpy as np
import pyworld
import torch

from makermark.corpora.local.vocoders.mel import resample
from makermark.corpora.local.vocoders.noise import noise_seed
from makermark.foundation.arrays import Float32Array

SAMPLE_RATE_HZ = 16000
WINDOW_SAMPLES, HOP_SAMPLES, N_FFT = 400, 80, 512  # 25 ms every 5 ms
ORDER, WARPING = 24, 0.42  # of the mel-cepstrum; this warping approximates the mel scale at 16 kHz
NEWTON_ITERATIONS = 3
TAYLOR_ORDER = 20
FRAME_MS = 1000.0 * HOP_SAMPLES / SAMPLE_RATE_HZ


class Mlsa:
    """Pulses at the pitch period in voiced frames and noise in unvoiced ones, filtered by MLSA."""

    def __init__(self) -> None:
        self._spectrogram = diffsptk.STFT(WINDOW_SAMPLES, HOP_SAMPLES, N_FFT)
        self._analysis = diffsptk.MelCepstralAnalysis(
            fft_length=N_FFT, cep_order=ORDER, alpha=WARPING, n_iter=NEWTON_ITERATIONS
        )
        self._excitation = diffsptk.ExcitationGeneration(HOP_SAMPLES)
        self._filter = diffsptk.MLSA(
            ORDER, HOP_SAMPLES, alpha=WARPING, mode="multi-stage", taylor_order=TAYLOR_ORDER
        )

    def __call__(self, waveform: Float32Array, sample_rate_hz: int) -> tuple[Float32Array, int]:
        samples = resample(waveform, sample_rate_hz, SAMPLE_RATE_HZ)
        period = _pitch_periods(samples)
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise_seed(waveform))
            cepstrum = self._analysis(self._spectrogram(torch.from_numpy(np.ascontiguousarray(samples))))
            frames = min(len(period), len(cepstrum))
            excitation = self._excitation(torch.from_numpy(period[:frames]))
            return self._filter(excitation, cepstrum[:frames]).numpy(), SAMPLE_RATE_HZ


def _pitch_periods(samples: Float32Array) -> Float32Array:
    """Return the pitch period of every frame in samples, 0 where the frame is unvoiced."""
    signal = samples.astype(np.float64)
    rough_pitch, times = pyworld.dio(signal, SAMPLE_RATE_HZ, frame_period=FRAME_MS)
    pitch = pyworld.stonemask(signal, rough_pitch, times, SAMPLE_RATE_HZ)
    return np.where(pitch > 0, SAMPLE_RATE_HZ / np.maximum(pitch, 1.0), 0.0).astype(np.float32)
