"""A front end that degrades speech first: the same features of other sound, in a cache of their own."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from makermark.audio import Samples
from makermark.degrading.augmenting import CHANGES
from makermark.degrading.base import RATE_HZ, Draw
from makermark.errors import ParamsError
from makermark.features.base import Features, FrontEnd, Scalar

RECIPE = 1  # goes up when the same kind and copy would sound otherwise


class Augmented:
    """`front_end` after a random change of one `kind` (degrading.augmenting); copies with other numbers differ.

    What chance decides follows from the number of the copy and from the samples themselves, so that the features of an
    utterance depend on nothing else. As long as those of `front_end`, frame by frame.
    """

    def __init__(self, front_end: FrontEnd, *, kind: str, copy: int) -> None:
        """Raises ParamsError where the front end takes another rate than the changes do."""
        if front_end.sample_rate_hz != RATE_HZ:
            raise ParamsError(
                f"augment: {kind}: front end {front_end.name} takes {front_end.sample_rate_hz} Hz; codecs and rooms "
                f"are made for {RATE_HZ}: set augment: none, or that rate"
            )
        self._front_end, self._kind, self._copy = front_end, kind, copy
        self.name = f"{front_end.name}-{kind}-{copy}"
        self.width = front_end.width
        self.dtype: np.dtype[Any] = front_end.dtype
        self.frames_per_second = front_end.frames_per_second
        self.sample_rate_hz = front_end.sample_rate_hz
        self.min_samples = front_end.min_samples
        self.samples_at_once = front_end.samples_at_once

    def parameters(self) -> dict[str, Scalar]:
        told: dict[str, Scalar] = {
            "augment": self._kind,
            "augment_copy": self._copy,
            "augment_recipe": RECIPE,
        }
        return {**self._front_end.parameters(), **told}

    def libraries(self) -> Sequence[str]:
        return (*self._front_end.libraries(), "av", "pyroomacoustics", "scipy")

    def transform(self, waveforms: Sequence[Samples]) -> list[Features]:
        return self._front_end.transform([self._changed(waveform) for waveform in waveforms])

    def _changed(self, waveform: Samples) -> Samples:
        rng = np.random.default_rng([self._copy, zlib.crc32(np.ascontiguousarray(waveform).data)])
        return CHANGES[self._kind](waveform, Draw(rng))
