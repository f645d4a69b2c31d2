"""Contract of the front ends: waveforms in, features of a fixed width out.

Axes: T frames, F values per frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from makermark.foundation.audio import Samples

Scalar = str | int | float | list[int]
MINUTE_SAMPLES = 60 * 16000  # one minute at 16 kHz
Features = NDArray[Any]  # (T, F) in the front end's dtype


class FrontEnd(Protocol):
    """Contract of everything in FRONT_ENDS.

    The constructor must be cheap: heavy imports and computations wait for the first `transform`.
    """

    @property
    def name(self) -> str:
        """The key in FRONT_ENDS and the name of the cache folder."""

    @property
    def width(self) -> int:
        """F, the number of values per frame."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the stored features."""

    @property
    def frames_per_second(self) -> float:
        """Frames per second of audio."""

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate of the waveforms that `transform` takes."""

    @property
    def min_samples(self) -> int:
        """Length of the shortest waveform that `transform` takes."""

    @property
    def chunk_samples(self) -> int:
        """Approximate number of samples to pass to one `transform`; it affects speed, not features."""

    def parameters(self) -> Mapping[str, Scalar]:
        """Return everything that determines the features; a cache with other parameters is refused."""

    def libraries(self) -> Sequence[str]:
        """Return the packages that compute the features; a cache records their versions as information."""

    def transform(self, waveforms: Sequence[Samples]) -> list[Features]:
        """Return the features (T, F) of each waveform; those of one waveform do not depend on the others."""
