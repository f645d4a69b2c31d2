"""espeak-ng with its three waveform generators (harmonic, Klatt, SpeechPlayer), through ctypes.

The library keeps global state: one instance per process.
"""

from __future__ import annotations

import _ctypes
import ctypes

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

RETRIEVAL_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: samples go to the callback before espeak_Synth returns
CHARS_UTF8 = 1
PHONEMES_IPA = 2
NAMES = {"zh": "cmn", "pt": "pt-br", "en": "en-us"}  # where espeak-ng's name is not our language code

Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Espeak:
    """Voices are espeak-ng's variants (`m1`, `klatt3`, ...); `-` is the language's plain voice."""

    def __init__(self) -> None:
        self._pieces: list[NDArray[np.int16]] = []
        self._callback = Callback(self._take)  # kept alive: the library holds only a pointer
        self._open()

    def _open(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        data = espeakng_loader.get_data_path().encode()
        self.rate_hz = self._library.espeak_Initialize(RETRIEVAL_SYNCHRONOUS, 0, data, 0)
        if self.rate_hz <= 0:
            raise RuntimeError(f"espeak-ng cannot read its data in {data.decode()}")
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, *, language: str, voice: str, seed: int) -> tuple[NDArray[np.float32], int]:
        self._reopen(seed)
        self._choose(language, voice)
        self._pieces = []
        spoken = text.encode()
        size = len(spoken) + 1
        if self._library.espeak_Synth(spoken, size, 0, CHARS_UTF8, 0, CHARS_UTF8, None, None) != 0:
            raise RuntimeError("espeak_Synth failed")
        samples = np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int16)
        return samples.astype(np.float32) / np.float32(32768), self.rate_hz

    def phonemes(self, text: str, *, language: str) -> str:
        """IPA of `text`, its clauses joined by commas."""
        self._choose(language, "-")
        rest = ctypes.c_char_p(text.encode())
        clauses = []
        while rest.value:
            said = self._library.espeak_TextToPhonemes(ctypes.byref(rest), CHARS_UTF8, PHONEMES_IPA)
            clauses.append(said.decode().strip())
        return ", ".join(clause for clause in clauses if clause)

    def _reopen(self, seed: int) -> None:
        """Load the library anew: its generators keep phase and noise in static variables that nothing
        resets, and what is said must not depend on what was said before."""
        self._library.espeak_Terminate()
        _ctypes.dlclose(self._library._handle)
        ctypes.CDLL(None).srand(seed & 0x7FFFFFFF)
        self._open()

    def _choose(self, language: str, variant: str) -> None:
        name = NAMES.get(language, language) + ("" if variant == "-" else f"+{variant}")
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {name!r}")

    def _take(self, samples: ctypes._Pointer[ctypes.c_short], count: int, events: int | None) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0
