"""Where on the frequency axis the bands of a filterbank lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def band_centres_hz(bands: int, *, sample_rate_hz: int) -> NDArray[np.float64]:
    """(F,): where each triangular filter of features.fbank.Fbank is highest; equally far apart on the HTK mel scale."""
    highest_mel = 2595 * np.log10(1 + sample_rate_hz / 2 / 700)
    mels = np.linspace(0, highest_mel, bands + 2)[1:-1]
    return np.asarray(700 * (10 ** (mels / 2595) - 1))
