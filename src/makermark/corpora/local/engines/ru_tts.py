"""ru_tts: concatenation of allophones; Russian, 8 bit at 10 kHz.

The Python function of the package fails on Python 3.11; its exported C function is called through ctypes instead.
"""

from __future__ import annotations

import ctypes
import importlib.util

import numpy as np
from numpy.typing import NDArray

from makermark.foundation.arrays import Float32Array

SAMPLE_RATE_HZ = 10000
CONFIG_FIELDS = 12  # ints of the struct ru_tts_conf_t
PITCH_FIELD, FLAGS_FIELD = 1, 11  # the second and the last of them
PAUSE_AT_FULL_STOP, PAUSE_AT_COMMA, ALTERNATIVE_VOICE = 1, 2, 4
VOICE_FLAGS = {"male": 0, "female": ALTERNATIVE_VOICE}
BUFFER_BYTES = 8192

Consumer = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int8), ctypes.c_size_t, ctypes.c_void_p)


class RuTts:
    """ru_tts. Voices: `male`, `female`, also with a factor of the pitch, such as `male*0.85`."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("_ru_tts_native")
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError("No module named '_ru_tts_native'", name="_ru_tts_native")
        self._library = ctypes.CDLL(spec.origin)

    def synthesise(self, text: str, *, language: str, voice: str, seed: int) -> tuple[Float32Array, int]:
        config = (ctypes.c_int * CONFIG_FIELDS)()
        self._library.ru_tts_config_init(config)
        speaker, _, pitch = voice.partition("*")
        config[FLAGS_FIELD] = PAUSE_AT_FULL_STOP | PAUSE_AT_COMMA | VOICE_FLAGS[speaker]
        config[PITCH_FIELD] = round(config[PITCH_FIELD] * float(pitch or 1.0))
        chunks: list[NDArray[np.int8]] = []

        def append_samples(samples: ctypes._Pointer[ctypes.c_int8], count: int, _: int | None) -> int:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
            return 0

        content = text.encode("koi8-r", errors="replace")
        buffer = ctypes.create_string_buffer(BUFFER_BYTES)
        self._library.ru_tts_transfer(config, content, buffer, len(buffer), Consumer(append_samples), None)
        samples = np.concatenate(chunks) if chunks else np.zeros(0, np.int8)
        return samples.astype(np.float32) / np.float32(128), SAMPLE_RATE_HZ
