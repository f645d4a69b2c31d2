"""espeak-ng with its three waveform generators (harmonic, Klatt, SpeechPlayer), called through ctypes.

The library has global state: use one instance per process.
"""

from __future__ import annotations

import _ctypes
import ctypes

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

from makermark.foundation.arrays import Float32Array

RETRIEVAL_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: the callback gets all samples before espeak_Synth returns
CHARS_UTF8 = 1
PHONEMES_IPA = 2
LANGUAGE_NAMES = {
    "zh": "cmn",
    "pt": "pt-br",
    "en": "en-us",
}  # where espeak-ng's name is not our language code

Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Espeak:
    """espeak-ng. A voice is a variant of espeak-ng (`m1`, `klatt3`, ...); `-` is the default voice of a language."""

    def __init__(self) -> None:
        self._chunks: list[NDArray[np.int16]] = []
        self._callback = Callback(self._append_samples)  # referenced here: the library stores only a pointer
        self._load_library()

    def _load_library(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        data = espeakng_loader.get_data_path().encode()
        self.sample_rate_hz = self._library.espeak_Initialize(RETRIEVAL_SYNCHRONOUS, 0, data, 0)
        if self.sample_rate_hz <= 0:
            raise RuntimeError(f"espeak-ng cannot read its data in {data.decode()}")
        self._library.espeak_SetSynthCallback(self._callback)

    def synthesise(self, text: str, *, language: str, voice: str, seed: int) -> tuple[Float32Array, int]:
        self._reload_library(seed)
        self._set_voice(language, voice)
        self._chunks = []
        content = text.encode()
        size = len(content) + 1
        if self._library.espeak_Synth(content, size, 0, CHARS_UTF8, 0, CHARS_UTF8, None, None) != 0:
            raise RuntimeError("espeak_Synth failed")
        samples = np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)
        return samples.astype(np.float32) / np.float32(32768), self.sample_rate_hz

    def phonemes(self, text: str, *, language: str) -> str:
        """Return `text` in IPA, with its clauses joined by commas."""
        self._set_voice(language, "-")
        rest = ctypes.c_char_p(text.encode())
        clauses = []
        while rest.value:
            clause = self._library.espeak_TextToPhonemes(ctypes.byref(rest), CHARS_UTF8, PHONEMES_IPA)
            clauses.append(clause.decode().strip())
        return ", ".join(clause for clause in clauses if clause)

    def _reload_library(self, seed: int) -> None:
        """Load the library again, so that the samples do not depend on earlier utterances.

        Its generators store phase and noise in static variables that no function resets.
        """
        self._library.espeak_Terminate()
        _ctypes.dlclose(self._library._handle)
        ctypes.CDLL(None).srand(seed & 0x7FFFFFFF)
        self._load_library()

    def _set_voice(self, language: str, variant: str) -> None:
        name = LANGUAGE_NAMES.get(language, language) + ("" if variant == "-" else f"+{variant}")
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {name!r}")

    def _append_samples(
        self, samples: ctypes._Pointer[ctypes.c_short], count: int, events: int | None
    ) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0
