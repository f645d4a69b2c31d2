"""Logarithmic filter banks, on the mel scale or equally spaced, of many utterances in one pass.

Axes: T frames, F bands.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from makermark.features.front_end import MINUTE_SAMPLES, Features, Scalar
from makermark.foundation.arrays import FloatArray
from makermark.foundation.audio import RESAMPLER, Samples
from makermark.foundation.errors import ParamsError

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_FRAMES = 512  # their buffers take 3 MB and stay in the CPU cache; smaller chunks cost more in calls


class FilterBank(ABC):
    """log(energies + log_offset), where energies = filters . |STFT|^2: what `Fbank` and `LinearFbank` share.

    - Frames of `n_fft` samples, `hop_length` apart; frame t is centred on sample t hop_length. The waveform is
      extended by reflection, n_fft / 2 samples at both ends. T = 1 + samples // hop_length.
    - Window: periodic Hamming of `win_length` samples in the middle of the frame. No pre-emphasis, no dither.
    - Power spectrum (exponent 2), not normalised by the window.
    - Triangular filters of height 1 (no area normalisation), each from the centre of the band below to that of the
      band above, from 0 Hz to half the sample rate.
    - Natural logarithm, stored as float16: 11 significant bits, an error of at most 0.004 where |log| < 16.

    Frames are cut into buffers that are used again, and the product with the filters runs in two parts. Log-mels
    take a third of the processor time of a loop over torchaudio's MelSpectrogram, and are equal (benchmarks/README.md).
    """

    name: ClassVar[str]
    bands_setting: ClassVar[str]  # the setting with the number of bands
    dtype: np.dtype[Any] = np.dtype(np.float16)
    chunk_samples = MINUTE_SAMPLES

    def __init__(
        self,
        *,
        sample_rate_hz: int,
        n_fft: int,
        win_length: int,
        hop_length: int,
        bands: int,
        log_offset: float,
    ) -> None:
        minimums = {"sample_rate_hz": 1, "n_fft": 2, "win_length": 1, "hop_length": 1, self.bands_setting: 1}
        settings = {
            "sample_rate_hz": sample_rate_hz,
            "n_fft": n_fft,
            "win_length": win_length,
            "hop_length": hop_length,
            self.bands_setting: bands,
        }
        for setting, value in settings.items():
            if value < minimums[setting]:
                raise ParamsError(
                    f"front end {self.name}: {setting} is {value}; it must be at least {minimums[setting]}"
                )
        if n_fft % 2:
            raise ParamsError(f"front end {self.name}: n_fft is {n_fft}; it must be even")
        if win_length > n_fft:
            raise ParamsError(
                f"front end {self.name}: win_length is {win_length}; it must be at most n_fft ({n_fft})"
            )
        if not log_offset > 0:
            raise ParamsError(f"front end {self.name}: log_offset is {log_offset}; it must be above 0")
        self._settings = settings
        self.sample_rate_hz = sample_rate_hz
        self.width = bands
        self.frames_per_second = sample_rate_hz / hop_length
        self.min_samples = n_fft // 2 + 1  # reflection needs n_fft / 2 samples besides the first
        self._half, self._hop, self._log_offset = n_fft // 2, hop_length, float(log_offset)

    @abstractmethod
    def band_centres_hz(self) -> FloatArray:
        """Return the peak frequency of each filter, (F,)."""

    @abstractmethod
    def _scale_parameters(self) -> dict[str, Scalar]:
        """Return what describes the scale of the bands among `parameters`."""

    @abstractmethod
    def _filter_matrix(self) -> Tensor:
        """Return the filters (n_fft / 2 + 1, F)."""

    def parameters(self) -> dict[str, Scalar]:
        return {
            "front_end": self.name,
            **self._settings,
            "log_offset": self._log_offset,
            "window": "hamming, periodic",
            "edges": "centred frames, reflected",
            "power": 2.0,
            **self._scale_parameters(),
            "resampler": RESAMPLER,
            "dtype": self.dtype.name,
        }

    def libraries(self) -> Sequence[str]:
        return ("numpy", "soundfile", "soxr", "torch", "torchaudio")

    def transform(self, waveforms: Sequence[Samples]) -> list[Features]:
        """Return features (T, F) float16 of each waveform. Raises ValueError for fewer than `min_samples` samples.

        The waveforms are concatenated, each with its own reflected edges and starting at a multiple of the hop, so
        that one sequence of frames serves all. The few frames that span two waveforms are dropped.
        """
        samples, first_frames = self._concatenate(waveforms)
        log_energies = self._log_energies(samples)  # (frames of all, F)
        return [
            log_energies[first : first + 1 + len(waveform) // self._hop]
            for first, waveform in zip(first_frames, waveforms, strict=True)
        ]

    def _concatenate(self, waveforms: Sequence[Samples]) -> tuple[Samples, list[int]]:
        """Return the waveforms with reflected edges as one array, and the first frame of each."""
        half = self._half
        spans = [-(-(len(waveform) + 2 * half) // self._hop) for waveform in waveforms]  # in hops
        *first_frames, total = accumulate(spans, initial=0)
        samples = np.empty(total * self._hop + 2 * half, dtype=np.float32)
        samples[total * self._hop :] = 0
        for first, span, waveform in zip(first_frames, spans, waveforms, strict=True):
            if len(waveform) < self.min_samples:
                raise ValueError(f"{len(waveform)} samples; {self.name} needs at least {self.min_samples}")
            start = first * self._hop
            middle = start + half
            end = middle + len(waveform)
            samples[start:middle] = waveform[half:0:-1]
            samples[middle:end] = waveform
            samples[end : end + half] = waveform[::-1][1 : half + 1]
            samples[end + half : start + span * self._hop] = 0
        return samples, first_frames

    def _log_energies(self, samples: Samples) -> NDArray[np.float16]:
        """Return log energies (frames, F) of all frames of the samples."""
        import torch

        frames = torch.from_numpy(samples).unfold(0, 2 * self._half, self._hop)  # (frames, n_fft), a view
        log_energies = torch.empty(len(frames), self.width, dtype=torch.float16)
        with torch.inference_mode():
            chunks = zip(
                torch.split(frames, CHUNK_FRAMES), torch.split(log_energies, CHUNK_FRAMES), strict=True
            )
            for length, equally_long in groupby(chunks, key=lambda chunk: len(chunk[0])):
                self._fill(equally_long, length)
        return log_energies.numpy()

    def _fill(self, chunks: Iterable[tuple[Tensor, Tensor]], length: int) -> None:
        """Write the log energies of each chunk (frames (length, n_fft), output (length, F)).

        All chunks use the same buffers, because allocating memory costs as much as the arithmetic. There are few
        calls, because after each a thread may have to wait for the interpreter lock.
        """
        import torch

        windowed, energies = torch.empty(length, 2 * self._half), torch.empty(length, self.width)
        power, imaginary = (np.empty((length, self._half + 1), np.float32) for _ in range(2))
        products = [
            (torch.from_numpy(power[:, bins]), filters, energies[:, bands])
            for bins, bands, filters in self._filters
        ]
        for frames, log_energies in chunks:
            spectra = torch.fft.rfft(torch.mul(frames, self._window, out=windowed)).numpy()
            np.square(spectra.real, out=power)
            np.square(spectra.imag, out=imaginary)
            np.add(power, imaginary, out=power)
            for bin_power, filters, band_energies in products:
                torch.mm(bin_power, filters, out=band_energies)
            log_energies.copy_(energies.add_(self._log_offset).log_())

    @cached_property
    def _window(self) -> Tensor:
        """The window (n_fft,), centred in the frame as by torch.stft."""
        import torch

        length = self._settings["win_length"]
        before = (2 * self._half - length) // 2
        window = torch.zeros(2 * self._half)
        window[before : before + length] = torch.hamming_window(length)
        return window

    @cached_property
    def _filters(self) -> list[tuple[slice, slice, Tensor]]:
        """The filters in two groups of bands, each with its bins, its bands, and its matrix.

        The lower three fifths of 40 mel bands span a quarter of the bins, so half of the product is saved.
        """
        filters = self._filter_matrix()
        split = self.width * 3 // 5
        groups = []
        for bands in (slice(0, split), slice(split, self.width)):
            used = filters[:, bands].any(dim=1).nonzero().flatten().tolist()  # bins
            bins = slice(used[0], used[-1] + 1) if used else slice(0)
            groups.append((bins, bands, filters[bins, bands].contiguous()))
        return groups


class Fbank(FilterBank):
    """Log-mels (Koutsianos et al. 2025, section 3), with the defaults of torchaudio's MelSpectrogram.

    `FilterBank` with `n_mels` bands, equally spaced on the HTK mel scale, 2595 log10(1 + f / 700). Raises ParamsError
    for a setting out of range.
    """

    name = "fbank"
    bands_setting = "n_mels"

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
        super().__init__(
            sample_rate_hz=sample_rate_hz,
            n_fft=n_fft,
            win_length=win_length,
            hop_length=hop_length,
            bands=n_mels,
            log_offset=log_offset,
        )

    def band_centres_hz(self) -> FloatArray:
        highest_mel = 2595 * np.log10(1 + self.sample_rate_hz / 2 / 700)
        mels = np.linspace(0, highest_mel, self.width + 2)[1:-1]
        return np.asarray(700 * (10 ** (mels / 2595) - 1))

    def _scale_parameters(self) -> dict[str, Scalar]:
        return {"mel_scale": "htk", "mel_norm": "none"}

    def _filter_matrix(self) -> Tensor:
        from torchaudio.functional import melscale_fbanks

        filters: Tensor = melscale_fbanks(
            self._half + 1, 0.0, self.sample_rate_hz / 2, self.width, self.sample_rate_hz
        )
        return filters


class LinearFbank(FilterBank):
    """Log energies of `n_bands` bands that are equally spaced in frequency.

    Half of the bands are in the upper octave, where a mel filter bank has a quarter of them. Published systems are told
    apart better with it (docs/generalisation.md). It is the filter bank of LFCC (linear-frequency cepstra; Sahidullah,
    Kinnunen & Hanilci, Interspeech 2015) without their cosine transform. Raises ParamsError for a setting out of range.
    """

    name = "linear-fbank"
    bands_setting = "n_bands"

    def __init__(
        self,
        *,
        sample_rate_hz: int,
        n_fft: int,
        win_length: int,
        hop_length: int,
        n_bands: int,
        log_offset: float,
    ) -> None:
        super().__init__(
            sample_rate_hz=sample_rate_hz,
            n_fft=n_fft,
            win_length=win_length,
            hop_length=hop_length,
            bands=n_bands,
            log_offset=log_offset,
        )

    def band_centres_hz(self) -> FloatArray:
        return np.linspace(0, self.sample_rate_hz / 2, self.width + 2)[1:-1]

    def _scale_parameters(self) -> dict[str, Scalar]:
        return {"scale": "linear"}

    def _filter_matrix(self) -> Tensor:
        from torchaudio.functional import linear_fbanks

        filters: Tensor = linear_fbanks(
            self._half + 1, 0.0, self.sample_rate_hz / 2, self.width, self.sample_rate_hz
        )
        return filters
