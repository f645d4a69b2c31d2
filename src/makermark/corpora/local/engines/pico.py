"""SVOX Pico: statistical parametric synthesis with one voice per language."""

from __future__ import annotations

import numpy as np
from py_nanotts import NanoTTS

from makermark.foundation.arrays import Float32Array

SAMPLE_RATE_HZ = 16000
VOLUME = 0.5  # the engine clips at its default volume


class Pico:
    """SVOX Pico. A voice is a locale and a pitch factor, such as `en-GB*0.9`: there is one speaker per locale."""

    def __init__(self) -> None:
        self._tts = NanoTTS()

    def synthesise(self, text: str, *, language: str, voice: str, seed: int) -> tuple[Float32Array, int]:
        locale, pitch = voice.split("*")
        pcm = self._tts.speak(text, voice=locale, pitch=float(pitch), volume=VOLUME)
        return np.frombuffer(pcm, np.int16).astype(np.float32) / np.float32(32768), SAMPLE_RATE_HZ
