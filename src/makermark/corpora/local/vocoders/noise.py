"""Seeds for vocoders that excite their filters with noise."""

from __future__ import annotations

import zlib

from makermark.foundation.arrays import Float32Array


def noise_seed(waveform: Float32Array) -> int:
    """Return a seed in [0, 2**32) from the samples: one utterance always has the same noise, two have different noise.

    With a constant seed, the noise itself would identify the vocoder.
    """
    return zlib.crc32(waveform.tobytes())
