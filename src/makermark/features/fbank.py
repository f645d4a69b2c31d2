"""Log-mel filterbanks (Koutsianos et al. 2025, section 3), many utterances in one pass.

Legend of axes: T frames, F bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from makermark.audio import RESAMPLER, Samples
from makermark.errors import ParamsError
from makermark.features.base import MINUTE, Features, Scalar

if TYPE_CHECKING:
    from torch import nn

CHUNK_FRAMES = (
    1024  # spectra of so many frames stay in the processor's cache: three times faster than in one go
)


class Fbank:
    """log(mel + log_offset), where mel = filters . |STFT|^2, as torchaudio's MelSpectrogram has it by default.

    - Frames of `n_fft` samples, `hop_length` apart; frame t is centred on sample t hop_length: the waveform is
      continued by reflection at both ends, n_fft / 2 samples each. T = 1 + samples // hop_length.
    - Window: periodic Hamming of `win_length` samples in the middle of the frame. No pre-emphasis, no dither.
    - Power spectrum (exponent 2), not normalised by the window.
    - `n_mels` triangular filters on the HTK mel scale, 2595 log10(1 + f / 700), from 0 Hz to half the
      sample rate, of height 1 (no area normalisation).
    - Natural logarithm. Stored as float16: 11 significant bits, an error of at most 0.004 where |log| < 16.
    """

    name = "fbank"
    dtype: np.dtype[Any] = np.dtype(np.float16)
    samples_at_once = MINUTE

    def __init__(
        self,
        *,
        sample_rate_hz: int,
        n_fft: int,
        win_length: int,
        hop_length: int,
        n_mels: int,
        log_offset: float,
    ) -> None:
        least = {"sample_rate_hz": 1, "n_fft": 2, "win_length": 1, "hop_length": 1, "n_mels": 1}
        given = {
            "sample_rate_hz": sample_rate_hz,
            "n_fft": n_fft,
            "win_length": win_length,
            "hop_length": hop_length,
            "n_mels": n_mels,
        }
        for setting, value in given.items():
            if value < least[setting]:
                raise ParamsError(f"front end fbank: {setting} is {value}; it is at least {least[setting]}")
        if n_fft % 2:
            raise ParamsError(f"front end fbank: n_fft is {n_fft}; it is an even number")
        if win_length > n_fft:
            raise ParamsError(f"front end fbank: win_length ({win_length}) is above n_fft ({n_fft})")
        if not log_offset > 0:
            raise ParamsError(f"front end fbank: log_offset is {log_offset}; it is above 0")
        self._given = given
        self.sample_rate_hz = sample_rate_hz
        self.width = n_mels
        self.frames_per_second = sample_rate_hz / hop_length
        self.min_samples = n_fft // 2 + 1  # reflection needs as much beyond the edge
        self._half, self._hop, self._log_offset = n_fft // 2, hop_length, float(log_offset)

    def parameters(self) -> dict[str, Scalar]:
        return {
            "front_end": self.name,
            **self._given,
            "log_offset": self._log_offset,
            "window": "hamming, periodic",
            "edges": "centred frames, reflected",
            "power": 2.0,
            "mel_scale": "htk",
            "mel_norm": "none",
            "resampler": RESAMPLER,
            "dtype": self.dtype.name,
        }

    def libraries(self) -> Sequence[str]:
        return ("numpy", "soundfile", "soxr", "torch", "torchaudio")

    def transform(self, waveforms: Sequence[Samples]) -> list[Features]:
        """Each (T, F) float16. The waveforms lie end to end, each with its own reflected edges and each
        starting at a whole number of hops, so that one run of frames serves all; the few frames that
        straddle two waveforms are dropped."""
        flat, first_frames = self._lay_out(waveforms)
        log_mels = self._log_mels(flat)  # (frames of all, F)
        return [
            log_mels[first : first + 1 + len(waveform) // self._hop]
            for first, waveform in zip(first_frames, waveforms, strict=True)
        ]

    def _lay_out(self, waveforms: Sequence[Samples]) -> tuple[Samples, list[int]]:
        half = self._half
        spans = [-(-(len(waveform) + 2 * half) // self._hop) for waveform in waveforms]  # in hops
        *first_frames, total = accumulate(spans, initial=0)
        flat = np.zeros(total * self._hop + 2 * half, dtype=np.float32)
        for first, waveform in zip(first_frames, waveforms, strict=True):
            if len(waveform) < self.min_samples:
                raise ValueError(f"{len(waveform)} samples; fbank needs at least {self.min_samples}")
            start = first * self._hop
            middle = start + half
            end = middle + len(waveform)
            flat[start:middle] = waveform[half:0:-1]
            flat[middle:end] = waveform
            flat[end : end + half] = waveform[::-1][1 : half + 1]
        return flat, first_frames

    def _log_mels(self, flat: Samples) -> NDArray[np.float16]:
        import torch

        frames = 1 + (len(flat) - 2 * self._half) // self._hop
        log_mels = np.empty((frames, self.width), dtype=np.float16)
        with torch.inference_mode():
            for first in range(0, frames, CHUNK_FRAMES):
                last = min(first + CHUNK_FRAMES, frames) - 1
                samples = torch.from_numpy(flat[first * self._hop : last * self._hop + 2 * self._half])
                spectra = self._spectra(samples)  # (n_fft / 2 + 1, frames of the chunk), complex
                power = spectra.real.square() + spectra.imag.square()
                mels = self._mel_scale(power).T
                log_mels[first : last + 1] = mels.add(self._log_offset).log_().half().numpy()
        return log_mels

    @cached_property
    def _spectra(self) -> nn.Module:
        import torch
        from torchaudio.transforms import Spectrogram

        module: nn.Module = Spectrogram(
            n_fft=2 * self._half,
            win_length=self._given["win_length"],
            hop_length=self._hop,
            window_fn=torch.hamming_window,
            power=None,  # complex: squaring its two parts is faster than the square of its root
            center=False,  # the edges are laid out already
        )
        return module

    @cached_property
    def _mel_scale(self) -> nn.Module:
        from torchaudio.transforms import MelScale

        module: nn.Module = MelScale(
            n_mels=self.width, sample_rate=self.sample_rate_hz, n_stft=self._half + 1
        )
        return module
