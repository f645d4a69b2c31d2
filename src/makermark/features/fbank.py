"""Log-mel filterbanks (Koutsianos et al. 2025, section 3), many utterances in one pass.

Legend of axes: T frames, F bands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from makermark.audio import RESAMPLER, Samples
from makermark.errors import ParamsError
from makermark.features.base import MINUTE, Features, Scalar

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_FRAMES = (
    512  # what belongs to so many frames, 3 MB, stays near the processor; with fewer, calls cost more
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
        flat = np.empty(total * self._hop + 2 * half, dtype=np.float32)
        flat[total * self._hop :] = 0
        for first, span, waveform in zip(first_frames, spans, waveforms, strict=True):
            if len(waveform) < self.min_samples:
                raise ValueError(f"{len(waveform)} samples; fbank needs at least {self.min_samples}")
            start = first * self._hop
            middle = start + half
            end = middle + len(waveform)
            flat[start:middle] = waveform[half:0:-1]
            flat[middle:end] = waveform
            flat[end : end + half] = waveform[::-1][1 : half + 1]
            flat[end + half : start + span * self._hop] = 0
        return flat, first_frames

    def _log_mels(self, flat: Samples) -> NDArray[np.float16]:
        """(frames of all, F)."""
        import torch

        frames = torch.from_numpy(flat).unfold(0, 2 * self._half, self._hop)  # (frames of all, n_fft): a view
        log_mels = torch.empty(len(frames), self.width, dtype=torch.float16)
        with torch.inference_mode():
            pieces = zip(torch.split(frames, CHUNK_FRAMES), torch.split(log_mels, CHUNK_FRAMES), strict=True)
            for length, alike in groupby(pieces, key=lambda piece: len(piece[0])):
                self._fill(alike, length)
        return log_mels.numpy()

    def _fill(self, pieces: Iterable[tuple[Tensor, Tensor]], length: int) -> None:
        """Write log-mels for frames, both of `length`. Every piece uses the same buffers, because fresh memory costs
        as much as the arithmetic, and few calls, because after each a thread may wait for the other's Python."""
        import torch

        windowed, mels = torch.empty(length, 2 * self._half), torch.empty(length, self.width)
        power, imaginary = (np.empty((length, self._half + 1), np.float32) for _ in range(2))
        products = [
            (torch.from_numpy(power[:, bins]), filters, mels[:, bands])
            for bins, bands, filters in self._filters
        ]
        for frames, log_mels in pieces:
            spectra = torch.fft.rfft(torch.mul(frames, self._window, out=windowed)).numpy()
            np.square(spectra.real, out=power)
            np.square(spectra.imag, out=imaginary)
            np.add(power, imaginary, out=power)
            for of_bins, filters, of_bands in products:
                torch.mm(of_bins, filters, out=of_bands)
            log_mels.copy_(mels.add_(self._log_offset).log_())

    @cached_property
    def _window(self) -> Tensor:
        """(n_fft,): the window in the middle of the frame, as torch.stft lays it."""
        import torch

        length = self._given["win_length"]
        before = (2 * self._half - length) // 2
        window = torch.zeros(2 * self._half)
        window[before : before + length] = torch.hamming_window(length)
        return window

    @cached_property
    def _filters(self) -> list[tuple[slice, slice, Tensor]]:
        """torchaudio's filters in two runs of bands: the bins that one needs, its bands, and its matrix.

        The lower three fifths of 40 bands span a quarter of the bins, so that half of the product is left out.
        """
        from torchaudio.transforms import MelScale

        whole = MelScale(n_mels=self.width, sample_rate=self.sample_rate_hz, n_stft=self._half + 1).fb
        cut = self.width * 3 // 5
        runs = []
        for bands in (slice(0, cut), slice(cut, self.width)):
            used = whole[:, bands].any(dim=1).nonzero().flatten().tolist()  # bins
            bins = slice(used[0], used[-1] + 1) if used else slice(0)
            runs.append((bins, bands, whole[bins, bands].contiguous()))
        return runs
