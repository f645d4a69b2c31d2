"""ru_tts: concatenation of allophones, Russian, 8 bit at 10 kHz.

The package's own Python call fails on Python 3.11, so its exported C function is called through ctypes.
"""

from __future__ import annotations

import ctypes
import importlib.util

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 10000
SETTINGS = 12  # ints of ru_tts_conf_t
FLAGS = 11  # the last of them
PAUSE_AT_FULL_STOP, PAUSE_AT_COMMA, ALTERNATIVE_VOICE = 1, 2, 4
VOICES = {"male": 0, "female": ALTERNATIVE_VOICE}

Consumer = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int8), ctypes.c_size_t, ctypes.c_void_p)


class RuTts:
    """Voices: `male`, `female`."""

    def __init__(self) -> None:
        found = importlib.util.find_spec("_ru_tts_native")
        if found is None or found.origin is None:
            raise ModuleNotFoundError("No module named '_ru_tts_native'", name="_ru_tts_native")
        self._library = ctypes.CDLL(found.origin)

    def speak(self, text: str, *, language: str, voice: str, seed: int) -> tuple[NDArray[np.float32], int]:
        settings = (ctypes.c_int * SETTINGS)()
        self._library.ru_tts_config_init(settings)
        settings[FLAGS] = PAUSE_AT_FULL_STOP | PAUSE_AT_COMMA | VOICES[voice]
        pieces: list[NDArray[np.int8]] = []

        def take(samples: ctypes._Pointer[ctypes.c_int8], count: int, _: int | None) -> int:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
            return 0

        spoken = text.encode("koi8-r", errors="replace")
        buffer = ctypes.create_string_buffer(8192)
        self._library.ru_tts_transfer(settings, spoken, buffer, len(buffer), Consumer(take), None)
        samples = np.concatenate(pieces) if pieces else np.zeros(0, np.int8)
        return samples.astype(np.float32) / np.float32(128), RATE_HZ
