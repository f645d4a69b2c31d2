"""What a front end is: waveforms in, features of a fixed width out.

Legend of axes: T frames, F bands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from makermark.audio import Samples

Scalar = str | int | float
MINUTE = 60 * 16000  # samples at 16 kHz
Features = NDArray[Any]  # (T, F) in the front end's dtype


class FrontEnd(Protocol):
    """The contract of everything in FRONT_ENDS; held by the tests over the whole registry.

    Making one must be cheap: whatever is heavy to import or to compute waits for the first `transform`.
    """

    @property
    def name(self) -> str:
        """The key in FRONT_ENDS, and the folder of its cache."""

    @property
    def width(self) -> int:
        """F, the numbers per frame."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """How features are stored."""

    @property
    def frames_per_second(self) -> float:
        """Frames per second of audio."""

    @property
    def sample_rate_hz(self) -> int:
        """Of the waveforms that `transform` takes."""

    @property
    def min_samples(self) -> int:
        """The shortest waveform that `transform` takes."""

    @property
    def samples_at_once(self) -> int:
        """How much audio `transform` is given at a time, about; it changes the speed, not the features."""

    def parameters(self) -> Mapping[str, Scalar]:
        """Everything that decides the features: a cache made with others is refused."""

    def libraries(self) -> Sequence[str]:
        """The packages that compute the features; a cache records their versions as information."""

    def transform(self, waveforms: Sequence[Samples]) -> list[Features]:
        """The features (T, F) of each waveform; those of one do not depend on the others."""
