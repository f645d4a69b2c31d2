"""WORLD (Morise et al. 2016): pitch, spectral envelope and aperiodicity."""

from __future__ import annotations

import numpy as np
import pyworld

from makermark.corpora.local.vocoders.mel import resample
from makermark.foundation.arrays import Float32Array, FloatArray

SAMPLE_RATE_HZ = 16000  # the rate of the corpus; a higher rate would only cost time
ENVELOPE_COEFFICIENTS = 24


def world(waveform: Float32Array, sample_rate_hz: int) -> tuple[Float32Array, int]:
    """Resynthesise: pitch by DIO and StoneMask, envelope by CheapTrick, aperiodicity by D4C."""
    samples = resample(waveform, sample_rate_hz, SAMPLE_RATE_HZ).astype(np.float64)
    pitch, envelope, aperiodicity = _analyse(samples)
    output = pyworld.synthesize(pitch, envelope, aperiodicity, SAMPLE_RATE_HZ)
    return output.astype(np.float32), SAMPLE_RATE_HZ


def world_coded(waveform: Float32Array, sample_rate_hz: int) -> tuple[Float32Array, int]:
    """Resynthesise from coded features as in statistical synthesis.

    The analysis is that of `world`; the envelope is coded into 24 mel-cepstral coefficients and the aperiodicity into
    one band.
    """
    samples = resample(waveform, sample_rate_hz, SAMPLE_RATE_HZ).astype(np.float64)
    pitch, envelope, aperiodicity = _analyse(samples)
    n_fft = pyworld.get_cheaptrick_fft_size(SAMPLE_RATE_HZ)
    envelope_code = pyworld.code_spectral_envelope(envelope, SAMPLE_RATE_HZ, ENVELOPE_COEFFICIENTS)
    aperiodicity_code = pyworld.code_aperiodicity(aperiodicity, SAMPLE_RATE_HZ)
    output = pyworld.synthesize(
        pitch,
        pyworld.decode_spectral_envelope(envelope_code, SAMPLE_RATE_HZ, n_fft),
        pyworld.decode_aperiodicity(aperiodicity_code, SAMPLE_RATE_HZ, n_fft),
        SAMPLE_RATE_HZ,
    )
    return output.astype(np.float32), SAMPLE_RATE_HZ


def _analyse(samples: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the pitch in Hz (F,), the envelope and the aperiodicity (F, bins) of samples (T,), every 5 ms."""
    rough_pitch, times = pyworld.dio(samples, SAMPLE_RATE_HZ)
    pitch = pyworld.stonemask(samples, rough_pitch, times, SAMPLE_RATE_HZ)
    envelope = pyworld.cheaptrick(samples, pitch, times, SAMPLE_RATE_HZ)
    return pitch, envelope, pyworld.d4c(samples, pitch, times, SAMPLE_RATE_HZ)
