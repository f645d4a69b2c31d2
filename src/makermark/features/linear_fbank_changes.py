"""The linear filter bank, and how much the bands of short windows change within each of its frames.

Axes: T frames, F values per frame, B bands of a short window, J short windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makermark.features.fbank import LinearFbank
from makermark.features.front_end import MINUTE_SAMPLES, Features, Scalar
from makermark.foundation.arrays import Float32Array, FloatArray
from makermark.foundation.audio import Samples
from makermark.foundation.errors import ParamsError

CHANGE_OFFSET = (
    1e-3  # added to mean squares: far above the rounding of float16 log energies, below those of speech
)


class LinearFbankChanges:
    """`LinearFbank`, followed by the changes of short-window log energies within each frame.

    The window of `n_fft` samples shows the fine structure of the spectrum, but not what happens within it: speech
    whose phases a vocoder estimated from magnitudes, as Griffin-Lim does, has nearly the spectrum of the original,
    while the pulses of its voice are spread over time. For each window length of `short_windows`, in samples, the log
    energies z of `short_bands` bands are computed every quarter of that length. Frame t then has, after the `n_bands`
    log energies at sample t hop_length, for each short window

    - B values log(mean (z[j+1] - z[j])^2 + 0.001), over the steps from sample t hop_length to (t + 1) hop_length
    - B values log(mean (z[j+1] - 2 z[j] + z[j-1])^2 + 0.001), over the same steps

    which do not depend on the gain while the energies are far above `log_offset`. A short window holds less energy, so
    that this is untrue of quiet recordings: at 20 dB below the speech of the built-in corpus, the mean of a value moves
    by 0.8 of its standard deviation over the frames.

    Stored as float16. T = samples // hop_length: the last frame of `LinearFbank` has no successor. Raises ParamsError
    for a setting out of range, for lists of different lengths, for a short window whose quarter does not divide
    `hop_length` or leaves fewer than two steps in it, and for more bands than a short window resolves.
    """

    name = "linear-fbank-changes"
    dtype: np.dtype[Any] = np.dtype(np.float16)
    chunk_samples = MINUTE_SAMPLES

    def __init__(
        self,
        *,
        sample_rate_hz: int,
        n_fft: int,
        win_length: int,
        hop_length: int,
        n_bands: int,
        log_offset: float,
        short_windows: list[int],
        short_bands: list[int],
    ) -> None:
        if len(short_windows) != len(short_bands):
            raise ParamsError(
                f"front end {self.name}: short_windows has {len(short_windows)} values, short_bands "
                f"{len(short_bands)}; give the number of bands of each window"
            )
        self._long = LinearFbank(
            sample_rate_hz=sample_rate_hz,
            n_fft=n_fft,
            win_length=win_length,
            hop_length=hop_length,
            n_bands=n_bands,
            log_offset=log_offset,
        )
        for window, count in zip(short_windows, short_bands, strict=True):
            if count >= window // 2:
                raise ParamsError(
                    f"front end {self.name}: short_bands contains {count} for a window of {window} samples; it "
                    f"must be at most {window // 2 - 1}, or bands would be empty"
                )
        self._steps = [self._steps_in_frame(window, hop_length) for window in short_windows]
        self._short = [
            LinearFbank(
                sample_rate_hz=sample_rate_hz,
                n_fft=window,
                win_length=window,
                hop_length=window // 4,
                n_bands=count,
                log_offset=log_offset,
            )
            for window, count in zip(short_windows, short_bands, strict=True)
        ]
        self._settings = {"short_windows": short_windows, "short_bands": short_bands}
        self._hop = hop_length
        self.sample_rate_hz = sample_rate_hz
        self.bands = n_bands
        self.width = n_bands + 2 * sum(short_bands)
        self.frames_per_second = sample_rate_hz / hop_length
        self.min_samples = max(hop_length, *(bank.min_samples for bank in (self._long, *self._short)))

    def _steps_in_frame(self, window: int, hop_length: int) -> int:
        """Return how many steps of a quarter of `window` are in a frame. Raises ParamsError unless two or more."""
        step, remainder = divmod(window, 4)
        if window < 4 or remainder or hop_length % step or hop_length < 2 * step:
            raise ParamsError(
                f"front end {self.name}: short_windows contains {window}; a quarter of it must be a divisor of "
                f"hop_length ({hop_length}), and at most half of it"
            )
        return hop_length // step

    def band_centres_hz(self) -> FloatArray:
        """Return the peak frequency of each band of the long window, (`bands`,)."""
        return self._long.band_centres_hz()

    def parameters(self) -> Mapping[str, Scalar]:
        return {
            **self._long.parameters(),
            "front_end": self.name,
            **self._settings,
            "change_offset": CHANGE_OFFSET,
        }

    def libraries(self) -> Sequence[str]:
        return self._long.libraries()

    def transform(self, waveforms: Sequence[Samples]) -> list[Features]:
        """Return features (T, F) float16 of each waveform. Raises ValueError for fewer than `min_samples` samples."""
        log_energies = self._long.transform(waveforms)
        short = [bank.transform(waveforms) for bank in self._short]  # J lists
        features = []
        for n, (waveform, bands) in enumerate(zip(waveforms, log_energies, strict=True)):
            frames = len(waveform) // self._hop
            parts = [bands[:frames]]
            for of_window, steps in zip(short, self._steps, strict=True):
                parts += changes_within_frames(of_window[n], frames=frames, steps=steps)
            features.append(np.concatenate(parts, axis=1))
        return features


def changes_within_frames(
    log_energies: NDArray[np.floating[Any]], *, frames: int, steps: int
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Return the log mean squares of the first and the second differences of (T steps + 1 or more, B): each (T, B)."""
    levels = log_energies[: frames * steps + 1].astype(np.float32)
    change = np.diff(levels, axis=0).reshape(frames, steps, -1)
    return _log_mean_square(change), _log_mean_square(np.diff(change, axis=1))


def _log_mean_square(values: Float32Array) -> NDArray[np.float16]:
    """Return log(mean of squares + CHANGE_OFFSET) over the steps of (T, steps, B), as (T, B)."""
    mean_squares = np.square(values).mean(axis=1)
    logarithms: NDArray[np.float16] = np.log(mean_squares + CHANGE_OFFSET).astype(np.float16)
    return logarithms
