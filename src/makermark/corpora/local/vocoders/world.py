"""WORLD (Morise et al. 2016): pitch, spectral envelope and aperiodicity."""

from __future__ import annotations

import numpy as np
import pyworld

from makermark.corpora.local.vocoders.mel import resample
from makermark.foundation.arrays import Float32Array

SAMPLE_RATE_HZ = 16000  # the rate of the corpus; a higher rate would only cost time
ENVELOPE_COEFFICIENTS = 24


def world(waveform: Float32Array, sample_rate_hz: int) -> tuple[Float32Array, int]:
    """Resynthesise: pitch by DIO and StoneMask, envelope by CheapTrick, aperiodicity by D4C."""
    samples = resample(waveform, sample_rate_hz, SAMPLE_RATE_HZ).astype(np.float64)
    rough_pitch, times = pyworld.dio(samples, SAMPLE_RATE_HZ)
    pitch = pyworld.stonemask(samples, rough_pitch, times, SAMPLE_RATE_HZ)
    envelope = pyworld.cheaptrick(samples, pitch, times, SAMPLE_RATE_HZ)
    aperiodicity = pyworld.d4c(samples, pitch, times, SAMPLE_RATE_HZ)
    output = pyworld.synthesize(pitch, envelope, aperiodicity, SAMPLE_RATE_HZ)
    return output.astype(np.float32), SAMPLE_RATE_HZ


def world_coded(waveform: Float32Array, sample_rate_hz: int) -> tuple[Float32Array, int]:
    """Resynthesise from coded features as in statistical synthesis.

    The envelope is coded into 24 mel-cepstral coefficients and the aperiodicity into one band; pitch by Harvest.
    """
    samples = resample(waveform, sample_rate_hz, SAMPLE_RATE_HZ).astype(np.float64)
    pitch, times = pyworld.harvest(samples, SAMPLE_RATE_HZ)
    n_fft = pyworld.get_cheaptrick_fft_size(SAMPLE_RATE_HZ)
    envelope = pyworld.cheaptrick(samples, pitch, times, SAMPLE_RATE_HZ)
    envelope_code = pyworld.code_spectral_envelope(envelope, SAMPLE_RATE_HZ, ENVELOPE_COEFFICIENTS)
    aperiodicity_code = pyworld.code_aperiodicity(
        pyworld.d4c(samples, pitch, times, SAMPLE_RATE_HZ), SAMPLE_RATE_HZ
    )
    output = pyworld.synthesize(
        pitch,
        pyworld.decode_spectral_envelope(envelope_code, SAMPLE_RATE_HZ, n_fft),
        pyworld.decode_aperiodicity(aperiodicity_code, SAMPLE_RATE_HZ, n_fft),
        SAMPLE_RATE_HZ,
    )
    return output.astype(np.float32), SAMPLE_RATE_HZ
