"""STRAIGHT (Kawahara et al. 1999): pitch, aperiodicity and a spectrum without the interference of the pitch."""

from __future__ import annotations

import numpy as np
import pylstraight

from makermark.corpora.local.vocoders.mel import resample
from makermark.corpora.local.vocoders.noise import noise_seed
from makermark.foundation.arrays import Float32Array

SAMPLE_RATE_HZ = 16000


def straight(waveform: Float32Array, sample_rate_hz: int) -> tuple[Float32Array, int]:
    """Resynthesise with legacy STRAIGHT, in frames of 5 ms."""
    samples = resample(waveform, sample_rate_hz, SAMPLE_RATE_HZ).astype(np.float64)
    seed = noise_seed(waveform)
    pitch = pylstraight.extract_f0(samples, SAMPLE_RATE_HZ, seed=seed)
    aperiodicity = pylstraight.extract_ap(samples, SAMPLE_RATE_HZ, pitch, seed=seed)
    spectrum = pylstraight.extract_sp(samples, SAMPLE_RATE_HZ, pitch, seed=seed)
    frames = min(len(pitch), len(aperiodicity), len(spectrum))
    output = pylstraight.synthesize(
        pitch[:frames], aperiodicity[:frames], spectrum[:frames], SAMPLE_RATE_HZ, seed=seed
    )
    return output.astype(np.float32), SAMPLE_RATE_HZ
