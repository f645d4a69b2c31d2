"""Codec 2 (Rowe): a harmonic sinusoidal vocoder for radio; speech below 4 kHz.

The library in the package pycodec2 is called through ctypes, because its phases come from a static random generator.
Every utterance gets a copy of the library of its own, so that the samples do not depend on earlier utterances: a file
that the process has open already, as after the import of the package, would not be loaded again.
"""

from __future__ import annotations

import _ctypes
import ctypes
import tempfile
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

from makermark.corpora.local.vocoders.mel import resample
from makermark.corpora.local.vocoders.noise import noise_seed
from makermark.foundation.arrays import Float32Array

SAMPLE_RATE_HZ = 8000
MAX_PEAK = 0.9  # of the input: the codec works on 16-bit samples
MODES = {3200: 0, 1300: 4, 700: 8}  # bits per second -> CODEC2_MODE_*
MAX_SKIPPED = 4096  # random numbers, so that two utterances have different phases


class Codec2:
    """Codec 2 at 3200, 1300 or 700 bit/s."""

    def __init__(self, bits_per_second: int) -> None:
        self._mode = MODES[bits_per_second]
        files = distribution("pycodec2").files or []
        (file,) = (file for file in files if file.name.startswith("libcodec2"))
        self._content = Path(str(file.locate())).read_bytes()

    def __call__(self, waveform: Float32Array, sample_rate_hz: int) -> tuple[Float32Array, int]:
        samples = resample(waveform, sample_rate_hz, SAMPLE_RATE_HZ)
        samples = samples * min(1.0, MAX_PEAK / max(float(np.abs(samples).max()), 1e-9))
        with tempfile.NamedTemporaryFile(suffix=".so") as copy:
            copy.write(self._content)
            copy.flush()
            library = ctypes.CDLL(copy.name)
        try:
            for _ in range(noise_seed(waveform) % MAX_SKIPPED):
                library.codec2_rand()
            return _encode_decode(library, self._mode, samples), SAMPLE_RATE_HZ
        finally:
            _ctypes.dlclose(library._handle)


def _encode_decode(library: ctypes.CDLL, mode: int, samples: Float32Array) -> Float32Array:
    """Return the decoded samples, a whole number of frames: up to one frame longer than `samples`."""
    library.codec2_create.restype = ctypes.c_void_p
    codec = ctypes.c_void_p(library.codec2_create(mode))
    size = library.codec2_samples_per_frame(codec)
    code = ctypes.create_string_buffer((library.codec2_bits_per_frame(codec) + 7) // 8)
    frames = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    pcm = np.ascontiguousarray(np.round(frames * 32767).astype(np.int16))
    for frame in pcm:
        pointer = frame.ctypes.data_as(ctypes.c_void_p)
        library.codec2_encode(codec, code, pointer)
        library.codec2_decode(codec, pointer, code)
    library.codec2_destroy(codec)
    return pcm.flatten().astype(np.float32) / np.float32(32768)
